"""The predictions of a run's checkpoint, as a table with one row per input row."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from src.batch import PADDING
from src.cli.app import CLI
from src.cli.flags import Flag
from src.cli.output import check_output
from src.cli.passes import predict_checkpoint
from src.cli.runs import open_run
from src.cli.terminal import remark
from src.collectives import gather
from src.data import Split
from src.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

FORMULA = re.compile(r"[=+\-@\t\r]")  # a spreadsheet would compute, or run, text that begins so
WRITERS = {".csv": "to_csv", ".tsv": "to_csv", ".parquet": "to_parquet"}


OWN = (
    Flag("out", str, None, "Where predictions go: a .csv, .tsv or .parquet file.", required=True),
    Flag("overwrite", bool, False, "Replace the file that --out names."),
    Flag(
        "raw",
        bool,
        False,
        "In text files, leave text as it is that a spreadsheet would take for a formula.",
    ),
    Flag(
        "split",
        str | None,
        None,
        "train, val or test: these rows, their labels beside predictions.",
    ),
)


def predict_run(args: list[str]) -> None:
    """Writes one row per input row, in the order of the input.

    Args:
        args: The command line after the command.

    Raises:
        UserError: A setting is wrong, or the rows are.
    """
    checkpoint, cli = open_run(args, OWN)
    out = check_output(cli.config["out"], list(WRITERS), cli)
    split = cli.config["split"]
    if split not in (None, "train", "val", "test"):
        raise UserError(f"--split is '{split}'; it must be train, val or test")
    data = cli.datamodule
    data.predict_split = cast(Split, split or "predict")
    data.split(data.predict_split)  # a mistake in the rows comes before any work

    ids, outputs = sort_rows(predict_checkpoint(cli, checkpoint))
    for line in data.remarks:
        remark(line)
    if not cli.trainer.is_global_zero:
        return
    frame = make_table(cli, ids, outputs)
    if out.suffix != ".parquet" and not cli.config["raw"]:
        frame = quote_formulas(frame)
    write(frame, out)
    print(f"{len(frame)} rows, {len(frame.columns)} columns: {out}", flush=True)
    sides = data.row_info(data.predict_split).get("split", [])
    if split is None and sides:
        counts = ", ".join(f"{sides.count(side)} {side}" for side in dict.fromkeys(sides))
        remark(
            "these are the rows of the run itself, and it was trained on some of them: "
            f"{counts}, as the split column says"
        )


def sort_rows(batches: list[Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Joins the batches of all ranks and sorts their rows by row number, padding left out.

    Args:
        batches: Of this rank: (ids, outputs) each.

    Returns:
        The row numbers, shape (rows,), and the outputs of each task, shape (rows, ...).
    """
    mine = []
    for ids, outputs in batches:
        mine.append((ids.cpu(), {name: out.float().cpu() for name, out in outputs.items()}))
    everyones = [batch for rank in gather(mine) for batch in rank]
    ids = torch.cat([ids for ids, _ in everyones])
    order = ids.argsort()[(ids == PADDING).sum() :]
    joined = {}
    for name in everyones[0][1]:
        joined[name] = torch.cat([outputs[name] for _, outputs in everyones])[order]
    return ids[order], joined


def make_table(cli: CLI, ids: Tensor, outputs: dict[str, Tensor]) -> pd.DataFrame:
    """Returns outputs as columns.

    <task> or <task>.<output> holds the prediction, <task>.p_<class> a probability, and true.<task>
    the label. The columns id, split and true... get a '_' in front where a task has that name.

    Args:
        cli: Data and model.
        ids: Row numbers, shape (rows,).
        outputs: Of each task, shape (rows, ...).
    """
    import pandas as pd

    split = cli.datamodule.predict_split
    rows = ids.tolist()
    tasks = cli.model.tasks
    beside = {"id": list(range(max(rows) + 1)), **cli.datamodule.row_info(split)}
    columns: dict[str, Any] = {}
    for name, values in beside.items():
        columns[find_free(name, tasks)] = [values[row] for row in rows]
    for name in tasks:
        for suffix, values in cli.model.decode(name, outputs[name]).items():
            columns[f"{name}.{suffix}" if suffix else name] = values
    if split != "predict":
        for name, labels in cli.datamodule.truth(split).items():
            for suffix, values in labels.items():
                key = f"{find_free('true', tasks)}.{name}"
                key = f"{key}.{suffix}" if suffix else key
                columns[key] = keep_whole([values[row] for row in rows])
    return pd.DataFrame(columns)


def keep_whole(labels: list[Any]) -> Any:
    """Returns labels as a column in which whole numbers stay whole beside missing ones."""
    import pandas as pd

    if {type(label) for label in labels} == {int, type(None)}:
        return pd.array(labels, dtype="Int64")
    return labels


def find_free(word: str, taken: Iterable[str]) -> str:
    """Returns the name of a column that no task has."""
    while word in taken:
        word = f"_{word}"
    return word


def quote_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """Puts an apostrophe before text that a spreadsheet would take for a formula.

    Numbers stay as they are.
    """
    changed = 0

    def as_text(cell: Any) -> Any:
        nonlocal changed
        if not isinstance(cell, str) or not FORMULA.match(cell) or is_number(cell):
            return cell
        changed += 1
        return f"'{cell}"

    frame = frame.rename(columns=as_text)
    for name in frame.columns:
        if frame[name].dtype in ("object", "str"):
            frame[name] = frame[name].map(as_text)
    if changed:
        remark(
            f"{changed} cells that a spreadsheet would take for formulas have an apostrophe before "
            "them; --raw leaves it out"
        )
    return frame


def is_number(text: str) -> bool:
    """Returns whether text is a number, such as -1."""
    with suppress(ValueError):
        float(text)
        return True
    return False


def write(frame: pd.DataFrame, out: Path) -> None:
    """Writes a table whole or not at all."""
    settings: dict[str, Any] = {"sep": "\t"} if out.suffix == ".tsv" else {}
    unfinished = out.with_name(f".{out.stem}.unfinished{out.suffix}")
    try:
        getattr(frame, WRITERS[out.suffix])(unfinished, index=False, **settings)
        os.replace(unfinished, out)
    finally:
        unfinished.unlink(missing_ok=True)
