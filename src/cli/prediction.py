"""The predictions of a run's checkpoint, as a table with one row per input row."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lightning import Callback
from torch import Tensor

from src.cli.app import CLI
from src.cli.calibrated import describe_calibration
from src.cli.coverage import COVERAGE, Coverage, read_coverage
from src.cli.ensemble import Ensemble
from src.cli.flags import Flag
from src.cli.group_decisions import name_classes, open_decisions
from src.cli.maps import MapWriter, check_maps
from src.cli.members import open_members
from src.cli.outliers import OOD, measure_outliers, refuse_outliers
from src.cli.output import check_output
from src.cli.passes import predict_checkpoint
from src.cli.preference import PREFERENCE, set_preference
from src.cli.rows import sort_rows
from src.cli.terminal import remark
from src.data import Split
from src.errors import UserError
from src.tasks.dependence import decode_factor

if TYPE_CHECKING:
    import pandas as pd

FORMULA = re.compile(r"[=+\-@\t\r]")  # a spreadsheet would compute, or run, text that begins so
WRITERS = {".csv": "to_csv", ".tsv": "to_csv", ".parquet": "to_parquet"}


OWN = (
    Flag("out", str, None, "Where predictions go: a .csv, .tsv or .parquet file.", required=True),
    Flag("overwrite", bool, False, "Replace what --out and --maps name."),
    Flag(
        "maps",
        str | None,
        None,
        "A folder for predictions of each pixel, <task>/<id>.npy; without it only their summaries "
        "are written.",
    ),
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
    PREFERENCE,
    *COVERAGE,
    OOD,
)


def predict_run(args: list[str]) -> None:
    """Writes one row per input row, in the order of the input.

    Several runs are averaged, and the spread of their predictions stands beside.

    Args:
        args: The command line after the command.

    Raises:
        UserError: A setting is wrong, or the rows are.
    """
    members = open_members(args, OWN)
    cli = members[0].cli
    calibration = read_coverage(members)
    if cli.config["ood"]:
        refuse_outliers(members)
    set_preference([member.cli.model for member in members], cli.config["preference"])
    out = check_output(cli.config["out"], list(WRITERS), members)
    split = cli.config["split"]
    if split not in (None, "train", "val", "test"):
        raise UserError(f"--split is '{split}'; it must be train, val or test")
    folder = check_maps(cli.config["maps"], cli.model.tasks, cli.config["overwrite"])
    data = cli.datamodule
    data.predict_split = cast(Split, split or "predict")
    # a mistake in the rows comes before any work
    rows = len(data.split(data.predict_split))
    names = data.row_info(data.predict_split).get("id", range(rows))
    maps = MapWriter(cli.model, folder, names)
    decisions = open_decisions(cli, members, data.predict_split)

    spreads: Mapping[str, Mapping[str, Any]] = {}
    if len(members) > 1:
        ids, outputs, spreads = Ensemble(members, args, OWN).predict_mean(data.predict_split)
        if cli.trainer.is_global_zero:
            maps.replace(ids, outputs)
    else:
        cast(list[Callback], cli.trainer.callbacks).append(maps)  # type: ignore[attr-defined]
        ids, outputs = sort_rows(predict_checkpoint(cli, members[0].checkpoint))
    for line in data.remarks:
        remark(line)
    if not cli.trainer.is_global_zero:
        return
    maps.tell()
    if calibration is not None:
        coverage = cli.config["coverage"]
        adding = Coverage(calibration, cli.model, data, coverage, cli.config["sets"])
        spreads = adding.make_columns(ids.tolist(), outputs)
    for line in describe_calibration([member.cli.model for member in members]):
        remark(line)
    decided = decisions.decide(ids, outputs) if decisions is not None else {}
    classes = name_classes(cli, decided)
    frame = make_table(cli, ids, outputs, spreads, classes)
    if cli.config["ood"]:
        frame = frame.assign(**measure_outliers(members[0], ids, outputs, list(frame.columns)))
    if out.suffix != ".parquet" and not cli.config["raw"]:
        frame = quote_formulas(frame)
    write(frame, out)
    means = f", means of {len(members)} runs" if len(members) > 1 else ""
    print(f"{len(frame)} rows, {len(frame.columns)} columns{means}: {out}", flush=True)
    sides = data.row_info(data.predict_split).get("split", [])
    if split is None and sides:
        counts = ", ".join(f"{sides.count(side)} {side}" for side in dict.fromkeys(sides))
        remark(
            "these are the rows of the run itself, and it was trained on some of them: "
            f"{counts}, as the split column says"
        )


def make_table(
    cli: CLI,
    ids: Tensor,
    outputs: Mapping[str, Any],
    spreads: Mapping[str, Mapping[str, Any]],
    classes: Mapping[str, list[Any]],
) -> pd.DataFrame:
    """Returns outputs as columns.

    <task> or <task>.<output> holds the prediction, <task>.p_<class> a probability, <task>.spread
    or <task>.spread_<output> its standard deviation over several runs, and true.<task> the label.
    The columns id, split and true... get a '_' in front where a task has that name.

    Args:
        cli: Data and model.
        ids: Row numbers, shape (rows,).
        outputs: Of each task, shape (rows, ...); or its columns, where it is decoded already.
        spreads: {task: {suffix: rows values}} that stand beside a prediction: spreads, sets, ends.
        classes: {task: rows classes}, where thresholds by group decide.
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
        decoded = outputs[name]
        if isinstance(decoded, Tensor):
            decoded = cli.model.decode(name, decoded)
            decoded |= decode_factor(name, tasks, outputs)
        if name in classes:
            decoded[""] = classes[name]
        for suffix, values in {**decoded, **spreads.get(name, {})}.items():
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
