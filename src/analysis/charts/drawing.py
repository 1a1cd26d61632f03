"""All figures of a report, from its comparison."""

import json
from typing import TYPE_CHECKING

import pandas as pd

from src.analysis.charts.chart import Chart
from src.analysis.charts.curves import draw_curves
from src.analysis.charts.delta import draw_deltas
from src.analysis.charts.pareto import draw_pareto
from src.analysis.charts.ranks import TITLE as RANKS
from src.analysis.charts.ranks import draw_ranks
from src.analysis.charts.tasks import draw_tasks

if TYPE_CHECKING:
    from src.analysis.comparison import Comparison

WEIGHTS = "model.weights."


def draw_charts(comparison: "Comparison") -> list[Chart]:
    """Draws the figures of a report; one that lacks its data says so in words."""
    record = comparison.record
    tasks = list(dict.fromkeys(task for task, _ in comparison.shown))
    monitors = {task: record["tasks"][task]["monitor"] for task in tasks}
    signs = {task: record["tasks"][task]["metrics"][monitors[task]] for task in tasks}
    single = record["single_task"]
    references = [row["name"] for row in record["rows"] if row["role"] == "reference"]

    # deltas of the row that deltas refer to are 0
    deltas = comparison.deltas[comparison.deltas["row"] != single]
    charts = [
        draw_deltas(deltas, references),
        draw_tasks(comparison.summary, monitors, signs, single, references),
    ]
    if comparison.pareto:
        charts.append(draw_front_of(comparison, comparison.pareto))
    charts.append(draw_curves(comparison.curves, order_rows(comparison), tasks))
    critical = comparison.critical
    if critical:
        ranks = pd.DataFrame({"row": list(critical.ranks), "rank": list(critical.ranks.values())})
        charts.append(draw_ranks(ranks, critical.groups, critical.meaning))
    else:
        charts.append(Chart("ranks", RANKS, "There are too few rows or replicates for it."))
    return charts


def order_rows(comparison: "Comparison") -> list[str]:
    """Returns the rows from the most to the least important one.

    Baselines that others are compared with come first, then the best rows by their delta.
    """
    record = comparison.record
    first = [row for row in (record["baseline"], record["single_task"]) if row]
    deltas = comparison.deltas
    by_tasks = deltas[deltas["convention"] == "tasks"].sort_values(
        "mean", ascending=False, kind="stable"
    )
    others = [row["name"] for row in record["rows"]]
    return list(dict.fromkeys([*first, *by_tasks["row"], *others]))


def draw_front_of(comparison: "Comparison", pair: tuple[str, str]) -> Chart:
    """Draws two tasks of a comparison against each other, by their monitors."""
    tasks = comparison.record["tasks"]
    names, signs = [], []
    means: pd.DataFrame | None = None
    for axis, task in zip("xy", pair, strict=True):
        monitor = tasks[task]["monitor"]
        names.append(f"{task} {monitor}")
        signs.append(tasks[task]["metrics"][monitor])
        summary = comparison.summary
        chosen = summary[(summary["task"] == task) & (summary["metric"] == monitor)]
        renamed = {"mean": axis, "low": f"{axis}_low", "high": f"{axis}_high"}
        values = chosen[["row", *renamed]].rename(columns=renamed)

        # fixed weights were tried on validation rows: methods stand beside them there
        seen = comparison.values
        seen = seen[(seen["task"] == task) & (seen["metric"] == monitor) & (seen["split"] == "val")]
        values[f"{axis}_val"] = values["row"].map(seen.groupby("row")["value"].mean())
        means = values if means is None else means.merge(values, on="row", how="inner")
    assert means is not None
    candidates = find_weights(comparison.candidates, pair)
    return draw_pareto(candidates, means, (names[0], names[1]), (signs[0], signs[1]))


def find_weights(candidates: pd.DataFrame, pair: tuple[str, str]) -> pd.DataFrame:
    """Returns x, y, chosen of candidates that set fixed weights.

    Args:
        candidates: trial, settings (JSON text), task, value, chosen.
        pair: The tasks of x and y.
    """
    lines = []
    for _, one in candidates.groupby("trial", sort=False):
        settings = json.loads(one["settings"].iloc[0])
        if not any(key.startswith(WEIGHTS) for key in settings):
            continue
        values = one.drop_duplicates("task").set_index("task")["value"]
        if all(task in values.index for task in pair):
            lines.append((values[pair[0]], values[pair[1]], bool(one["chosen"].any())))
    return pd.DataFrame(lines, columns=["x", "y", "chosen"]).astype(
        {"x": float, "y": float, "chosen": bool}
    )
