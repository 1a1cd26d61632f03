"""The probabilities that a task predicts, in one form for all kinds of classes."""

from typing import TypeGuard

import torch
from torch import Tensor

from src.tasks.binary import BinaryClassification
from src.tasks.classification import Classification
from src.tasks.crf import compute_pair_marginals, fill_padding, unpack
from src.tasks.multilabel import MultilabelClassification
from src.tasks.ordinal import Ordinal
from src.tasks.sequence_labelling import SequenceLabelling
from src.tasks.task import Task

WithClasses = BinaryClassification | Classification | MultilabelClassification


def has_probabilities(task: Task) -> TypeGuard[WithClasses]:
    """Returns whether a task predicts probabilities of classes."""
    return isinstance(task, BinaryClassification | Classification | MultilabelClassification)


def compute_probabilities(task: Task, outputs: Tensor) -> Tensor:
    """Returns the probabilities of classes (..., C), of several labels (..., L, 2), in fp64.

    Of a chain of labels they are those of each label by itself.

    Args:
        task: A task with classes.
        outputs: (..., O), NaN at padding.
    """
    x = outputs.double()
    if isinstance(task, BinaryClassification):
        return torch.cat([(-x).sigmoid(), x.sigmoid()], -1)
    if isinstance(task, MultilabelClassification):
        return torch.stack([(-x).sigmoid(), x.sigmoid()], -1)
    if isinstance(task, Ordinal):
        return task.log_probabilities(x).exp()
    if isinstance(task, SequenceLabelling) and task.crf:
        return compute_pair_marginals(fill_padding(unpack(x))).sum(-2)
    assert isinstance(task, Classification)
    return x.softmax(-1)
