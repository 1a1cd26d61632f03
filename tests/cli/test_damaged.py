"""Damaged files of a run are one line that names the file, for every verb and every field."""

import json
import pickle
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from src.data.tables.record import compute_seal, read_schema
from src.run.lock import Holder
from tests.cli.calling import call, refused, table, words_for_table
from tests.cli.damage import damaged

BYTES = (b"", b"{", b"\0" * 100, bytes(range(256)), b"[" * 100_000, b"NaN", b"1" * 5000)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "table.csv").write_text(table())
    assert call("train", *words_for_table(folder)).code == 0
    return next((folder / "logs" / "table").iterdir())


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def verbs(run: Path) -> dict[str, tuple[object, ...]]:
    return {
        "evaluate": ("--run", run),
        "predict": ("--run", run, "--out", run.parent / "out.csv"),
        "train": ("--resume", run, "--max_epochs", 2),
    }


def test_every_field_of_a_schema(run: Path) -> None:
    path = run / "schema.json"
    schema = json.loads(path.read_text())
    read_schema(str(path))
    tried = 0
    for where, content in damaged(schema):
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"schema\.json is damaged: ") as caught:
            read_schema(str(path))
        assert "\n" not in str(caught.value), where
        tried += 1
    assert tried > 900
    for content in BYTES:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"schema\.json is damaged: "):
            read_schema(str(path))


def test_a_schema_that_was_sealed_anew_is_read_or_refused_in_words(run: Path) -> None:
    path = run / "schema.json"
    refusals = 0
    for where, content in damaged(json.loads(path.read_text())):
        if not isinstance(content, dict) or where == ("seal",):
            continue
        path.write_text(json.dumps(content | {"seal": compute_seal(content)}))
        said = ""
        try:
            read_schema(str(path))
        except ValueError as error:
            said = str(error)
            refusals += 1
        assert said.startswith(f"{path} is damaged: " if said else ""), where
    assert refusals > 800


def test_a_seal_tells_of_values_that_could_be(run: Path) -> None:
    path = run / "schema.json"
    schema = json.loads(path.read_text())
    schema["inputs"][0]["mean"] += 1.0
    path.write_text(json.dumps(schema))
    for verb, words in verbs(run).items():
        refused(
            call(verb, *words), [str(path), "damaged", "a value is not what the run has written"]
        )


@pytest.mark.parametrize("verb", ["evaluate", "predict", "train"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s["inputs"][0].pop("std"), "inputs[0].std is missing"),
        (
            lambda s: s["files"]["train"].update(rows="many"),
            "files.train.rows is 'many', where a whole number",
        ),
        (lambda s: s["tasks"]["hours"]["task"].update(kind="os.system"), "tasks.hours.task"),
        (
            lambda s: s.update(sides=s["sides"][:-1]),
            "sides has 59 letters, where files.train.rows is 60",
        ),
        (lambda s: s.update(hashes="!"), "hashes is no base64 text"),
    ],
)
def test_each_verb_names_the_place(
    run: Path, verb: str, change: Callable[[Any], object], says: str
) -> None:
    schema = json.loads((run / "schema.json").read_text())
    change(schema)
    (run / "schema.json").write_text(json.dumps(schema))
    refused(call(verb, *verbs(run)[verb]), ["schema.json is damaged: ", says])


@pytest.mark.parametrize(
    "name",
    [
        "run.json",
        pytest.param("metrics.json", marks=pytest.mark.slow),
        pytest.param("run.lock", marks=pytest.mark.slow),
    ],
)
def test_other_files_are_read_or_refused_in_a_line(run: Path, name: str) -> None:
    path = run / name
    if name == "run.lock":
        path.write_text(json.dumps(asdict(Holder(2**22 + 1, "elsewhere", "2020", "1"))))
    before = run.with_name("before")
    shutil.copytree(run, before)
    cases = [json.dumps(content).encode() for _, content in damaged(json.loads(path.read_text()))]
    for content in [*BYTES, *random.Random(0).sample(cases, 12)]:
        shutil.rmtree(run)
        shutil.copytree(before, run)
        path.write_bytes(content)
        ended = call("train", "--resume", run, "--max_epochs", 1)
        if ended.code:
            refused(ended, [name])


@pytest.mark.parametrize("verb", ["evaluate", "predict", "train"])
@pytest.mark.parametrize(
    "content", [b"", b"half", b"pickle", b"list", b"loops", b"callbacks", b"state", b"weights"]
)
def test_damaged_checkpoints(run: Path, verb: str, content: bytes) -> None:
    for path in (run / "checkpoints").iterdir():
        whole = path.read_bytes()
        if content == b"half":
            path.write_bytes(whole[: len(whole) // 2])
        elif content == b"pickle":
            path.write_bytes(pickle.dumps({"a": Path("x")}))
        elif content == b"list":
            torch.save([1, 2], path)
        elif content:
            checkpoint = torch.load(path, weights_only=True)
            if content == b"loops":
                checkpoint["loops"]["fit_loop"]["epoch_progress"]["total"]["ready"] = {"a": [1]}
            elif content == b"callbacks":
                checkpoint["callbacks"]["selection"]["lowest_loss"] = None
            elif content == b"state":
                checkpoint["state_dict"] = {}
            else:
                name = next(iter(checkpoint["state_dict"]))
                checkpoint["state_dict"][name] = "garbage"
            torch.save(checkpoint, path)
        else:
            path.write_bytes(b"")
    refused(call(verb, *verbs(run)[verb]), [".ckpt", "checkpoint"])


def test_a_lost_best_checkpoint_is_not_replaced_by_the_last_weights(run: Path) -> None:
    (run / "checkpoints" / "best.ckpt").unlink()
    for verb in ("evaluate", "predict"):
        refused(call(verb, *verbs(run)[verb]), ["best.ckpt is gone", "--checkpoint last"])
    refused(call("train", *verbs(run)["train"]), ["best.ckpt is gone", "restore it"])
    assert not (run / "run.lock").exists()
    assert call("evaluate", "--run", run, "--checkpoint", "last").code == 0
