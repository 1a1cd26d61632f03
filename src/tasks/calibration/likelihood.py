"""The negative log likelihood of labels, which no setting of a loss has a part in."""

import torch
import torch.nn.functional as F
from torch import Tensor

from src.tasks.binary import BinaryClassification, binary_losses
from src.tasks.calibration.probabilities import WithClasses
from src.tasks.crf import crf_losses, fill_padding, unpack
from src.tasks.labels import MISSING, is_labelled
from src.tasks.multilabel import MultilabelClassification
from src.tasks.ordinal import Ordinal
from src.tasks.sequence_labelling import SequenceLabelling


def compute_nll(task: WithClasses, outputs: Tensor, targets: Tensor) -> Tensor:
    """Returns -log p(label) of each element, 0 where the label is missing.

    A loss may weigh classes or smooth labels; this does not. Of a chain of labels the sentence's is
    spread over its tokens.

    Args:
        task: A task with classes.
        outputs: (N, ..., O).
        targets: (N, ...), or (N, ..., L) of several labels.
    """
    if isinstance(task, BinaryClassification):
        return binary_losses(outputs.squeeze(-1), targets, 1.0)
    if isinstance(task, MultilabelClassification):
        return binary_losses(outputs, targets, 1.0)
    if isinstance(task, SequenceLabelling) and task.crf:
        return crf_losses(fill_padding(unpack(outputs)), targets)
    known = is_labelled(targets)
    if isinstance(task, Ordinal):
        logs = task.log_probabilities(outputs)
        own = logs.gather(-1, targets.where(known, 0)[..., None]).squeeze(-1)
        return torch.where(known, -own, 0)
    losses = F.cross_entropy(
        outputs.flatten(0, -2), targets.flatten(), ignore_index=MISSING, reduction="none"
    )
    return losses.view_as(targets)
