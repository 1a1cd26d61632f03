"""How the tasks of a run share: the work of ``python -m src.explain --sharing``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from torch import Tensor

from src.analysis.affinities import NAME as AFFINITIES
from src.analysis.affinities import read_affinities, read_mean
from src.analysis.explanations.page import render_sharing
from src.analysis.explanations.pictures import draw_table, to_png
from src.analysis.explanations.similarity import tabulate_cka
from src.cli.explaining.report import add_to_board, put
from src.cli.explaining.stages import LAST, observe_sharing
from src.cli.loaded_run import LoadedRun
from src.data import Split
from src.files.typed import to_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

RECORD, PAGE = "sharing.json", "sharing.html"
CKA = (
    "Linear CKA without the bias of few rows: 1 where one is a rotation of the other, about 0 "
    "where they have nothing in common. Features of places are averaged first."
)
LEARNT = "What the architecture has learnt or decided, a mean over the rows."
HELP = "How much a step for the task in the row lowers the loss of the one in the column."


def explain_sharing(run: LoadedRun, split: Split, rows: int, folder: Path) -> None:
    """Prints and writes how alike the tasks' features are, and what the architecture learnt.

    Args:
        run: The run.
        split: Where rows come from.
        rows: Most rows.
        folder: Where files go.
    """
    batch = run.load_rows(split, rows)
    model = run.model
    observed = observe_sharing(model, batch.inputs, run.batch_size)
    tables = {
        title: compare(features)
        for title, features in observed.features.items()
        # one tensor for all is said in words
        if len({id(z) for z in features.values()}) > 1
    }
    learnt = model.sharing.figures(observed.decided)
    kind = type(model.selection.architecture if model.selection else model.sharing).__name__
    lines = [f"{kind}, {len(model.tasks)} tasks, on {len(batch)} rows of the {split} split."]
    if LAST in observed.features:
        lines += describe_last(observed.features[LAST], tables)
    else:
        lines.append("There is one task: nothing is shared.")
    lines += model.sharing.summary(observed.decided)
    affinities = find_affinities(run.run.path)
    if affinities is None:
        lines.append(
            f"The run folder has no {AFFINITIES}: python -m src.affinity measures affinities in a "
            "training of its own."
        )

    figures: list[tuple[str, str, Figure]] = []
    for title, (_, debiased) in tables.items():
        figures.append((f"CKA: {title}", CKA, draw_table(f"CKA: {title}", debiased, 0.0, 1.0)))
    for title, table in learnt.items():
        figures.append((title, LEARNT, draw_table(title, table, None, None)))
    if affinities is not None:
        figures.append(("affinities", HELP, draw_table("affinities", affinities, None, None)))
    show(lines, tables)
    folder.mkdir(parents=True, exist_ok=True)
    write(run, folder, lines, tables, learnt, affinities, figures)


def compare(features: dict[str, Tensor]) -> "tuple[DataFrame, DataFrame]":
    """Returns the linear CKA of each two of several features, and without the bias of few rows."""
    return tabulate_cka(features, debiased=False), tabulate_cka(features, debiased=True)


def describe_last(
    features: dict[str, Tensor], tables: "dict[str, tuple[DataFrame, DataFrame]]"
) -> list[str]:
    """Says how alike the features are that heads read."""
    if LAST not in tables:
        return ["All tasks read the same features: they differ in their heads alone."]
    values = tables[LAST][1].to_numpy(dtype=float).copy()
    names = list(features)
    np.fill_diagonal(values, np.nan)
    if np.isnan(values).all():
        return ["The features of the tasks do not vary, or there are fewer than 4 rows."]
    high = np.unravel_index(np.nanargmax(values), values.shape)
    low = np.unravel_index(np.nanargmin(values), values.shape)
    line = (
        f"The most alike features have {names[high[0]]} and {names[high[1]]} ({values[high]:.2f})"
    )
    if len(names) > 2:
        line += f", the least alike {names[low[0]]} and {names[low[1]]} ({values[low]:.2f})"
    return [f"{line}, by CKA."]


def find_affinities(run: Path) -> "DataFrame | None":
    """Returns the affinities that a run folder has; None for none."""
    from pandas import DataFrame

    path = run / AFFINITIES
    if not path.is_file():
        return None
    record = read_affinities(path)
    tasks = record["tasks"]
    return DataFrame(read_mean(record["lookahead"]), index=tasks, columns=tasks)


def show(lines: list[str], tables: "dict[str, tuple[DataFrame, DataFrame]]") -> None:
    """Prints sentences, and the CKA of each stage."""
    console = Console()
    for line in lines:
        print(line, flush=True)
    for title, (linear, debiased) in tables.items():
        print(f"CKA of {title}; in brackets with the bias of few rows", flush=True)
        table = Table("", box=None)
        for name in debiased.columns:
            table.add_column(str(name), justify="right")
        for name in debiased.index:
            pairs = zip(debiased.loc[name], linear.loc[name], strict=True)
            table.add_row(str(name), *(f"{value:.2f} ({biased:.2f})" for value, biased in pairs))
        console.print(table, crop=False)


def write(
    run: LoadedRun,
    folder: Path,
    lines: list[str],
    tables: "dict[str, tuple[DataFrame, DataFrame]]",
    learnt: "dict[str, DataFrame]",
    affinities: "DataFrame | None",
    figures: "list[tuple[str, str, Figure]]",
) -> None:
    """Writes the page, the record, and a page for TensorBoard."""
    whole = run.run.path.resolve()
    name = f"{whole.parent.name}/{whole.name}"
    record: dict[str, Any] = {"run": name, "lines": lines, "cka": {}}
    for title, (linear, debiased) in tables.items():
        record["cka"][title] = {
            "names": list(linear.index),
            "linear": linear.to_numpy().tolist(),
            "debiased": debiased.to_numpy().tolist(),
        }
    record["learnt"] = {title: spell_table(table) for title, table in learnt.items()}
    record["affinities"] = None if affinities is None else spell_table(affinities)
    put(folder / RECORD, to_json(record))

    pictures = [(title, caption, to_png(figure)) for title, caption, figure in figures]
    put(folder / PAGE, render_sharing(name, lines, pictures).encode())
    if pictures:
        add_to_board(run.run.path, {f"sharing/{title}": png for title, _, png in pictures})
    print(f"results: {folder / PAGE}, {folder / RECORD}", flush=True)


def spell_table(table: "DataFrame") -> dict[str, Any]:
    """Returns a table as plain values."""
    return {
        "rows": [str(name) for name in table.index],
        "columns": [str(name) for name in table.columns],
        "values": table.to_numpy().tolist(),
    }
