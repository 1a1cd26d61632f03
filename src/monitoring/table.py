"""Results as a table: a block for each kind of task, a row per task, stages side by side."""

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
    "miou": "mIoU",
    "pixel_accuracy": "pix.acc",
    "dice": "Dice",
    "relative_error": "rel.err",
    "within_11.25": "<11.25",
    "within_22.5": "<22.5",
    "within_30": "<30",
    "span_precision_iob2_strict": "P strict",
    "span_recall_iob2_strict": "R strict",
    "span_f1_iob2_strict": "F1 strict",
    "span_precision_conlleval": "P conll",
    "span_recall_conlleval": "R conll",
    "span_f1_conlleval": "F1 conll",
}
LEAST_NAME = 12  # a name is cut to no less than this many characters
INDENT = "  "  # of rows that belong to the row above


@dataclass(frozen=True)
class Row:
    """One row of a block: a task as the model has it, or as a reference below it has it.

    Attributes:
        label: The first cell.
        task: The task's name.
        metrics: The values of all tasks.
        epoch: The epoch of the task's weights, where it has one of its own.
    """

    label: str
    task: str
    metrics: Mapping[str, float]
    epoch: str = ""


@dataclass
class Column:
    """One column of a block.

    Attributes:
        heading: Its heading.
        cells: Its cells, a row per task.
        bold: Rows whose cell counts for model selection.
    """

    heading: str
    cells: list[str]
    bold: set[int] = field(default_factory=set)

    @property
    def width(self) -> int:
        """Characters, with the blank before it."""
        return 1 + max(len(text) for text in (self.heading, *self.cells))


class ResultsTable(JupyterMixin):
    """A table of ``<stage>/<task>/<metric>`` values, no wider than the console.

    Names are cut if they must be, numbers never. Where the stages do not fit side by side with all
    metrics, the metrics are folded into several blocks.

    Args:
        tasks: {name: task}.
        metrics: The values.
        stages: The stages to show, side by side.
        epochs: {task: epoch of its weights}, shown where tasks have epochs of their own.
        references: {reference: its values}, shown in rows below those of each task.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        metrics: Mapping[str, float],
        stages: Sequence[str],
        epochs: Mapping[str, int],
        references: Mapping[str, Mapping[str, float]],
    ) -> None:
        self.tasks = tasks
        self.metrics = metrics
        self.stages = stages
        self.epochs = epochs
        self.references = references

    @property
    def title(self) -> str:
        """The score of each stage, and a line for each reference."""
        lines = [self.describe_scores(self.metrics)]
        for name, metrics in self.references.items():
            lines.append(f"{self.describe_scores(metrics)}   ({name})")
        return "\n".join(lines)

    def describe_scores(self, metrics: Mapping[str, float]) -> str:
        """Returns the score of each stage, in a line."""
        scores = {stage: metrics[f"{stage}/score"] for stage in self.stages}
        return "   ".join(f"{stage}: score {score:.4f}" for stage, score in scores.items())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Any:
        """Yields lines that the console neither wraps nor cuts."""
        text = Text(self.title, style="bold", no_wrap=True, overflow="ignore")
        for names in self.group_by_metrics():
            for line in self.make_block(names, options.max_width):
                text.append_text(line)
        text.end = "\n"
        yield text

    def group_by_metrics(self) -> list[list[str]]:
        """Returns the tasks' names, grouped by the metrics that they have."""
        groups: dict[tuple[str, ...], list[str]] = {}
        for name, task in self.tasks.items():
            groups.setdefault(tuple(task.all_metric_names), []).append(name)
        return list(groups.values())

    def make_block(self, names: list[str], width: int) -> list[Text]:
        """Returns the lines of tasks with equal metrics, each after a line break."""
        metrics = ["loss", *self.tasks[names[0]].all_metric_names]
        rows = self.make_rows(names)
        columns = [
            {stage: self.make_column(stage, metric, rows) for stage in self.stages}
            for metric in metrics
        ]
        first = None
        if self.epochs:
            first = Column("epoch", [row.epoch for row in rows])

        # names have one width in all blocks, where there is room
        room = width - (first.width if first else 0) - (len(self.stages) - 1)
        below = [INDENT + reference for reference in self.references]
        least = find_least_width([*names, *below])
        folds = fold_columns(columns, room - least)
        taken = max(map(measure_width, folds))
        size = max(least, min(room - taken, measure_longest([*self.tasks, *below])))
        shown = [cut_name(row.label, size).ljust(size) for row in rows]
        return [line for fold in folds for line in self._make_lines(shown, first, fold)]

    def make_rows(self, names: list[str]) -> list[Row]:
        """Returns the rows of tasks, each followed by those of references."""
        rows = []
        for name in names:
            rows.append(Row(name, name, self.metrics, str(self.epochs.get(name, ""))))
            for reference, metrics in self.references.items():
                # a reference may be of some tasks alone
                if any(f"{stage}/{name}/loss" in metrics for stage in self.stages):
                    rows.append(Row(INDENT + reference, name, metrics))
        return rows

    def make_column(self, stage: str, metric: str, rows: list[Row]) -> Column:
        """Returns one metric of one stage."""
        values = [row.metrics.get(f"{stage}/{row.task}/{metric}") for row in rows]
        bold = {k for k, row in enumerate(rows) if metric == self.tasks[row.task].monitor}
        cells = ["" if value is None else format_number(value) for value in values]
        return Column(HEADINGS.get(metric, metric), cells, bold)

    def _make_lines(
        self, shown: list[str], first: Column | None, fold: list[dict[str, Column]]
    ) -> list[Text]:
        groups = [[by_stage[stage] for by_stage in fold] for stage in self.stages]
        before = [first] if first else []
        names = Column("", shown).width - 1
        lines = []
        if len(groups) > 1:
            blank = names + sum(column.width for column in before)
            titles = []
            for stage, group in zip(self.stages, groups, strict=True):
                titles.append(f" {stage} ".center(sum(c.width for c in group) - 1, "-"))
            lines.append(Text("\n" + " " * blank + " " + "  ".join(titles)))

        # row -1 has the headings
        for row in range(-1, len(shown)):
            line = Text("\n" + ("task" if row < 0 else shown[row]).ljust(names))
            for k, group in enumerate([before, *groups]):
                line.append(" " if k > 1 else "")
                for column in group:
                    cell = column.heading if row < 0 else column.cells[row]
                    style = "bold" if row in column.bold else ""
                    line.append(cell.rjust(column.width), style=style)
            lines.append(line)
        return lines


def tabulate_results(
    tasks: Mapping[str, Task],
    metrics: Mapping[str, float],
    *stages: str,
    epochs: Mapping[str, int] | None = None,
    references: Mapping[str, Mapping[str, float]] | None = None,
) -> ResultsTable:
    """Returns a table of ``<stage>/<task>/<metric>`` values.

    The metric that counts for model selection is bold.
    """
    return ResultsTable(tasks, metrics, stages, epochs or {}, references or {})


def format_number(value: float) -> str:
    """Formats with four decimals, fewer for large numbers; extreme ones with powers of ten."""
    if isnan(value) or abs(value) == inf:
        return str(value)
    if 0 < abs(value) < 0.0005:
        return f"{value:.1e}"
    for decimals, limit in ((4, 10), (3, 100), (2, 1000), (1, 10_000), (0, 1_000_000)):
        if abs(value) < limit:
            return f"{value:.{decimals}f}"
    return f"{value:.2e}"


def fold_columns(columns: list[dict[str, Column]], room: int) -> list[list[dict[str, Column]]]:
    """Folds the columns of metrics into as few blocks as fit; a block has at least one metric.

    Args:
        columns: {stage: column} of each metric.
        room: Characters of a block.
    """
    folds: list[list[dict[str, Column]]] = []
    left = 0
    for by_stage in columns:
        width = measure_width([by_stage])
        if not folds or width > left:
            folds.append([])
            left = room
        folds[-1].append(by_stage)
        left -= width
    return folds


def measure_width(fold: list[dict[str, Column]]) -> int:
    """Returns the characters of all columns of a block."""
    return sum(column.width for by_stage in fold for column in by_stage.values())


def measure_longest(names: Sequence[str]) -> int:
    """Returns the characters of the longest name, or of the heading."""
    return max(len("task"), *map(len, names))


def find_least_width(names: Sequence[str]) -> int:
    """Returns the fewest characters that names can be cut to and still differ from each other."""
    longest = measure_longest(names)
    for width in range(LEAST_NAME, longest):
        if len({cut_name(name, width) for name in names}) == len(names):
            return width
    return longest


def cut_name(name: str, width: int) -> str:
    """Cuts a name to a number of characters, with an ellipsis in the middle."""
    if len(name) <= width:
        return name
    behind = (width - 1) // 2
    return f"{name[: width - 1 - behind]}…{name[len(name) - behind :]}"
