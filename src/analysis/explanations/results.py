"""The explanation of a run, as reports, pictures and pages show it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from src.analysis.explanations.checks import Completeness, Deletion
from src.analysis.explanations.outputs import ExplainedOutput
from src.analysis.explanations.path import Features
from src.analysis.explanations.summary import ColumnSummary


@dataclass(frozen=True)
class OutputExplanation:
    """The attributions of one output of a task.

    Attributes:
        output: The output.
        attributions: (N, F).
        at_rows: (N,) The number that is explained.
        at_baseline: (N,) The number at the baseline.
        columns: A summary of each column, the most important one first.
        completeness: How far attributions are from adding up; None for a method that does not
            promise it.
    """

    output: ExplainedOutput
    attributions: Tensor
    at_rows: Tensor
    at_baseline: Tensor
    columns: list[ColumnSummary]
    completeness: Completeness | None


@dataclass(frozen=True)
class TaskExplanation:
    """The explanation of one task.

    Attributes:
        task: Its name.
        score: Says what its score is.
        outputs: Its outputs.
        deletion: The score as features are deleted; None where no row has a label.
        predictions: The prediction of each row, as people read it.
        labels: The label of each row, as people read it; None where missing.
    """

    task: str
    score: str
    outputs: list[OutputExplanation]
    deletion: Deletion | None
    predictions: list[Any]
    labels: list[Any]


@dataclass(frozen=True)
class Explanation:
    """The explanation of a run on some rows.

    Attributes:
        run: The run folder's name.
        method: The method.
        rows: Says which rows were explained.
        baseline: Says what they were compared with.
        features: The features.
        ids: The names of the rows.
        tasks: The tasks.
        values: {column: the value of each row in words}, of tables.
        images: {column: (N, C, H, W)} of images.
        pixels: {column: (H, W) the feature of each pixel}.
        words: {column: the token of each place of each row, None at padding}.
        tokens: {column: (S,) the feature of each place}.
        notes: What a person should know, one sentence each.
    """

    run: str
    method: str
    rows: str
    baseline: str
    features: Features
    ids: list[Any]
    tasks: list[TaskExplanation]
    values: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    images: Mapping[str, Tensor] = field(default_factory=dict)
    pixels: Mapping[str, Tensor] = field(default_factory=dict)
    words: Mapping[str, list[list[str | None]]] = field(default_factory=dict)
    tokens: Mapping[str, Tensor] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def has_table(self) -> bool:
        """Whether a table of columns says more than one line."""
        return len(self.features.columns) > 1


def to_record(found: Explanation) -> dict[str, Any]:
    """Returns the explanation as plain values, without the attributions of rows."""
    tasks: dict[str, Any] = {}
    for one in found.tasks:
        tasks[one.task] = {
            "score": one.score,
            "outputs": [describe_output(own) for own in one.outputs],
            "deletion": vars(one.deletion) if one.deletion else None,
        }
    return {
        "run": found.run,
        "method": found.method,
        "rows": found.rows,
        "baseline": found.baseline,
        "notes": list(found.notes),
        "tasks": tasks,
    }


def describe_output(own: OutputExplanation) -> dict[str, Any]:
    """Returns the explanation of one output as plain values."""
    return {
        "output": own.output.name,
        "meaning": own.output.meaning,
        "unit": own.output.unit,
        "mean": float(own.at_rows.mean()),
        "mean_at_baseline": float(own.at_baseline.mean()),
        "completeness": vars(own.completeness) if own.completeness else None,
        "columns": own.columns,
    }
