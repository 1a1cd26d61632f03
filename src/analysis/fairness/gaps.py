"""Gaps between groups: how far the best and the worst value of a metric are apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from src.analysis.fairness.groups import name_group
from src.analysis.fairness.measures import BIAS, GroupRow
from src.analysis.fairness.rates import RATES
from src.tasks import Task

SELECTION, TRUE_POSITIVE, FALSE_POSITIVE = RATES
DEMOGRAPHIC_PARITY = "demographic_parity"
EQUALIZED_ODDS = "equalized_odds"
# which values are the better ones
Better = Literal["more", "less", "zero"]


@dataclass(frozen=True)
class Gap:
    """The distance between groups in a metric of a task.

    Attributes:
        task: The task.
        metric: The metric; or demographic_parity, the gap in selection rates, or equalized_odds,
            the larger one of the gaps in true and in false positive rates.
        columns: The columns that tell the groups.
        gap: The largest value minus the smallest; None where fewer than two groups have a value.
        ratio: The smallest value divided by the largest; None where one of them is negative, or
            all are 0.
        worst: The group with the worst value; of selection rates with the lowest.
    """

    task: str
    metric: str
    columns: tuple[str, ...]
    gap: float | None
    ratio: float | None
    worst: str | None


def find_gaps(rows: Sequence[GroupRow], tasks: Mapping[str, Task]) -> list[Gap]:
    """Returns the gaps of each metric of each task, for each choice of columns.

    Groups without a value do not count.

    Args:
        rows: The metrics by group.
        tasks: {name: task}, which says whether less of a metric is better.
    """
    by_key: dict[tuple[str, tuple[str, ...]], dict[str, list[GroupRow]]] = {}
    for row in rows:
        if row.groups:
            metrics = by_key.setdefault((row.task, tuple(row.groups)), {})
            metrics.setdefault(row.metric, []).append(row)
    gaps: list[Gap] = []
    for (task, columns), metrics in by_key.items():
        found = {}
        for metric, own in metrics.items():
            found[metric] = find_gap(own, tell_better(tasks[task], metric))
        gaps += found.values()
        gaps += combine_gaps(task, columns, found)
    return gaps


def tell_better(task: Task, metric: str) -> Better:
    """Returns which values of a metric are the better ones."""
    if metric.partition(".")[0] == BIAS:
        return "zero"
    if metric.partition(".")[0] == FALSE_POSITIVE or task.prefers_less(metric):
        return "less"
    return "more"


def find_gap(rows: Sequence[GroupRow], better: Better) -> Gap:
    """Returns the gap of one metric of one task.

    Args:
        rows: Its values by group.
        better: Which values are the better ones.
    """
    first = rows[0]
    columns = tuple(first.groups)
    known = [(row.value, row) for row in rows if row.value is not None]
    if len(known) < 2:
        return Gap(first.task, first.metric, columns, None, None, None)

    signs: Mapping[Better, Callable[[float], float]] = {
        "more": lambda value: value,
        "less": lambda value: -value,
        "zero": lambda value: -abs(value),
    }
    values = [value for value, _ in known]
    low, high = min(values), max(values)
    worst = min(known, key=lambda pair: signs[better](pair[0]))[1]
    # a share of a signed error says nothing
    has_ratio = better != "zero" and low >= 0 and high > 0
    return Gap(
        first.task,
        first.metric,
        columns,
        high - low,
        low / high if has_ratio else None,
        name_group(worst.groups),
    )


def combine_gaps(task: str, columns: tuple[str, ...], found: Mapping[str, Gap]) -> list[Gap]:
    """Returns demographic parity and equalized odds of each decision of a task.

    Args:
        task: The task.
        columns: The columns that tell the groups.
        found: {metric: gap}.
    """
    gaps = []
    for metric, selection in found.items():
        if metric.partition(".")[0] != SELECTION:
            continue
        suffix = metric.removeprefix(SELECTION)
        gaps.append(
            Gap(
                task,
                f"{DEMOGRAPHIC_PARITY}{suffix}",
                columns,
                selection.gap,
                selection.ratio,
                selection.worst,
            )
        )
        odds = [found[f"{name}{suffix}"] for name in (TRUE_POSITIVE, FALSE_POSITIVE)]
        name = f"{EQUALIZED_ODDS}{suffix}"
        known = [(gap.gap, gap) for gap in odds if gap.gap is not None]
        if len(known) < len(odds):
            gaps.append(Gap(task, name, columns, None, None, None))
            continue
        largest, widest = max(known, key=lambda pair: pair[0])
        ratios = [gap.ratio for gap in odds if gap.ratio is not None]
        ratio = min(ratios) if len(ratios) == len(odds) else None
        gaps.append(Gap(task, name, columns, largest, ratio, widest.worst))
    return gaps
