"""The scores of an adaptation: a table in the terminal, files, a picture and TensorBoard."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from src.analysis.charts.chart import save_chart
from src.analysis.charts.few_shot import draw_few_shots
from src.analysis.few_shot import (
    FewShots,
    Fit,
    describe_intervals,
    tell_best,
    tell_transfer,
)
from src.analysis.tables import Cell, Column, ReportTable
from src.analysis.terminal import FoldedTable
from src.cli.adapt_call import METHODS
from src.files.atomic import write_atomically
from src.files.typed import to_json
from src.monitoring import say

if TYPE_CHECKING:
    from src.cli.adapt import Adaptation

RECORD = "adapt.json"
TABLE = "few_shot.csv"


def show_scores(found: FewShots, draws: int, pool: int) -> None:
    """Prints the table of scores, and what it says in words."""
    Console().print(FoldedTable(tabulate(found)))
    lines = [*tell_best(found), *tell_transfer(found), describe_intervals(draws, pool)]
    say("\n".join(lines))


def tabulate(found: FewShots) -> ReportTable:
    """Returns mean scores and half of their intervals, a row for each method."""
    columns = []
    for shots in found.shots:
        own = found.summary[found.summary["shots"] == shots].set_index("method")
        best = own["mean"].max()
        cells = []
        for method in found.methods:
            line = own.loc[method]
            text = "-" if np.isnan(line["mean"]) else f"{line['mean']:.3f}"
            half = (line["high"] - line["low"]) / 2
            if np.isfinite(half):
                text += f" ±{half:.3f}"
            cells.append(Cell(text, bold=bool(line["mean"] == best)))
        columns.append(Column((f"{shots} examples",), cells))
    rows = "test" if found.stage == "test" else "validation"
    title = f"{found.task}: {found.score} on {rows} rows, by the number of examples"
    return ReportTable(title, "few_shot", list(found.methods), columns)


def make_record(
    adaptation: "Adaptation", fits: Sequence[Fit], found: FewShots, pool: int, chosen: str | None
) -> dict[str, Any]:
    """Returns everything that was measured, as plain values.

    Its entry 'examples' has the places of the examples among the training rows by draw, and 'ids'
    what predictions call these rows, where they have names.

    Args:
        adaptation: The adaptation.
        fits: All fits.
        found: Their summary.
        pool: Labelled training rows that examples are drawn from.
        chosen: The method of the run folder.
    """
    call = adaptation.call
    examples = {}
    ids = {}
    names = adaptation.cli.datamodule.row_info("train").get("id")
    for draw in range(call.draws):
        # the examples of a smaller k are the first of these
        places = adaptation.draw(draw, call.shots[-1]).tolist()
        examples[str(draw)] = places
        if names is not None:
            ids[str(draw)] = [names[place] for place in places]
    return {
        "source": dict(adaptation.source.record),
        "task": found.task,
        "kind": type(adaptation.task).__name__,
        "score": found.score,
        "rows": found.stage,
        "methods": {name: METHODS[name] for name in found.methods},
        "notes": adaptation.lines,
        "shots": list(found.shots),
        "draws": call.draws,
        "steps": call.steps,
        "seed": adaptation.learner.seed,
        "pool": pool,
        "examples": examples,
        "ids": ids,
        "chosen": None
        if chosen is None
        else {"method": chosen, "shots": call.shots[-1], "draw": 0},
        "intervals": describe_intervals(call.draws, pool),
        "finding": [*tell_best(found), *tell_transfer(found)],
        "summary": found.summary.to_dict("records"),
        "tests": found.tests.to_dict("records"),
        "fits": list(fits),
    }


def write_report(folder: Path, found: FewShots, record: dict[str, Any]) -> list[Path]:
    """Writes the record, every number as a table, the picture, and curves for TensorBoard.

    Returns:
        The files that people open.
    """
    write_atomically(folder / RECORD, lambda file: file.write(to_json(record)))
    text = found.values.to_csv(index=False)
    write_atomically(folder / TABLE, lambda file: file.write(text.encode()))
    written = [folder / RECORD, folder / TABLE]
    chart = draw_few_shots(found)
    writer = SummaryWriter(str(folder))
    try:
        write_curves(writer, found)
        if chart.figure is not None:
            save_chart(chart, folder)
            written.append(folder / f"{chart.name}.png")
            writer.add_figure("few examples", chart.figure, close=False)
    finally:
        writer.close()
    return written


def write_curves(writer: SummaryWriter, found: FewShots) -> None:
    """Writes mean and interval of each method over k, and a page with all of them."""
    page: dict[str, list[Any]] = {
        found.score: ["Multiline", [f"few_shot/({'|'.join(found.methods)})/mean"]]
    }
    for method in found.methods:
        tags = [f"few_shot/{method}/{end}" for end in ("mean", "low", "high")]
        page[method] = ["Margin", tags]
    writer.add_custom_scalars({f"{found.task} by number of examples": page})
    for _, line in found.summary.iterrows():
        for end in ("mean", "low", "high"):
            if np.isfinite(line[end]):
                tag = f"few_shot/{line['method']}/{end}"
                writer.add_scalar(tag, float(line[end]), int(line["shots"]))
