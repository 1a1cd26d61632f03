"""Kinds of tasks with a label for each pixel: what a data module of images asks of them besides."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Self

import numpy as np
from torch import Tensor

from src.errors import UserError


class PixelLabels(ABC):
    """A task whose label is a map: targets (B, H, W) or (B, H, W, L), outputs (B, H, W, O)."""

    @abstractmethod
    def learn(self, maps: Iterable[np.ndarray]) -> Self:
        """Returns the task with its label space learnt from training maps, read one by one.

        A task that knows everything already reads none.

        Args:
            maps: (H, W) or (H, W, L) labels as read.

        Raises:
            BadLabel: A label that this kind of task cannot have.
        """

    @abstractmethod
    def decode_map(self, outputs: Tensor) -> np.ndarray:
        """Turns outputs (B, H, W, O) into maps as label files hold them."""

    def mirror(self, targets: Tensor) -> Tensor:
        """Returns targets (H, W, ...) of an image that is mirrored left to right."""
        return targets.flip(1)


def refuse_pooled(kind: str, pooled: bool) -> None:
    """Checks that the head of a task of pixels reads pixels.

    Raises:
        UserError: It is to read the mean over an image.
    """
    if pooled:
        raise UserError(
            f"{kind}: pooled is true, but a {kind} has a label for each pixel; leave it out, or "
            "take a kind with one label for each image"
        )


def describe_place(index: np.ndarray) -> str:
    """Says where in a stack of maps (N, H, W, ...) a label is, counted from 0."""
    return f"at row {index[1]}, column {index[2]}" if len(index) > 2 else f"at place {index[-1]}"
