"""The table of results: stages side by side, a block for each kind, no number lost whatever the
console's width.
"""

import io
import re
from math import inf, nan

import pytest
from rich.console import Console

from src.data import Digits
from src.monitoring import tabulate_results
from src.monitoring.table import cut_name, format_number
from src.tasks import (
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Regression,
    Task,
)


def printed(table: object, width: int = 80) -> list[str]:
    """The lines, as a file shows them."""
    file = io.StringIO()
    Console(file=file, width=width).print(table, crop=False)
    return file.getvalue().splitlines()


def values(tasks: dict[str, Task], *stages: str) -> dict[str, float]:
    """Another number for each metric of each task and stage."""
    keys = [
        f"{stage}/{name}/{key}"
        for stage in stages
        for name, task in tasks.items()
        for key in ("loss", *task.metric_names)
    ]
    return {key: 0.1 + k / 7919 for k, key in enumerate(keys)} | {
        f"{stage}/score": 0.5 for stage in stages
    }


def numbers(lines: list[str]) -> list[str]:
    return re.findall(r"(?<![\w.])-?\d\.\d{4}(?!\d)", "\n".join(lines))


KINDS: tuple[Task, ...] = (
    BinaryClassification(classes=("no", "yes")),
    Classification(classes=("a", "b", "c")),
    Regression(mean=(0.0,), std=(1.0,)),
    MultilabelClassification(labels=("x", "y")),
    Regression(mean=(0.0, 0.0), std=(1.0, 1.0), names=("u", "v")),
)


def test_one_stage() -> None:
    tasks: dict[str, Task] = {
        "a": Regression(mean=(0.0,), std=(1.0,)),
        "b": BinaryClassification(classes=(0, 1)),
    }
    metrics = {f"test/{n}/{m}": 0.5 for n, task in tasks.items() for m in task.metric_names}
    metrics |= {"test/a/loss": 1.25, "test/b/loss": 2.0, "test/score": 0.75, "test/a/mae": nan}
    assert printed(tabulate_results(tasks, metrics, "test")) == [
        "test: score 0.7500",
        "task   loss MAE   RMSE     R2",
        "a    1.2500 nan 0.5000 0.5000",
        "task   loss    acc     F1  AUROC     AP",
        "b    2.0000 0.5000 0.5000 0.5000 0.5000",
    ]


def test_the_main_job_fits_80_columns_with_both_stages_in_each_row() -> None:
    tasks = Digits().tasks
    lines = printed(tabulate_results(tasks, values(tasks, "val", "test"), "val", "test"))
    assert lines[0] == "val: score 0.5000   test: score 0.5000"
    assert max(map(len, lines)) <= 80
    for name, task in tasks.items():
        (row,) = [line for line in lines if line.startswith(f"{name} ")]
        assert len(numbers([row])) == 2 * (1 + len(task.metric_names))
    assert (
        len(lines) == 1 + 3 * 2 + 4
    )  # the score; of each of three kinds two lines of headings; a row per task


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("long", [False, True], ids=["short names", "long names"])
def test_no_number_is_lost(width: int, long: bool) -> None:
    names = [
        f"outcome_within_thirty_days_of_visit_{k}_in_ward" if long else f"t{k}" for k in range(5)
    ]
    tasks = dict(zip(names, KINDS, strict=True))
    metrics = values(tasks, "val", "test")
    lines = printed(tabulate_results(tasks, metrics, "val", "test"), width)
    assert sorted(numbers(lines)) == sorted(f"{value:.4f}" for value in metrics.values())
    assert not [line for line in lines if re.search(r"\d\.?…", line)]
    assert max(map(len, lines)) <= width


def test_a_notebook_shows_it() -> None:
    tasks: dict[str, Task] = {"a": KINDS[2]}
    shown = tabulate_results(tasks, values(tasks, "val"), "val")._repr_mimebundle_([], [])
    assert "val: score 0.5000" in shown["text/plain"]


def test_140_tasks_are_140_rows() -> None:
    tasks: dict[str, Task] = {f"assay {k}": KINDS[0] for k in range(140)}
    lines = printed(tabulate_results(tasks, values(tasks, "val", "test"), "val", "test"))
    assert len(lines) == 3 + 140
    assert max(map(len, lines)) <= 80


def test_names_are_cut_in_the_middle_and_stay_apart() -> None:
    assert cut_name("short", 12) == "short"
    assert cut_name("a_very_long_name_of_a_task_7", 12) == "a_very…ask_7"
    names = [f"protein_binding_in_tissue_{k:03}_after_treatment_with_drug" for k in range(30)]
    tasks: dict[str, Task] = dict.fromkeys(names, KINDS[0])
    lines = printed(tabulate_results(tasks, values(tasks, "val", "test"), "val", "test"))
    shown = [line.split()[0] for line in lines if line.startswith("protein")]
    assert len(set(shown)) == 30


def test_epochs_of_tasks_that_have_their_own() -> None:
    tasks: dict[str, Task] = {"a": KINDS[2], "b": KINDS[2]}
    lines = printed(tabulate_results(tasks, values(tasks, "val"), "val", epochs={"a": 3, "b": 12}))
    assert [line.split()[:2] for line in lines[1:]] == [["task", "epoch"], ["a", "3"], ["b", "12"]]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.97654, "0.9765"),
        (-0.5, "-0.5000"),
        (12.34567, "12.346"),
        (4321.987, "4322.0"),
        (45000.0, "45000"),
        (1.5e9, "1.50e+09"),
        (0.00001234, "1.2e-05"),
        (0.0, "0.0000"),
        (nan, "nan"),
        (-inf, "-inf"),
    ],
)
def test_numbers_of_any_size(value: float, text: str) -> None:
    assert format_number(value) == text


def test_references_have_rows_below_those_of_each_task() -> None:
    tasks: dict[str, Task] = {"a": KINDS[2], "b": KINDS[0]}
    ours = values(tasks, "val", "test")
    constant = {key: -value for key, value in ours.items()}
    lines = printed(
        tabulate_results(
            tasks, ours, "val", "test", epochs={"a": 7, "b": 9}, references={"constant": constant}
        ),
        width=120,
    )
    assert lines[:2] == [
        "val: score 0.5000   test: score 0.5000",
        "val: score -0.5000   test: score -0.5000   (constant)",
    ]
    rows = [line.split() for line in lines[2:]]
    for name, epoch in (("a", "7"), ("b", "9")):
        place = next(k for k, row in enumerate(rows) if row[0] == name)
        assert rows[place][1] == epoch
        assert rows[place + 1][0] == "constant"
        assert rows[place + 1][1:] == [f"-{number}" for number in rows[place][2:]]
    # no number is lost where the table is folded
    narrow = printed(tabulate_results(tasks, ours, "val", "test", references={"c": constant}), 40)
    assert len(numbers(narrow[2:])) == 2 * len(
        numbers(printed(tabulate_results(tasks, ours, "val", "test"), 40)[1:])
    )
