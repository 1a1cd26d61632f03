"""Comparison of an exported model's answers with what ``predict`` says of the same rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.cli.coverage import name_ends, name_sets
from src.deployment.coverage import Coverage
from src.deployment.decoding import Decoded, decode_tensors, find_ties, join_name
from src.deployment.network import DecodedNetwork
from src.errors import UserError
from src.models import MultiTaskModel
from src.tasks import SequenceLabelling
from src.tasks.dependence import decode_factor

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Difference:
    """How far the answers for one task are from those of ``predict``.

    Attributes:
        task: Its name.
        largest: The largest difference: of probabilities as they are, of numbers in standard
            deviations of the label.
        column: The column where it is largest.
        changed: The number of rows with another class or set; rows on the edge do not count.
    """

    task: str
    largest: float
    column: str
    changed: int


def compare_answers(
    model: MultiTaskModel,
    network: DecodedNetwork,
    outputs: Mapping[str, Tensor],
    answers: Sequence[Mapping[str, Any]],
) -> list[Difference]:
    """Returns the difference of each task.

    Args:
        model: The model, whose thresholds decide.
        network: The network that was exported.
        outputs: {task: outputs (N, ..., O)} of the run itself.
        answers: The answer of the exported model for each of the N rows.
    """
    columns = network.decode(outputs)
    found = []
    for name in model.tasks:
        expected = read_expected(model, network.coverage, name, outputs)
        changed = count_changed(model, network.coverage, name, outputs, expected, answers)
        largest, worst = 0.0, name
        for suffix, column in columns[name].items():
            label = join_name(name, suffix)
            if column.classes is None:
                got = [answer[label] for answer in answers]
                # maps of pixels are no columns of predict's table
                want = expected.get(suffix, column.values.tolist())
                difference = measure_difference(got, want) / column.scale
                # a NaN counts, too
                if not difference <= largest:
                    largest, worst = difference, label
        found.append(Difference(name, largest, worst, changed))
    return found


def read_expected(
    model: MultiTaskModel, coverage: Coverage | None, name: str, outputs: Mapping[str, Tensor]
) -> dict[str, list[Any]]:
    """Returns {suffix: values} of a task, as ``predict`` writes them."""
    found = model.decode(name, outputs[name]) | decode_factor(name, model.tasks, outputs)
    if coverage is not None and name in coverage.scores:
        conformal = coverage.scores[name]
        if conformal.makes_sets:
            chosen = conformal.sets(outputs[name], coverage.probability, coverage.method)
            found |= name_sets(conformal, chosen.tolist())
        else:
            ends = conformal.interval(outputs[name], coverage.probability)
            found |= name_ends(conformal, ends.unbind(1))
    return found


def count_changed(
    model: MultiTaskModel,
    coverage: Coverage | None,
    name: str,
    outputs: Mapping[str, Tensor],
    expected: Mapping[str, list[Any]],
    answers: Sequence[Mapping[str, Any]],
) -> int:
    """Returns the number of rows whose class or set is another one, rows on the edge left out."""
    task = model.chosen_tasks[name]
    decoders = [partial(decode_tensors, task)]
    if coverage is not None and name in coverage.scores:
        decoders.append(partial(coverage.decode_task, name))
    changed = torch.zeros(len(answers), dtype=torch.bool)
    for decode in decoders:
        unlike = torch.zeros(len(answers), dtype=torch.bool)
        for suffix, column in decode(outputs[name]).items():
            if column.classes is not None:
                got = [answer[join_name(name, suffix)] for answer in answers]
                if isinstance(task, SequenceLabelling):
                    got = [" ".join(word for word in words if word) for words in got]
                want = expected.get(suffix) or read_classes(column)
                unlike |= torch.tensor([a != b for a, b in zip(got, want, strict=True)])
        if unlike.any():
            changed |= unlike & ~find_ties(decode, outputs[name], TOLERANCE)
    return int(changed.sum())


def read_classes(column: Decoded) -> list[Any]:
    """Returns the classes at the positions of a column."""
    assert column.classes is not None
    return list(np.array(column.classes)[column.values.numpy()].tolist())


def measure_difference(got: Sequence[Any], want: Sequence[Any]) -> float:
    """Returns the largest difference of numbers; NaN where one of two alone is missing."""
    ours, theirs = (np.array(values, dtype=np.float64) for values in (got, want))
    # an interval without ends has infinite ones
    same = (ours == theirs) | np.isnan(ours) & np.isnan(theirs)
    with np.errstate(invalid="ignore"):
        return float(np.abs(np.where(same, 0.0, ours - theirs)).max(initial=0.0))


def refuse_differences(found: Sequence[Difference], rows: int) -> None:
    """Refuses a model that does not say what ``predict`` says.

    Raises:
        UserError: A task differs by more than the tolerance.
    """
    for each in found:
        if not each.largest <= TOLERANCE:
            raise UserError(
                f"the exported model differs from predict by {each.largest:.2g} in "
                f"'{each.column}', where {TOLERANCE:g} is allowed: nothing is written"
            )
        if each.changed:
            raise UserError(
                f"the exported model gives another class than predict in {each.changed} of {rows} "
                f"validation rows of task '{each.task}': nothing is written"
            )
