"""Overlap of classes, from the counts of pixels by true and predicted class.

The counts (C, C) are summed over all rows and ranks before anything is divided, so that each pixel
counts once, whatever image and batch it is in.
"""

import torch
from torch import Tensor


def count_pairs(targets: Tensor, predictions: Tensor, classes: int) -> Tensor:
    """Counts pixels by true class (rows) and predicted class (columns): (C, C).

    Args:
        targets: (N,) class positions, all known.
        predictions: (N,) class positions.
        classes: Number C of classes.
    """
    return torch.bincount(targets * classes + predictions, minlength=classes**2).view(classes, -1)


def compute_iou(counts: Tensor) -> Tensor:
    """Returns TP / (TP + FP + FN) of each class (C,), NaN where it is in neither maps."""
    hits = counts.diagonal().double()
    return hits / (counts.sum(0) + counts.sum(1) - hits)


def compute_dice(counts: Tensor) -> Tensor:
    """Returns 2 TP / (2 TP + FP + FN) of each class (C,), NaN where it is in neither maps."""
    return 2 * counts.diagonal().double() / (counts.sum(0) + counts.sum(1))


def compute_accuracy(counts: Tensor) -> Tensor:
    """Returns the share of pixels whose class is right."""
    return counts.diagonal().sum().double() / counts.sum()
