"""Verbs called in this process as `python -m src.<verb>` would be, and small tables for them."""

import io
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch.distributed as dist

from src.adapt import adapt
from src.affinity import affinity
from src.audit import audit
from src.cli.entrypoint import main
from src.compare import compare
from src.ensemble import ensemble
from src.evaluate import evaluate
from src.explain import explain
from src.export import export
from src.lr_find import lr_find
from src.merge import merge
from src.predict import predict
from src.reference import reference
from src.report import report
from src.select import select
from src.serve import serve
from src.sweep import sweep
from src.train import train

VERBS: dict[str, Any] = {
    "adapt": adapt,
    "audit": audit,
    "train": train,
    "evaluate": evaluate,
    "explain": explain,
    "export": export,
    "predict": predict,
    "reference": reference,
    "compare": compare,
    "ensemble": ensemble,
    "merge": merge,
    "sweep": sweep,
    "report": report,
    "select": select,
    "serve": serve,
    "affinity": affinity,
    "lr_find": lr_find,
}
ROWS = 60


class Ended(NamedTuple):
    """How a call ended."""

    code: Any
    out: str
    err: str


def call(verb: str, *words: object) -> Ended:
    """Calls a verb; an error that the command line does not answer comes out as it is."""
    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    argv = mock.patch.object(sys, "argv", [f"src.{verb}", *map(str, words)])
    with (
        mock.patch.dict(os.environ),
        argv,
        redirect_stdout(out),
        redirect_stderr(err),
        shown_warnings(err),
    ):
        os.environ.pop("PL_GLOBAL_SEED", None)
        code: Any = 0
        try:
            main(VERBS[verb])
        except SystemExit as ended:
            code = ended.code or 0
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            if (
                dist.is_initialized()
            ):  # of a strategy for several processes; the next test begins without
                dist.destroy_process_group()
    return Ended(code, out.getvalue(), err.getvalue())


@contextmanager
def shown_warnings(err: io.StringIO) -> Iterator[None]:
    """Warnings as a fresh process shows them, not as pytest does."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        for hidden in (
            DeprecationWarning,
            PendingDeprecationWarning,
            ImportWarning,
            ResourceWarning,
        ):
            warnings.simplefilter("ignore", hidden)
        yield
    for warning in seen:
        err.write(
            warnings.formatwarning(
                warning.message, warning.category, warning.filename, warning.lineno
            )
        )


def refused(ended: Ended, says: Sequence[str]) -> None:
    """Checks that a call ended with exit code 2 and one line that holds these words."""
    assert ended.code == 2, ended
    assert ended.err.startswith("error: "), ended.err
    assert ended.err.count("\n") == 1, ended.err
    assert ended.err.endswith("\n"), ended.err
    for noise in ("Traceback", "<class", "typing.", "Namespace(", "Union subtypes", "init_args"):
        assert noise not in ended.err
    for word in says:
        assert word in ended.err


def columns(rows: int = ROWS) -> dict[str, list[Any]]:
    """A table with a number, words, and targets of three kinds; ``stage`` names the split."""
    return {
        "age": [20 + i * 7 % 45 for i in range(rows)],
        "city": [["Rome", "Oslo", "Lima"][i % 3] for i in range(rows)],
        "income": [["low", "high"][i * 7 // 3 % 2] for i in range(rows)],
        "hours": [round(30 + i * 1.7 % 20, 1) for i in range(rows)],
        "grade": ["abc"[i * 5 // 2 % 3] for i in range(rows)],
        "stage": [["train", "train", "train", "val", "test"][i % 5] for i in range(rows)],
    }


def table(rows: int = ROWS, without: Sequence[str] = (), **changed: list[Any]) -> str:
    """The table as CSV, with some columns replaced or added, or left out; None is an empty cell."""
    chosen = {
        name: values for name, values in (columns(rows) | changed).items() if name not in without
    }
    lines = [
        ",".join("" if value is None else str(value) for value in row)
        for row in zip(*chosen.values(), strict=True)
    ]
    return "\n".join([",".join(chosen), *lines]) + "\n"


def with_cell(column: str, row: int, value: str) -> str:
    """Returns the table as CSV with one cell replaced; rows count from 1 after the header."""
    values = columns()[column]
    changed = {column: [*values[: row - 1], value, *values[row:]]}
    return table(ROWS, (), **changed)


def words_for_table(folder: Path) -> list[str]:
    """Flags that train on folder/table.csv in a moment."""
    return [
        *(
            "--data",
            "Table",
            "--data.path",
            f"{folder}/table.csv",
            "--data.targets",
            "[income,hours]",
            "--data.drop",
            "[stage]",
        ),
        *(
            "--accelerator",
            "cpu",
            "--max_epochs",
            "1",
            "--model.encoder.width",
            "8",
            "--logs",
            f"{folder}/logs",
        ),
    ]
