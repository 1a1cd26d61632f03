"""Tasks with data sets of their own: on one process and two, after a break, by command line."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from src.cli.runs import load_run
from src.data import Rows, Split
from src.tasks import Task, is_labelled
from tests.cli.calling import call, refused
from tests.integration.test_resume import assert_same, checkpoint
from tests.launching import curves, furthest, only_run, read_json, train, weights
from tests.toy import RaiseAt, Toy


class Part(Toy):
    """Some of the toy's tasks, with rows of their own."""

    names: tuple[str, ...] = ()

    @property
    def tasks(self) -> dict[str, Task]:
        return {name: task for name, task in super().tasks.items() if name in self.names}

    def split(self, name: Split) -> Rows:
        rows = super().split(name)
        return Rows(
            rows.inputs,
            {name: target for name, target in rows.targets.items() if name in self.names},
        )


class Left(Part):
    """Primes of rows; its task 'class' is alike 'class2' of the other source."""

    sizes = {"train": 83, "val": 31, "test": 29}
    names = ("class", "rare", "number")


class Right(Part):
    sizes = {"train": 131, "val": 37, "test": 41}
    names = ("class2", "labels", "vector")


HERE = "tests.integration.test_sources"
SOURCES = (
    *(
        "--data",
        "Sources",
        "--data.sources.left",
        f"{HERE}.Left",
        "--data.sources.left.batch_size",
        8,
    ),
    *(
        "--data.sources.right",
        f"{HERE}.Right",
        "--data.eval_batch_size",
        24,
        "--model.encoder.width",
        16,
    ),
    *("--max_epochs", 3, "--trainer.log_every_n_steps", 1, "--watch.figures_every", 0),
)
RUNS: dict[str, tuple[object, ...]] = {
    "proportional": ("--model.encoder.dropout", 0.2),  # 11 and 9 steps an epoch
    "max_cycle": (
        "--data.sampler",
        "max_cycle",
        "--model.balancer",
        "PCGrad",
        "--model.balancer.level",
        "parameters",
    ),
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run folder of a run on one process, in this one."""

    @cache
    def run(kind: str) -> Path:
        logs = tmp_path_factory.mktemp("alone")
        ended = call("train", "--logs", logs, "--name", "run", *SOURCES, *RUNS[kind])
        assert (ended.code, ended.err) == (0, "")
        return only_run(logs / "run")

    return run


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNS)
def test_one_process_and_two_agree(alone: Callable[[str], Path], tmp_path: Path, kind: str) -> None:
    two = train(tmp_path, *SOURCES, *RUNS[kind], "--devices", 2)
    assert furthest(weights(two), weights(alone(kind))) < 1e-5
    ours, theirs = (read_json(run / "metrics.json") for run in (two, alone(kind)))
    for stage in ("validation", "test"):  # null where a few labels define no metric
        assert ours[stage].keys() == theirs[stage].keys()
        for key, value in theirs[stage].items():
            assert ours[stage][key] == (
                value if value is None else pytest.approx(value, rel=1e-5)
            ), key
    one, several = curves(alone(kind)), curves(two)
    points = {"class": 33, "labels": 27} if kind == "proportional" else {"class": 33, "labels": 33}
    for name, steps in points.items():  # a source's tasks have a loss in its own steps alone
        assert len(one[f"train/{name}/loss"]) == steps
        assert several[f"train/{name}/loss"] == pytest.approx(one[f"train/{name}/loss"], rel=1e-5)


def test_evaluation_counts_every_row_once(alone: Callable[[str], Path]) -> None:
    """Against losses by hand, over the rows of each source by themselves."""
    run = alone("max_cycle")
    model, _ = load_run(run)
    recorded = read_json(run / "metrics.json")
    splits: tuple[tuple[Split, str], ...] = (("val", "validation"), ("test", "test"))
    for source in (Left(), Right()):
        for split, stage in splits:
            rows = source.split(split)
            with torch.no_grad():
                outputs = model(rows.inputs)
            for name, task in source.tasks.items():
                losses, known = (
                    task.losses(outputs[name], rows.targets[name]),
                    is_labelled(rows.targets[name]),
                )
                assert recorded[stage][f"{split}/{name}/loss"] == pytest.approx(
                    float(losses.sum() / known.sum()), rel=1e-5
                )


@pytest.mark.parametrize(
    ("kind", "more", "saved"),
    [
        ("proportional", (), 24),
        ("max_cycle", (), 16),
        pytest.param("proportional", ("--data.num_workers", 1), 24, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_breaks_in_mid_epoch_goes_on_to_the_bit(
    alone: Callable[[str], Path], tmp_path: Path, kind: str, more: tuple[object, ...], saved: int
) -> None:
    """20 and 11 steps an epoch; a checkpoint four steps after the one before."""
    broken = ("--watch.checkpoint_every", 4, *more, *RaiseAt.flags(saved + 3, tmp_path / "marker"))
    with pytest.raises(RuntimeError, match="this rank broke"):
        call("train", "--logs", tmp_path, "--name", "broken", *SOURCES, *RUNS[kind], *broken)
    run = only_run(tmp_path / "broken")
    assert checkpoint(run, "last")["global_step"] == saved
    assert call("train", "--resume", run).code == 0
    for part in ("state_dict", "optimizer_states", "metrics"):
        assert_same(checkpoint(run, "last")[part], checkpoint(alone(kind), "last")[part], part)
    assert read_json(run / "metrics.json") == read_json(alone(kind) / "metrics.json")


def test_predictions_have_all_tasks_for_the_rows_of_all_sources(
    alone: Callable[[str], Path], tmp_path: Path
) -> None:
    import pandas as pd

    assert (
        call("predict", "--run", alone("proportional"), "--out", tmp_path / "out.parquet").code == 0
    )
    frame = pd.read_parquet(tmp_path / "out.parquet")
    assert frame["id"].tolist() == [
        *(f"left/{i}" for i in range(29)),
        *(f"right/{i}" for i in range(41)),
    ]
    assert frame.notna().all().all()
    assert {*Left.names, "class2", "labels.x", "vector.u"} <= set(frame.columns)


YAML = """
data:
  class_path: Sources
  sampler: round_robin
  prefix: true
  sources:
    a: Synthetic
    b: {class_path: Synthetic, rows: 100, batch_size: 8}
"""


@pytest.fixture
def words(tmp_path: Path) -> tuple[object, ...]:
    (tmp_path / "own.yaml").write_text(YAML)
    return (
        "--config",
        tmp_path / "own.yaml",
        "--data.sources.a.rows",
        50,
        "--max_epochs",
        1,
        "--logs",
        tmp_path / "logs",
    )


def test_files_and_flags(words: tuple[object, ...], tmp_path: Path) -> None:
    """A flag changes one setting of one source, and the printed configuration runs again."""
    flags = ("--data.sampler", "temperature", "--data.sources.b.rows", 200, "--name", "one")
    ended = call("train", *words, *flags)
    assert (ended.code, ended.err) == (0, "")
    assert "are orthogonal" in ended.out
    printed = call("train", *words, *flags, "--print_config").out
    data = yaml.safe_load(printed)["data"]["init_args"]
    assert data["sampler"] == "temperature"
    chosen = {name: source["init_args"] for name, source in data["sources"].items()}
    assert [(s["rows"], s["batch_size"]) for s in chosen.values()] == [(50, 64), (200, 8)]
    (tmp_path / "printed.yaml").write_text(printed)
    assert call("train", "--config", tmp_path / "printed.yaml", "--name", "two").code == 0
    one, two = (only_run(tmp_path / "logs" / name) for name in ("one", "two"))
    assert checkpoint(one, "last")["global_step"] == 1 + 15  # 30 and 120 rows
    assert furthest(weights(one), weights(two)) == 0.0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--data.prefix", "false"), ["a and b both have a task 'task1'", "data.prefix true"]),
        (("--data.sources.b", "Digits"), ["one shape", "(8,)", "(1, 8, 8)"]),
        (
            ("--data.sources.b.rowz", 5),
            ["data.sources.b.rowz", "did you mean", "data.sources.b.rows"],
        ),
        (("--data.sources.b.rows", "many"), ["data.sources.b.rows", "expected int", "many"]),
        (("--data.sources.b.rows", 2), ["rows is 2", "at least 5"]),
        (("--data.sources.b", "Synthetik"), ["data.sources", "unknown class 'Synthetik'"]),
        (("--data.sampler", "fair"), ["data.sampler", "'round_robin'", "got 'fair'"]),
        (("--data.temperature", -1), ["data.temperature is -1.0", "above 0"]),
        (("--devices", 65), ["data.batch_size is 64", "65 devices"]),
    ],
)
def test_mistakes_are_answered_in_one_line(
    words: tuple[object, ...], flags: tuple[object, ...], says: list[str]
) -> None:
    refused(call("train", *words, *flags), says)


def test_a_run_on_tables_is_opened_on_its_own_files_alone(tmp_path: Path) -> None:
    tables = []
    for name, rows in (("left", 60), ("right", 40)):
        lines = [f"{i % 7},{'ab'[i % 2]},{i * 3 % 13 / 2}" for i in range(rows)]
        (tmp_path / f"{name}.csv").write_text("\n".join([f"u,v,{name}", *lines]) + "\n")
        key = f"--data.sources.{name}"
        tables += [
            key,
            "Table",
            f"{key}.path",
            tmp_path / f"{name}.csv",
            f"{key}.targets",
            f"[{name}]",
        ]
    words = (
        "--data",
        "Sources",
        *tables,
        "--data.sampler",
        "max_cycle",
        "--max_epochs",
        1,
        "--logs",
        tmp_path,
        "--name",
        "run",
    )
    assert call("train", *words).code == 0
    run = only_run(tmp_path / "run")
    assert list(read_json(run / "schema.json")["sources"]) == ["left", "right"]
    assert call("evaluate", "--run", run, "--out", tmp_path / "test.json").code == 0
    assert read_json(tmp_path / "test.json") == pytest.approx(
        read_json(run / "metrics.json")["test"], rel=1e-6
    )
    assert call("predict", "--run", run, "--out", tmp_path / "out.csv").code == 0
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1 + 60 + 40
    (tmp_path / "new.csv").write_text(
        "u,v,left\n" + "\n".join(f"{i},{'ab'[i % 2]},{i / 9}" for i in range(30))
    )
    ended = call(
        "predict",
        "--run",
        run,
        "--data.sources.left.path",
        tmp_path / "new.csv",
        "--out",
        tmp_path / "new.tsv",
    )
    refused(
        ended,
        [
            "data.sources.left has other rows or columns",
            "schema.json",
            "not on new or changed ones",
        ],
    )
