"""Predicts rows: python -m src.predict --run RUN [--data.path new.csv] [--split test] --out predictions.parquet."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch.cli import LightningArgumentParser
from torch import Tensor

from src.batch import PADDING
from src.cli.app import CLI
from src.cli.entrypoint import main, remark
from src.cli.runs import open_run, output_file
from src.collectives import gather
from src.data import Split
from src.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

FORMULA = re.compile(r"[=+\-@\t\r]")  # a spreadsheet would compute, or run, text that begins so
WRITERS = {".csv": "to_csv", ".tsv": "to_csv", ".parquet": "to_parquet"}


def add_arguments(parser: LightningArgumentParser) -> None:
    """Adds what only this verb knows."""
    parser.add_argument(
        "--out",
        type=str,
        required=True,
        help="Where predictions go: a .csv, .tsv or .parquet file.",
    )
    parser.add_argument(
        "--overwrite", type=bool, default=False, help="Replace the file that --out names."
    )
    parser.add_argument(
        "--raw",
        type=bool,
        default=False,
        help="In text files, leave text as it is that a spreadsheet would take for a formula.",
    )
    parser.add_argument(
        "--split",
        type=str | None,
        default=None,
        help="train, val or test: these rows, their labels beside predictions.",
    )


def predict(args: list[str]) -> None:
    """Writes one row per input row, in the order of the input: names, decoded values, class probabilities, labels."""
    checkpoint, cli = open_run(args, add_arguments)
    out, split = output_file(cli.config["out"], list(WRITERS), cli), cli.config["split"]
    if split not in (None, "train", "val", "test"):
        raise UserError(f"--split is '{split}'; it must be train, val or test")
    data = cli.datamodule
    data.predict_split = cast(Split, split or "predict")
    data.split(data.predict_split)  # a mistake in the rows comes before any work

    parts = cli.trainer.predict(cli.model, data, ckpt_path=checkpoint)
    ids, outputs = in_order(parts or [])
    for line in data.remarks:
        remark(line)
    if not cli.trainer.is_global_zero:
        return
    frame = readable(cli, ids, outputs)
    if out.suffix != ".parquet" and not cli.config["raw"]:
        frame = without_formulas(frame)
    write(frame, out)
    print(f"{len(frame)} rows, {len(frame.columns)} columns: {out}", flush=True)
    sides = data.row_info(data.predict_split).get("split", [])
    if split is None and sides:
        counts = ", ".join(f"{sides.count(side)} {side}" for side in dict.fromkeys(sides))
        remark(
            f"these are the rows of the run itself, those that it was trained on among them: {counts}, as the split column says"
        )


def in_order(parts: list[Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Joins the batches of all ranks and sorts them by row number, padding left out."""
    mine = [
        (ids.cpu(), {name: out.float().cpu() for name, out in outputs.items()})
        for ids, outputs in parts
    ]
    batches = [batch for part in gather(mine) for batch in part]
    ids = torch.cat([ids for ids, _ in batches])
    order = ids.argsort()[(ids == PADDING).sum() :]
    return ids[order], {
        name: torch.cat([outputs[name] for _, outputs in batches])[order] for name in batches[0][1]
    }


def readable(cli: CLI, ids: Tensor, outputs: dict[str, Tensor]) -> pd.DataFrame:
    """Outputs as columns: <task> or <task>.<output> holds the prediction, <task>.p_<class> a probability, true.<task> the label.

    The columns id, split and true... get a '_' in front where a task has that name.
    """
    import pandas as pd

    split, rows = cli.datamodule.predict_split, ids.tolist()
    tasks = cli.model.tasks
    beside = {"id": list(range(max(rows) + 1)), **cli.datamodule.row_info(split)}
    columns: dict[str, Any] = {
        free(name, tasks): [values[row] for row in rows] for name, values in beside.items()
    }
    for name in tasks:
        for suffix, values in cli.model.decode(name, outputs[name]).items():
            columns[f"{name}.{suffix}" if suffix else name] = values
    if split != "predict":
        for name, labels in cli.datamodule.truth(split).items():
            for suffix, values in labels.items():
                key = f"{free('true', tasks)}.{name}"
                columns[f"{key}.{suffix}" if suffix else key] = whole([values[row] for row in rows])
    return pd.DataFrame(columns)


def whole(labels: list[Any]) -> Any:
    """Labels as a column: whole numbers stay whole beside missing ones."""
    import pandas as pd

    return (
        pd.array(labels, dtype="Int64")
        if {type(label) for label in labels} == {int, type(None)}
        else labels
    )


def free(word: str, taken: Iterable[str]) -> str:
    """A column's name that no task has."""
    while word in taken:
        word = f"_{word}"
    return word


def without_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """Puts an apostrophe before text that a spreadsheet would take for a formula; numbers stay as they are."""
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
            f"{changed} cells that a spreadsheet would take for formulas have an apostrophe before them; --raw leaves it out"
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


if __name__ == "__main__":
    main(predict)
