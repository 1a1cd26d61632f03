"""Text is text as it was written, in flags, in files, and in a run that is opened again."""

import json
from pathlib import Path
from typing import Any

import pytest

from src.files.yaml12 import load
from tests.cli.calling import call, refused, table

# command lines: key, value, what arrives
SETTINGS: dict[str, list[tuple[str, str, Any]]] = {
    "columns": [
        (
            "data.targets",
            "[NO, NO2, 2019, 1e3, 012, 1_000, 12:30]",
            ["NO", "NO2", "2019", "1e3", "012", "1_000", "12:30"],
        ),
        (
            "data.inputs",
            "[on, y, 2019-01-01, true, FALSE, .5]",
            ["on", "y", "2019-01-01", "true", "FALSE", ".5"],
        ),
        ("data.drop", "[0o17, 0x1F, 1., .inf]", ["0o17", "0x1F", "1.", ".inf"]),
        ("data.categorical", "['null', \"~\", é, 😀, 'a b']", ["null", "~", "é", "😀", "a b"]),
        ("data.missing", "[-999, NO, n/a, 012]", ["-999", "NO", "n/a", "012"]),
        ("data.id", "NO", "NO"),
        ("data.split_column", "2019", "2019"),
        ("data.group", "1e3", "1e3"),
        ("data.val_path", "2019-01-01", "2019-01-01"),
        ("data.tasks.a.classes", "[no, yes]", ["no", "yes"]),
        ("data.tasks.a.monitor", "2019", "2019"),
        ("name", "012", "012"),
        ("logs", "1e3", "1e3"),
    ],
    "mappings": [
        (
            "data.targets",
            "{no: NO, 2019: 012, all: [1e3, yes]}",
            {"no": "NO", "2019": "012", "all": ["1e3", "yes"]},
        ),
        (
            "data.tasks.a",
            "{classes: [off, on], weight: 2}",
            {"classes": ["off", "on"], "weight": 2},
        ),
        (
            "data.tasks.b.classes",
            "[01, 1, 1e3, 0.5, true, True]",
            ["01", 1, "1e3", 0.5, "true", "True"],
        ),
        ("data.id", "012", "012"),
        ("name", "NO", "NO"),
        ("model.weights", "{NO: 2, 2019: 0.5}", {"NO": 2, "2019": 0.5}),
    ],
    "other types": [
        ("data.targets", "[a]", ["a"]),
        ("data.tasks", "{a: {classes: [01, 02]}}", {"a": {"classes": ["01", "02"]}}),
        ("trainer.max_time", "00:12:00:00", "00:12:00:00"),
        ("trainer.default_root_dir", "2019", "2019"),
        ("data.batch_size", "0o17", 15),
        ("data.eval_batch_size", "010", 10),
        ("model.optimizer.lr", "1e-3", 0.001),
        ("data.val_fraction", ".2", 0.2),
        ("trainer.devices", "[0]", [0]),
        ("trainer.limit_val_batches", "1", 1),
        ("trainer.limit_test_batches", "1.0", 1.0),
        ("trainer.enable_checkpointing", "true", True),
    ],
}


def resolved(*words: object, keep: Path | None = None) -> dict[str, Any]:
    """What --print_config shows for a command line; ``keep`` is a file for it."""
    ended = call("train", *words, "--print_config")
    assert (ended.code, ended.err) == (0, "")
    if keep:
        keep.write_text(ended.out)
    return load(ended.out)


def setting(config: Any, key: str) -> Any:
    """What stands under a key, as one types it."""
    for name in key.split("."):
        config = config.get("init_args", config)[name]
    return config


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_in_flags_and_files(tmp_path: Path, name: str) -> None:
    words = [word for key, value, _ in SETTINGS[name] for word in (f"--{key}", value)]
    by_flag = resolved(
        "--data", "Table", "--data.path", "x.csv", *words, keep=tmp_path / "printed.yaml"
    )
    for key, _, arrives in SETTINGS[name]:
        assert setting(by_flag, key) == arrives, key
        assert type(setting(by_flag, key)) is type(arrives), key
    lines = [f"{key}: {value}\n" for key, value, _ in SETTINGS[name]]
    (tmp_path / "config.yaml").write_text(
        "".join(["data: {class_path: Table, path: x.csv}\n", *lines])
    )
    assert resolved("--config", tmp_path / "config.yaml") == by_flag
    assert resolved("--config", tmp_path / "printed.yaml") == by_flag


def test_names_of_tasks_and_sources(tmp_path: Path) -> None:
    table_of_a = ("--data", "Table", "--data.path", "air.csv", "--data.targets", "[a]")
    by_flag = resolved(*table_of_a, "--data.tasks.NO.weight", 2, "--data.tasks.2019", "Regression")
    assert setting(by_flag, "data.tasks") == {
        "NO": {"weight": 2},
        "2019": {"class_path": "Regression", "init_args": {}},
    }
    tasks = "{NO: {weight: 2}, 2019: {class_path: Regression, init_args: {}}}"
    (tmp_path / "config.yaml").write_text(
        f"data: {{class_path: Table, path: air.csv, targets: [a], tasks: {tasks}}}"
    )
    assert resolved("--config", tmp_path / "config.yaml") == by_flag
    source = (
        "{class_path: Table, init_args: {path: a.csv, targets: [NO, 012], id: 1e3, batch_size: 32}}"
    )
    (tmp_path / "sources.yaml").write_text(
        f"class_path: Sources\ninit_args: {{sources: {{012: {source}}}}}\n"
    )
    for words in (
        ["--data", "Sources", "--data.sources", f"{{012: {source}}}"],
        ["--data", tmp_path / "sources.yaml"],
    ):
        inner = setting(resolved(*words), "data.sources.012")
        assert [inner["init_args"][key] for key in ("targets", "id", "batch_size")] == [
            ["NO", "012"],
            "1e3",
            32,
        ]


def test_words_that_are_no_truth_are_refused_where_one_is_wanted() -> None:
    refused(
        call("train", "--trainer.detect_anomaly", "NO"),
        ["trainer.detect_anomaly", "expected bool", "'NO'"],
    )
    refused(
        call("train", "--max_epochs", "12:30"), ["trainer.max_epochs", "expected int", "'12:30'"]
    )
    refused(
        call("train", "--data", "Table", "--data.path", "x", "--data.targets", "[null]"),
        ["data.targets", "quotes"],
    )


def test_a_flag_for_yes_or_no_may_stand_alone() -> None:
    config = resolved(
        "--model.checkpoint_activations", "--trainer.detect_anomaly", "--plan", "--fast_dev_run"
    )
    assert [
        setting(config, key)
        for key in ("model.checkpoint_activations", "trainer.detect_anomaly", "plan")
    ] == [True] * 3
    refused(call("train", "--trainer.max_steps"), ["--trainer.max_steps needs a value"])


def test_a_run_on_such_columns_opens_again(tmp_path: Path) -> None:
    rows = range(60)
    columns: dict[str, list[Any]] = {
        "NO": [i * 7 % 20 / 10 for i in rows],
        "2019": [i * 3 % 17 / 10 for i in rows],
        "1e3": [["yes", "no"][i * 5 // 3 % 2] for i in rows],
        "12:30": [["01", "1", "on"][i * 5 // 2 % 3] for i in rows],
        "012": [f"{i:03}" for i in rows],
    }
    (tmp_path / "air.csv").write_text(table(60, (), **columns))
    words = [
        *(
            "--data",
            "Table",
            "--data.path",
            tmp_path / "air.csv",
            "--data.targets",
            "[NO, 2019, 1e3, 12:30]",
        ),
        *(
            "--data.tasks.1e3.classes",
            "[no, yes]",
            "--data.tasks.12_30.classes",
            "[on, 1, 01]",
            "--data.tasks.NO.weight",
            2,
        ),
        *(
            "--data.id",
            "012",
            "--data.drop",
            "[stage]",
            "--name",
            "012",
            "--logs",
            tmp_path,
            "--max_epochs",
            1,
        ),
        *("--model.encoder.width", 8),
    ]
    assert call("train", *words).code == 0
    (run,) = (tmp_path / "012").iterdir()
    tasks = json.loads((run / "schema.json").read_text())["tasks"]
    assert list(tasks) == ["NO", "2019", "1e3", "12_30"]
    kept = setting(load((run / "config.yaml").read_text()), "data.tasks")
    assert (kept["1e3"]["classes"], kept["12_30"]["classes"]) == (["no", "yes"], ["on", 1, "01"])
    tested = json.loads((run / "metrics.json").read_text())["test"]
    assert call("evaluate", "--run", run, "--out", tmp_path / "again.json").code == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert {k: v for k, v in again.items() if tested.get(k) is not None} == {
        k: v for k, v in tested.items() if v is not None
    }
    assert call("train", "--resume", run, "--max_epochs", 2).code == 0
    assert call("predict", "--run", run, "--out", tmp_path / "out.csv").code == 0
    header, *lines = (tmp_path / "out.csv").read_text().splitlines()
    assert {
        "NO",
        "2019",
        "1e3",
        "1e3.p_yes",
        "12_30",
        "12_30.p_on",
        "12_30.p_1",
        "12_30.p_01",
    } <= set(header.split(","))
    assert [line.split(",")[0] for line in lines][:2] == ["000", "001"]
