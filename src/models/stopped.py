"""Tasks that train no longer: without labels they leave the balancing, and their heads stay."""

from collections.abc import Iterable
from math import nan

import torch
from torch import nn

from src.batch import Batch
from src.tasks import MISSING


def remove_labels(batch: Batch, names: Iterable[str]) -> None:
    """Replaces all labels of some tasks by missing ones, in place.

    To the balancer these tasks are like any task without a label in the batch.

    Args:
        batch: This process's share of a global batch.
        names: The tasks.
    """
    missing = {}
    for name in names:
        target = batch.targets[name]
        missing[name] = torch.full_like(target, nan if target.is_floating_point() else MISSING)
        batch.taught.pop(name, None)
    batch.targets = batch.targets | missing


def drop_gradients(heads: Iterable[nn.Module]) -> None:
    """Removes the gradients of some heads, so that the optimizer leaves their weights alone.

    At a gradient of 0, momentum and weight decay would still move them.
    """
    for head in heads:
        for p in head.parameters():
            p.grad = None
