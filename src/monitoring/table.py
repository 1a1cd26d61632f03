"""Results as a table: a block for each kind of task, a row per task, the stages side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isnan
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.jupyter import JupyterMixin
from rich.text import Text

from src.tasks import Task

HEADINGS = {
    "accuracy": "acc",
    "balanced_accuracy": "bal.acc",
    "f1": "F1",
    "auroc": "AUROC",
    "average_precision": "AP",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R2",
}
LEAST_NAME = 12  # a name is cut to no less than this many characters


@dataclass
class Column:
    """One column of a block.

    Attributes:
        heading: What stands above it.
        cells: What stands in it, a row per task.
        bold: Rows whose cell is what counts for model selection.
    """

    heading: str
    cells: list[str]
    bold: set[int] = field(default_factory=set)

    @property
    def width(self) -> int:
        """Characters, with the blank before it."""
        return 1 + max(len(text) for text in (self.heading, *self.cells))


class ResultsTable(JupyterMixin):
    """``<stage>/<task>/<metric>`` values, as wide as the console; names are cut if they must be, numbers never.

    Where the stages do not fit side by side with all metrics, the metrics are folded into several
    blocks.

    Args:
        tasks: {name: task}.
        metrics: The values.
        stages: Of these stages, side by side.
        epochs: {task: the epoch its weights are of}, shown where tasks have epochs of their own.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        metrics: Mapping[str, float],
        stages: Sequence[str],
        epochs: Mapping[str, int],
    ) -> None:
        self.tasks, self.metrics, self.stages, self.epochs = tasks, metrics, stages, epochs

    @property
    def title(self) -> str:
        """The score of each stage."""
        return "   ".join(
            f"{stage}: score {self.metrics[f'{stage}/score']:.4f}" for stage in self.stages
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Any:
        """Yields lines that the console neither wraps nor cuts."""
        text = Text(self.title, style="bold", no_wrap=True, overflow="ignore")
        text.append_text(
            Text().join(
                line for names in self.kinds() for line in self.block(names, options.max_width)
            )
        )
        text.end = "\n"
        yield text

    def kinds(self) -> list[list[str]]:
        """The tasks' names, grouped by the metrics they have."""
        groups: dict[tuple[str, ...], list[str]] = {}
        for name, task in self.tasks.items():
            groups.setdefault(tuple(task.all_metric_names), []).append(name)
        return list(groups.values())

    def block(self, names: list[str], width: int) -> list[Text]:
        """The lines of the tasks of one kind, each behind a line break."""
        metrics = ["loss", *self.tasks[names[0]].all_metric_names]
        rows = [
            {stage: self.column(stage, metric, names) for stage in self.stages}
            for metric in metrics
        ]
        first = Column("epoch", [str(self.epochs[name]) for name in names]) if self.epochs else None
        room = width - (first.width if first else 0) - (len(self.stages) - 1)
        least, whole = (
            least_width(names),
            longest([*self.tasks]),
        )  # alike in all blocks, where there is room
        parts = folded(rows, room - least)
        taken = max(sum(column.width for row in part for column in row.values()) for part in parts)
        size = max(least, min(room - taken, whole))
        shown = [cut(name, size).ljust(size) for name in names]
        return [line for part in parts for line in self._lines(shown, first, part)]

    def column(self, stage: str, metric: str, names: list[str]) -> Column:
        """One metric of one stage."""
        values = [self.metrics.get(f"{stage}/{name}/{metric}") for name in names]
        bold = {k for k, name in enumerate(names) if metric == self.tasks[name].monitor}
        return Column(
            HEADINGS.get(metric, metric),
            ["" if value is None else number(value) for value in values],
            bold,
        )

    def _lines(
        self, shown: list[str], first: Column | None, part: list[dict[str, Column]]
    ) -> list[Text]:
        groups = [[row[stage] for row in part] for stage in self.stages]
        before = [first] if first else []
        names = Column("", shown).width - 1
        lines = []
        if len(groups) > 1:
            blank = names + sum(column.width for column in before)
            titles = [
                f" {stage} ".center(sum(c.width for c in group) - 1, "-")
                for stage, group in zip(self.stages, groups, strict=True)
            ]
            lines.append(Text("\n" + " " * blank + " " + "  ".join(titles)))

        for row in range(-1, len(shown)):  # the headings first
            line = Text("\n" + ("task" if row < 0 else shown[row]).ljust(names))
            for k, group in enumerate([before, *groups]):
                line.append(" " if k > 1 else "")
                for column in group:
                    cell = column.heading if row < 0 else column.cells[row]
                    line.append(
                        cell.rjust(column.width), style="bold" if row in column.bold else ""
                    )
            lines.append(line)
        return lines


def results_table(
    tasks: Mapping[str, Task],
    metrics: Mapping[str, float],
    *stages: str,
    epochs: Mapping[str, int] | None = None,
) -> ResultsTable:
    """Lays out ``<stage>/<task>/<metric>`` values; the metric that counts for model selection is bold."""
    return ResultsTable(tasks, metrics, stages, epochs or {})


def number(value: float) -> str:
    """Four decimals, or fewer where the digits before them need the room; powers of ten where four show nothing."""
    if isnan(value) or abs(value) == inf:
        return str(value)
    if 0 < abs(value) < 0.0005:
        return f"{value:.1e}"
    for decimals, limit in ((4, 10), (3, 100), (2, 1000), (1, 10_000), (0, 1_000_000)):
        if abs(value) < limit:
            return f"{value:.{decimals}f}"
    return f"{value:.2e}"


def folded(rows: list[dict[str, Column]], room: int) -> list[list[dict[str, Column]]]:
    """The metrics in as few parts as fit side by side; a part has one at least."""
    parts: list[list[dict[str, Column]]] = []
    left = 0
    for row in rows:
        width = sum(column.width for column in row.values())
        if not parts or width > left:
            parts.append([])
            left = room
        parts[-1].append(row)
        left -= width
    return parts


def longest(names: Sequence[str]) -> int:
    """The characters of the longest name, or of the heading."""
    return max(len("task"), *map(len, names))


def least_width(names: Sequence[str]) -> int:
    """To how many characters names can be cut and still be told from one another."""
    whole = longest(names)
    fits = (
        width
        for width in range(LEAST_NAME, whole)
        if len({cut(name, width) for name in names}) == len(names)
    )
    return min(next(fits, whole), whole)


def cut(name: str, width: int) -> str:
    """A name with an ellipsis in its middle, if it is longer."""
    if len(name) <= width:
        return name
    behind = (width - 1) // 2
    return f"{name[: width - 1 - behind]}…{name[len(name) - behind :]}"
