"""A run that starts from another: what is typed, what is kept, what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from src.checkpoint import load_checkpoint, merge_weights
from src.cli.init_from import InitFrom, read_source
from src.cli.runs import load_run
from src.errors import UserError
from tests.cli.calling import Ended, call, refused

SMALL = [
    *("--accelerator", "cpu", "--model.encoder.width", "8", "--model.encoder.depth", "1"),
    *("--trainer.logger", "false", "--watch.figures_every", "0"),
]
TARGETS = ["--data.targets", "{kind: kind, y: y}"]


def make_frame(rows: int = 90, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(2, 3, size=rows).round(6)
    z = rng.normal(size=rows).round(6)
    return pd.DataFrame(
        {
            "x": x,
            "colour": np.array(["red", "blue", "green"])[np.arange(rows) % 3],
            "z": z,
            "kind": np.array(["a", "b", "c"])[np.digitize(x + z, [1, 3])],
            "y": (x - z).round(4),
        }
    )


def train(folder: Path, name: str, frame: pd.DataFrame | None, *words: object) -> Ended:
    if frame is not None:
        frame.to_csv(folder / f"{name}.csv", index=False)
    data = ["--data", "Table", "--data.path", folder / f"{name}.csv"]
    logs = ["--logs", folder / "logs", "--name", name]
    return call("train", *data, *logs, *SMALL, *words)


def trained(folder: Path, name: str, frame: pd.DataFrame | None, *words: object) -> Path:
    ended = train(folder, name, frame, *words)
    assert ended.code == 0, ended.err
    return max((folder / "logs" / name).iterdir())


def predict(run: Path, path: Path, out: Path) -> pd.DataFrame:
    ended = call("predict", "--run", run, "--data.path", path, "--out", out, "--overwrite")
    assert ended.code == 0, ended.err
    return pd.read_csv(out)


def list_parts(out: str) -> dict[str, str]:
    """The lines of the table of parts: {part: the rest}."""
    lines = out.split("weights  why", 1)[1].splitlines()
    pairs = [line.split(None, 1) for line in lines if line.startswith(("encoder", "heads."))]
    return {part: " ".join(rest.split()) for part, rest in pairs}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("init_from")


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    return trained(folder, "source", make_frame(), *TARGETS, "--max_epochs", 3)


# -- zero steps ------------------------------------------------------------------------------------
@pytest.mark.parametrize("flag", ["--max_steps", "--max_epochs"])
def test_without_a_step_predictions_are_the_same_to_the_bit(
    folder: Path, run: Path, flag: str
) -> None:
    # the same rows, their columns in another order
    turned = make_frame()[["y", "z", "kind", "x", "colour"]]
    name = f"zero{flag[5:]}"
    words = [*TARGETS, "--init_from", run, flag, 0]
    zero = trained(folder, name, turned, *words)
    rows = folder / "new.csv"
    make_frame(40, seed=1).to_csv(rows, index=False)
    before = predict(run, rows, folder / "before.csv")
    after = predict(zero, rows, folder / "after.csv")
    pd.testing.assert_frame_equal(before, after, check_exact=True)

    record = json.loads((zero / "run.json").read_text())["init_from"]
    assert record["path"] == str(run)
    assert record["checkpoint"] == "best.ckpt"
    assert len(record["sha256"]) == 64
    assert record["step"] == load_checkpoint(run / "checkpoints/best.ckpt")["global_step"]
    config = yaml.safe_load((zero / "config.yaml").read_text())
    assert config["init_from"]["source"] == str(run)


def test_a_run_that_has_begun_needs_its_source_no_more(folder: Path, run: Path) -> None:
    copy = folder / "copy"
    shutil.copytree(run, copy)
    begun = trained(folder, "begun", make_frame(), *TARGETS, "--init_from", copy, "--max_epochs", 1)
    straight = trained(
        folder, "straight", make_frame(), *TARGETS, "--init_from", copy, "--max_epochs", 2
    )
    shutil.rmtree(copy)
    assert call("evaluate", "--run", begun).code == 0
    load_run(begun)
    ended = call("train", "--resume", begun, "--max_epochs", 2)
    assert ended.code == 0, ended.err
    one, other = (load_checkpoint(r / "checkpoints/last.ckpt") for r in (begun, straight))
    for name, tensor in one["state_dict"].items():
        assert torch.equal(tensor, other["state_dict"][name])
    # what the run was started from stays in its record
    assert json.loads((begun / "run.json").read_text())["init_from"]["path"] == str(copy)


# -- tasks and columns -----------------------------------------------------------------------------
def test_tasks_and_columns_that_differ_are_said(folder: Path, run: Path) -> None:
    frame = make_frame(80, seed=2).drop(columns="z")
    frame["kind"] = frame["kind"].replace({"c": "d"})
    frame["colour"] = np.array(["red", "blue", "pink", "grey"])[np.arange(80) % 4]
    frame["age"] = np.arange(80) * 7 % 31
    frame["late"] = np.where(frame["x"] > 2, "yes", "no")
    targets = ["--data.targets", "[late, kind]"]
    ended = train(folder, "other", frame, *targets, "--init_from", run, "--max_epochs", 1)
    assert ended.code == 0, ended.err
    assert "2 columns are read as" in ended.out
    assert "new: age; gone: z; with new words: colour (grey, pink)" in ended.out
    assert "dropped y: a target of" in ended.out
    parts = list_parts(ended.out)
    assert parts["encoder"].startswith("grown new columns:")
    assert parts["heads.late"] == "fresh a new task"
    assert parts["heads.kind"] == "grown new: d; gone: c"
    assert parts["heads.y"] == "dropped this run has no such task"

    # the run's own schema has them as they are read
    other = max((folder / "logs" / "other").iterdir())
    inputs = {e["column"]: e for e in json.loads((other / "schema.json").read_text())["inputs"]}
    before = {e["column"]: e for e in json.loads((run / "schema.json").read_text())["inputs"]}
    assert inputs["x"] == before["x"]
    assert inputs["colour"]["vocabulary"] == ["blue", "green", "red", "grey", "pink"]
    assert call("evaluate", "--run", other).code == 0


def test_labels_and_columns_keep_the_scale_of_the_source(folder: Path, run: Path) -> None:
    frame = make_frame(80, seed=3)
    frame["y"] = 5 * frame["y"] + 40
    words = [*TARGETS, "--init_from", run, "--max_steps", 0]
    kept = trained(folder, "kept", frame, *words)
    new = trained(folder, "new_scale", frame, *words, "--init_from.normalisation", "new")
    tasks = [json.loads((r / "schema.json").read_text())["tasks"]["y"] for r in (run, kept, new)]
    assert tasks[1]["task"]["mean"] == tasks[0]["task"]["mean"]
    assert tasks[1]["task"]["std"] == tasks[0]["task"]["std"]
    assert tasks[2]["task"]["mean"] == [pytest.approx(40, abs=12)]
    inputs = [json.loads((r / "schema.json").read_text())["inputs"][0] for r in (run, kept, new)]
    assert inputs[1]["mean"] == inputs[0]["mean"]
    assert inputs[2]["mean"] != inputs[0]["mean"]


def test_a_column_that_does_not_vary_any_more_stays(folder: Path, run: Path) -> None:
    frame = make_frame(60, seed=4)
    frame["z"] = 0.5
    zero = trained(folder, "constant", frame, *TARGETS, "--init_from", run, "--max_steps", 0)
    names = [e["column"] for e in json.loads((zero / "schema.json").read_text())["inputs"]]
    assert names == ["x", "z", "colour"] or names == ["x", "colour", "z"]


# -- how it is typed -------------------------------------------------------------------------------
def test_a_plain_word_and_a_mapping_mean_the_same(folder: Path, run: Path) -> None:
    wanted = {"source": str(run), "parts": ["encoder"]}
    short = folder / "short.yaml"
    short.write_text(f"init_from: {run}\n")
    long = folder / "long.yaml"
    long.write_text(yaml.safe_dump({"init_from": wanted}))
    for words in (
        ["--config", short, "--init_from.parts", "[encoder]"],
        ["--config", long],
        ["--init_from", run, "--init_from.parts", "encoder"],
        ["--init_from.source", run, "--init_from.parts", "[encoder]"],
        ["--init_from.parts", "[encoder]", "--init_from", run],
    ):
        ended = train(folder, "source", None, *TARGETS, *words, "--plan")
        assert ended.code == 0, ended.err
        parts = list_parts(ended.out)
        assert parts["encoder"] == "kept"
        assert parts["heads.y"] == "fresh not among init_from.parts"
    ended = train(
        folder, "source", None, *TARGETS, "--config", short, "--init_from", "null", "--plan"
    )
    assert ended.code == 0
    assert "starts from" not in ended.out


def test_a_checkpoint_of_a_run_is_a_source(folder: Path, run: Path) -> None:
    last = run / "checkpoints/last.ckpt"
    words = [*TARGETS, "--max_steps", 0]
    one = trained(folder, "of_file", make_frame(), *words, "--init_from", last)
    other = trained(
        folder,
        "of_last",
        make_frame(),
        *words,
        "--init_from",
        run,
        "--init_from.checkpoint",
        "last",
    )
    expected = load_checkpoint(last)["state_dict"]
    for started in (one, other):
        found = load_checkpoint(started / "checkpoints/last.ckpt")["state_dict"]
        for name, tensor in expected.items():
            if name.startswith(("sharing.", "heads.")):
                assert torch.equal(found[name], tensor)


def test_of_several_networks_one_is_named(folder: Path, run: Path) -> None:
    by_task = folder / "by_task"
    shutil.copytree(run, by_task)
    content = load_checkpoint(run / "checkpoints/best.ckpt")
    state = {name: tensor + 1 for name, tensor in content["state_dict"].items()}
    earlier = content | {"state_dict": state, "global_step": content["global_step"] - 1}
    merge_weights(content, earlier, content["tasks"], ["y"])
    torch.save(content, by_task / "checkpoints/best.ckpt")
    run = by_task
    with pytest.raises(UserError, match=r"--init_from.task kind, or take"):
        read_source(str(run))
    with pytest.raises(UserError, match="which is no task of"):
        read_source(str(run), task="kin")
    one, other = (read_source(str(run), task=task).state for task in ("kind", "y"))
    for name, tensor in one.items():
        assert torch.equal(other[name], tensor + 1)
    words = [*TARGETS, "--max_steps", 0, "--init_from", run, "--init_from.task", "y"]
    zero = trained(folder, "of_task", make_frame(), *words)
    found = load_checkpoint(zero / "checkpoints/last.ckpt")["state_dict"]
    assert torch.equal(found["heads.y.0.weight"], other["heads.y.0.weight"])


# -- what is refused -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--init_from.parts", "[encode]"], ["'encode'", "did you mean 'encoder'"]),
        (["--init_from.parts", "[]"], ["init_from.parts is empty"]),
        (["--init_from.checkpoint", "first"], ["init_from.checkpoint", "best", "last"]),
        (["--init_from.task", "kin"], ["init_from.task is 'kin'", "did you mean 'kind'"]),
        (["--model.encoder", "TabularTransformer"], ["its encoder is MLP", "--model.encoder MLP"]),
        (
            ["--model.encoder.width", "16"],
            ["(8, ", "(16, ", "model.encoder.width is 8 there, and 16 here"],
        ),
        (["--model.encoder.depth", "2"], ["model.encoder.depth is 1 there, and 2 here"]),
        (["--model.sharing", "MMoE"], ["HardSharing", "MMoE", "--model.sharing"]),
        (["--init_from.normalisation", "old"], ["init_from.normalisation"]),
    ],
)
def test_what_does_not_fit_is_refused(
    folder: Path, run: Path, words: list[str], says: list[str]
) -> None:
    given = [*TARGETS, "--init_from", run, *words, "--max_steps", 0]
    before = list((folder / "logs").glob("refused/*"))
    refused(train(folder, "refused", make_frame(), *given), says)
    assert list((folder / "logs").glob("refused/*")) == before


def test_no_run_to_start_from(folder: Path, run: Path) -> None:
    def start(source: object, *words: object) -> Ended:
        return train(folder, "refused", make_frame(), *TARGETS, "--init_from", source, *words)

    refused(start(folder / "nowhere"), ["nowhere does not exist"])
    refused(start(folder), ["is no run folder"])
    refused(start(folder / "source.csv"), ["source.csv", "cut off or no checkpoint"])

    damaged = folder / "damaged"
    shutil.copytree(run, damaged)
    (damaged / "checkpoints/best.ckpt").write_bytes(b"nothing")
    refused(start(damaged), ["best.ckpt", "cut off or no checkpoint"])
    (damaged / "checkpoints/best.ckpt").unlink()
    refused(start(damaged), ["best.ckpt is gone"])

    # a checkpoint without its run says nothing of its columns
    alone = folder / "alone.ckpt"
    shutil.copy(run / "checkpoints/best.ckpt", alone)
    refused(start(alone), ["schema.json", "name a run folder"])

    refused(start("null", "--init_from.parts", "[encoder]"), ["names no run to start from"])
    digits = call(
        *("train", "--logs", folder / "logs", "--name", "digits", "--max_steps", 0),
        *(*SMALL, "--no_test", "true"),
    )
    assert digits.code == 0, digits.err
    source = max((folder / "logs" / "digits").iterdir())
    refused(start(source), ["schema.json", "name a run folder"])

    ended = call("train", "--resume", run, "--init_from", run)
    refused(ended, ["--init_from cannot go with --resume"])


def test_references_and_ensembles_have_no_weights(folder: Path, run: Path) -> None:
    ended = call(
        *("ensemble", "--run", f"{run},{run}", "--logs", folder / "logs", "--name", "mean"),
        "--no_test",
    )
    assert ended.code == 0, ended.err
    ensemble = max((folder / "logs" / "mean").iterdir())
    with pytest.raises(UserError, match="is an ensemble, which averages predictions"):
        read_source(str(ensemble))
    reference = folder / "reference"
    reference.mkdir()
    config = yaml.safe_load((run / "config.yaml").read_text()) | {"method": "constant"}
    (reference / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match="is the reference constant, which is no network"):
        read_source(str(reference))


def test_a_model_of_transformers_starts_an_encoder_of_its_kind(folder: Path) -> None:
    backbone = folder / "bert"
    backbone.mkdir()
    (backbone / "config.json").write_text("{}")
    given = [*TARGETS, "--init_from", backbone]
    ended = train(folder, "refused", make_frame(), *given)
    refused(ended, ["is a model of transformers", "--model.encoder Pretrained"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"parts": ["encoder"]}, "names no run"),
        ({"checkpoint": "best"}, "names no run"),
        ({"source": "run", "parts": []}, "is empty"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        InitFrom(**settings)
