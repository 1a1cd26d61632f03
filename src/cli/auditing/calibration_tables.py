"""Tables of an audit's calibration: measures before and after, and the coverage of sets."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from rich.table import Table
from torch import Tensor

from src.cli.auditing.calibration_rows import PredictedRows
from src.tasks import MultilabelClassification, Quantiles, Regression
from src.tasks.calibration.conformal import SETS, Conformal
from src.tasks.calibration.measures import Reliability, average_labels
from src.tasks.labels import is_labelled

if TYPE_CHECKING:
    from pandas import DataFrame

COVERAGES = (0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Measured:
    """How well a task's predictions come true on some rows.

    Attributes:
        task: The task.
        split: The rows.
        state: Whether outputs are calibrated, in words.
        found: One entry for each label; none where the task predicts no probabilities.
    """

    task: str
    split: str
    state: str
    found: Sequence[Reliability]

    def describe(self) -> dict[str, Any]:
        """Returns plain values."""
        return {
            "task": self.task,
            "split": self.split,
            "state": self.state,
            "labels": [asdict(one) | {"bins": list(map(asdict, one.bins))} for one in self.found],
        }


@dataclass(frozen=True)
class Covered:
    """How often sets or intervals hold the label.

    Attributes:
        task: The task.
        split: The rows.
        method: The conformity score.
        group: The group of rows; empty for all rows.
        rows: The number of labels.
        nominal: The coverage that was asked for.
        coverage: The share of labels that are held.
        size: Mean number of classes in a set, or mean width of an interval in the label's unit.
    """

    task: str
    split: str
    method: str
    group: str
    rows: int
    nominal: float
    coverage: float
    size: float


def measure_coverage(
    name: str, conformal: Conformal, rows: PredictedRows, groups: Sequence[str] | None
) -> Iterator[Covered]:
    """Yields the coverage of a task's sets or intervals, of all rows and of each group.

    Args:
        name: The task.
        conformal: Its conformity scores.
        rows: Rows with calibrated outputs.
        groups: The group of each row of the split; None compares all rows.
    """
    outputs, targets = rows.outputs[name], rows.batch.targets[name]
    if not is_labelled(targets).any():
        return
    own = None if groups is None else [groups[row] for row in rows.batch.ids.tolist()]
    for method in conformal.scores:
        for nominal in COVERAGES:
            if method in SETS:
                chosen = conformal.sets(outputs, nominal, method, own)
                inside, sizes = check_sets(conformal, chosen, targets)
            else:
                ends = conformal.interval(outputs, nominal, own)
                inside, sizes = check_intervals(conformal, ends, targets)
            for group in ("", *sorted(set(own or ()))):
                rows_of = torch.ones(len(outputs), dtype=torch.bool)
                if group:
                    rows_of = torch.tensor([word == group for word in own or ()])
                known = is_labelled(targets).reshape(len(targets), -1) & rows_of[:, None]
                if known.any():
                    yield Covered(
                        name,
                        rows.split,
                        method,
                        group,
                        int(known.sum()),
                        nominal,
                        float(inside[known].double().mean()),
                        float(sizes[known].double().mean()),
                    )


def check_sets(conformal: Conformal, chosen: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Returns whether sets hold the labels, and their sizes, both (B, L)."""
    labels = targets.nan_to_num() if targets.is_floating_point() else targets
    places = labels.long().clamp(min=0)
    if isinstance(conformal.task, MultilabelClassification):
        return chosen.gather(-1, places[..., None]).squeeze(-1), chosen.sum(-1)
    return chosen.gather(-1, places[:, None]), chosen.sum(-1, keepdim=True)


def check_intervals(conformal: Conformal, ends: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Returns whether intervals hold the labels, and their widths, both (B, L)."""
    task = conformal.task
    assert isinstance(task, Regression | Quantiles)
    y = task.in_units(targets.double().reshape(len(targets), -1))
    low, high = ends.unbind(-1)
    return (low <= y) & (y <= high), high - low


def start_table(*names: str) -> Table:
    """Returns a table whose first columns are words that are never cut."""
    table = Table(box=None)
    for name in names:
        table.add_column(name, no_wrap=True)
    return table


def tabulate_measures(measured: Sequence[Measured]) -> Iterator[Table]:
    """Yields a table of tasks x measures, a column for each split and state."""
    columns = list(dict.fromkeys((one.split, one.state) for one in measured))
    cells: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for one in measured:
        if not one.found:
            continue
        for measure, value in average_labels(list(one.found)).items():
            row = cells.setdefault((one.task, measure), {})
            row[(one.split, one.state)] = f"{value:.4f}"
    if not cells:
        return
    table = start_table("task", "measure")
    for split, state in columns:
        table.add_column(f"{split}\n{state}", justify="right")
    for (task, measure), row in cells.items():
        table.add_row(task, measure, *(row.get(column, "") for column in columns))
    yield table


def tabulate_coverage(covered: Sequence[Covered]) -> Iterator[Table]:
    """Yields a table of the coverage and size of sets and intervals."""
    if not covered:
        return
    table = start_table("task", "score")
    table.add_column(covered[0].split, justify="right")
    for nominal in COVERAGES:
        table.add_column(f"held\nat {nominal:g}", justify="right", no_wrap=True)
        table.add_column("\nsize", justify="right", no_wrap=True)
    for key in dict.fromkeys((o.task, o.method, o.group, o.rows) for o in covered):
        task, method, group, rows = key
        own = [o for o in covered if (o.task, o.method, o.group, o.rows) == key]
        cells = []
        for one in own:
            cells += [f"{one.coverage:.3f}", f"{one.size:.3g}"]
        # groups stand below their task
        words = (f"  {group}", "") if group else (task, method)
        table.add_row(*words, str(rows), *cells)
    yield table


def tabulate_bins(measured: Sequence[Measured]) -> "DataFrame":
    """Returns a row for each bin of a reliability diagram."""
    from pandas import DataFrame

    rows = []
    for one in measured:
        for found in one.found:
            for part in found.bins:
                place = {"task": one.task, "label": found.label}
                rows.append({**place, "split": one.split, "state": one.state, **asdict(part)})
    return DataFrame(rows)
