"""Comparison of an exported model's answers with what ``predict`` says of the same rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.deployment.decoding import Decoded, decode_all, find_ties, join_name
from src.errors import UserError
from src.models import MultiTaskModel
from src.tasks import SequenceLabelling
from src.tasks.dependence import decode_factor

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Difference:
    """How far the answers for one task are from predict's.

    Attributes:
        task: Its name.
        largest: The largest difference: of probabilities as they are, of numbers in standard
            deviations of the label.
        changed: Rows with another class, ties left out.
        column: The column where the difference is largest.
    """

    task: str
    largest: float
    changed: int
    column: str


def compare_answers(
    model: MultiTaskModel, outputs: Mapping[str, Tensor], answers: Sequence[Mapping[str, Any]]
) -> list[Difference]:
    """Returns the difference of each task.

    Args:
        model: The model, whose thresholds decide.
        outputs: {task: outputs (N, ..., O)} of the run itself.
        answers: The answer of the exported model for each of the N rows.
    """
    columns = decode_all(model.chosen_tasks, outputs)
    found = []
    for name, task in model.chosen_tasks.items():
        expected = model.decode(name, outputs[name]) | decode_factor(name, model.tasks, outputs)
        ties = find_ties(task, outputs[name], TOLERANCE)
        worst = Difference(name, 0.0, 0, name)
        changed = 0
        for suffix, column in columns[name].items():
            label = join_name(name, suffix)
            got = [answer[label] for answer in answers]
            # maps are no columns of predict's table
            want = expected[suffix] if suffix in expected else read_values(column)
            if isinstance(task, SequenceLabelling):
                got = [" ".join(word for word in words if word) for words in got]
            if column.classes is not None:
                unlike = torch.tensor([a != b for a, b in zip(got, want, strict=True)])
                changed += int((unlike & ~ties).sum())
                continue
            difference = measure_difference(got, want) / column.scale
            if not difference <= worst.largest:
                worst = Difference(name, difference, 0, label)
        found.append(Difference(name, worst.largest, changed, worst.column))
    return found


def read_values(column: Decoded) -> list[Any]:
    """Returns a column as plain values, positions as their classes."""
    values = column.values.numpy()
    if column.classes is not None:
        values = np.array(column.classes)[values]
    found: list[Any] = values.tolist()
    return found


def measure_difference(got: Sequence[Any], want: Sequence[Any]) -> float:
    """Returns the largest difference of numbers; NaN where one of two alone is missing."""
    ours, theirs = (np.array(values, dtype=np.float64) for values in (got, want))
    both = np.isnan(ours) & np.isnan(theirs)
    return float(np.abs(np.where(both, 0.0, ours - theirs)).max(initial=0.0))


def refuse_differences(found: Sequence[Difference], rows: int) -> None:
    """Refuses a model that does not say what ``predict`` says.

    Raises:
        UserError: A task differs by more than the tolerance.
    """
    for each in found:
        if each.changed:
            raise UserError(
                f"the exported model gives another class than predict in {each.changed} of {rows} "
                f"validation rows of task '{each.task}'; nothing is written"
            )
        if not each.largest <= TOLERANCE:
            raise UserError(
                f"the exported model differs from predict by {each.largest:.2g} in "
                f"'{each.column}', where {TOLERANCE:g} is allowed; nothing is written"
            )
