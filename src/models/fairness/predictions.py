"""The numbers of each kind of task that groups are compared by, as functions of its outputs."""

from typing import NamedTuple

import torch
from torch import Tensor

from src.tasks import (
    MISSING,
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Ordinal,
    Regression,
    SequenceLabelling,
    Task,
    is_labelled,
)


class Predictions(NamedTuple):
    """Predictions of N elements, C numbers each, and the label that each number is judged by.

    Attributes:
        values_NC: Probabilities, or standardised numbers.
        labels_NC: The class of the label; 0 for numbers, ``MISSING`` where there is no label.
    """

    values_NC: Tensor
    labels_NC: Tensor


def count_label_classes(task: Task) -> int:
    """Returns the number of classes that a label of a task may have; 0 where it has none."""
    if isinstance(task, BinaryClassification | MultilabelClassification):
        return 2
    return len(task.classes) if isinstance(task, Classification) else 0


def is_comparable(task: Task) -> bool:
    """Returns whether a task predicts probabilities, or a mean."""
    if isinstance(task, SequenceLabelling):
        return not task.crf
    kinds = BinaryClassification | MultilabelClassification | Classification | Regression
    return isinstance(task, kinds)


def read_predictions(task: Task, outputs: Tensor, targets: Tensor) -> Predictions:
    """Returns the predictions of a comparable task, in the graph.

    Args:
        task: The task.
        outputs: (B, ..., O).
        targets: (B, ...), or (B, ..., L).
    """
    outputs = outputs.double()
    if isinstance(task, Classification):
        logs = (
            task.log_probabilities(outputs)
            if isinstance(task, Ordinal)
            else outputs.log_softmax(-1)
        )
        values_NC = logs.exp().flatten(0, -2)
        labels_NC = targets.flatten()[:, None].expand_as(values_NC)
        return Predictions(values_NC, labels_NC)

    values_NC = outputs.flatten(0, -2)
    targets_NC = targets.reshape(values_NC.shape)
    known_NC = is_labelled(targets_NC)
    if isinstance(task, Regression):
        return Predictions(values_NC, torch.where(known_NC, 0, MISSING))
    labels_NC = targets_NC.where(known_NC, MISSING).long()
    return Predictions(values_NC.sigmoid(), labels_NC)
