"""Runs that keep what they started from: anchors, a teacher, and old data beside the new."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.cli.calling import call
from tests.launching import furthest, launch, only_run, read_json, train, weights
from tests.toy import KillAt

SMALL = (
    *("--model.encoder.width", 16, "--model.encoder.dropout", 0.2, "--max_epochs", 2),
    *("--data.batch_size", 16, "--lr", 0.01, "--trainer.log_every_n_steps", 1),
)
HOLDING = (
    *("--init_from.anchor", "EWC", "--init_from.anchor.strength", 50),
    *("--init_from.anchor.rows", 30, "--init_from.distillation", 2, "--init_from.replay", 0.25),
)
TOPOLOGIES = {
    "ddp x 2": ("--devices", 2),
    "fsdp x 2": ("--devices", 2, "--strategy", "fsdp"),
}


def write_table(path: Path, rows: int, shift: float, names: tuple[str, ...], seed: int) -> Path:
    """Three columns and labels that follow from them; some labels are missing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3)) + shift
    labels = {
        "old": np.where(x[:, 0] + x[:, 1] > 0, "yes", "no"),
        "number": x[:, 1] - x[:, 2],
        "new": np.where(x[:, 2] > shift, "up", "down"),
    }
    lines = [",".join(["a", "b", "c", *names])]
    for n in range(rows):
        values = [f"{value:.4f}" for value in x[n]]
        values += ["" if rng.random() < 0.1 else str(labels[name][n]) for name in names]
        lines.append(",".join(values))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tables, and a run on the first."""
    place = tmp_path_factory.mktemp("forgetting")
    old = write_table(place / "old.csv", 200, 0.0, ("old", "number"), 1)
    write_table(place / "new.csv", 90, 1.0, ("new",), 2)
    flags = ("--data", "Table", "--data.path", old, "--data.targets", "[old, number]")
    done = call("train", "--logs", place, "--name", "source", *flags, *SMALL)
    assert done.code == 0, done.err
    return place


def flags_of(place: Path) -> tuple[object, ...]:
    """The flags of a run on new rows that starts from the old run."""
    data = ("--data", "Table", "--data.path", place / "new.csv", "--data.targets", "[new]")
    return (*data, "--init_from", only_run(place / "source"), *SMALL)


@pytest.fixture(scope="module")
def alone(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on one process that holds on to its start in every way."""
    logs = tmp_path_factory.mktemp("alone")
    done = call("train", "--logs", logs, "--name", "run", *flags_of(place), *HOLDING)
    assert done.code == 0, done.err
    return only_run(logs / "run")


def test_the_start_is_the_source_and_before_is_what_the_source_scored(
    place: Path, alone: Path
) -> None:
    source = only_run(place / "source")
    start = torch.load(alone / "checkpoints" / "start.ckpt", weights_only=True)
    theirs = weights(source, "best")
    for name in theirs:
        if name.startswith(("sharing.", "heads.")):
            assert torch.equal(start["state_dict"][name].double(), theirs[name])
    assert start["kept"] == ["old", "number"]
    assert not any(name.startswith("heads.new") for name in start["names"])

    before = read_json(alone / "metrics.json")["references"]["before"]
    scored = read_json(source / "metrics.json")
    for stage in ("validation", "test"):
        for key, value in before[stage].items():
            assert value == pytest.approx(scored[stage][key], rel=1e-6), key
    assert "test/number/r2" in before["test"]
    assert not any("/new/" in key for key in before["test"])


def test_the_change_of_each_kept_task_is_said(place: Path, tmp_path: Path) -> None:
    more = ("--init_from.replay", 0)
    done = call("train", "--logs", tmp_path, *flags_of(place), *more)
    assert done.code == 0, done.err
    found = read_json(next(tmp_path.glob("sources/*/metrics.json")))
    old = found["references"]["before"]["test"]["test/number/r2"]
    new = found["test"]["test/number/r2"]
    words = f"number: r2 {old:.4f} -> {new:.4f} ({new - old:+.4f})"
    assert "since the start, on test rows: old: auroc" in done.out
    assert words in done.out


def test_a_run_is_opened_without_its_source(place: Path, alone: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((alone / "config.yaml").read_text())
    data = config["data"]["init_args"]
    assert list(data["sources"]) == ["old", "new"]
    assert data["shares"] == {"new": 0.75}
    config["init_from"]["source"] = str(tmp_path / "gone")
    (alone / "config.yaml").write_text(yaml.safe_dump(config))
    out = tmp_path / "metrics.json"
    done = call("evaluate", "--run", alone, "--out", out)
    assert done.code == 0, done.err
    tested = read_json(alone / "metrics.json")["test"]
    for key, value in read_json(out).items():
        assert value == pytest.approx(tested[key], rel=1e-6), key


@pytest.mark.slow
def test_who_holds_on_stays_nearer(place: Path, tmp_path: Path) -> None:
    source = weights(only_run(place / "source"), "best")
    far = {}
    for name, more in {"free": (), "held": ("--init_from.anchor.strength", 100)}.items():
        anchor = ("--init_from.anchor", "L2SP", *more) if more else ()
        done = call("train", "--logs", tmp_path, "--name", name, *flags_of(place), *anchor)
        assert done.code == 0, done.err
        now = weights(only_run(tmp_path / name))
        squares = [
            (now[key] - source[key]).square().sum() for key in now if key.startswith("sharing.")
        ]
        far[name] = float(torch.stack(squares).sum().sqrt())
    assert far["held"] < far["free"] / 3


@pytest.mark.slow
def test_a_teacher_keeps_outputs_on_new_rows(place: Path, tmp_path: Path) -> None:
    """Both runs see the same rows; one has no labels of the old tasks, nor anybody who knows."""
    found = {}
    for name, more in {"alone": (), "taught": ("--init_from.distillation", 1)}.items():
        flags = (*flags_of(place), "--init_from.replay", 0, "--max_epochs", 20, *more)
        done = call("train", "--logs", tmp_path, "--name", name, *flags)
        assert done.code == 0, done.err
        found[name] = read_json(only_run(tmp_path / name) / "metrics.json")["test"]
    assert found["taught"]["test/number/loss"] < found["alone"]["test/number/loss"]
    assert found["taught"]["test/old/loss"] < found["alone"]["test/old/loss"]


@pytest.mark.slow
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_two_processes_agree_with_one(
    place: Path, alone: Path, tmp_path: Path, topology: str
) -> None:
    run = train(tmp_path, *flags_of(place), *HOLDING, *TOPOLOGIES[topology])
    assert furthest(weights(run), weights(alone)) < 1e-5
    ours, theirs = read_json(run / "metrics.json"), read_json(alone / "metrics.json")
    for stage in ("validation", "test"):
        for results in (ours, theirs):
            results[stage].pop("val/score", None)
        assert ours[stage] == pytest.approx(theirs[stage], rel=1e-5, abs=1e-6)
        expected = theirs["references"]["before"][stage]
        assert ours["references"]["before"][stage] == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(place: Path, alone: Path, tmp_path: Path) -> None:
    kill = KillAt.flags(7, tmp_path / "marker")
    every = ("--watch.checkpoint_every", 3)
    run = train(tmp_path, *flags_of(place), *HOLDING, *every, *kill, code=-9)
    launch("src.train", "--resume", run)
    ours, theirs = weights(run), weights(alone)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert (ours[name] == theirs[name]).all(), name


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--init_from.replay", 1), "init_from.replay is 1.0; a share of the steps is from 0"),
        (("--init_from.replay", "all"), "init_from.replay"),
        (("--init_from.distillation", 0), "init_from.distillation is 0.0, a temperature"),
        (("--init_from.anchor", "L2"), "L2SP"),
        (("--init_from.anchor", "L2SP", "--init_from.anchor.strength", -1), "strength is -1"),
        (("--init_from.distillation", 1), "no task of the source is kept"),
    ],
)
def test_wrong_settings_are_answered_in_a_line(
    place: Path, tmp_path: Path, more: tuple[object, ...], message: str
) -> None:
    done = call("train", "--logs", tmp_path, *flags_of(place), *more)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.strip().splitlines()) <= 2


def test_what_holds_on_needs_a_start(tmp_path: Path) -> None:
    done = call("train", "--logs", tmp_path, "--init_from.anchor", "L2SP")
    assert done.code == 2
    assert "init_from.anchor is set, but init_from.source names no run" in done.err
