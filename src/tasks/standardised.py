"""Numbers as a network sees them: (y - mean) / std, with the mean and spread of training labels."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from torch import Tensor

from src.errors import UserError

LEAST = -1.0  # of a score


@dataclass(frozen=True, kw_only=True)
class Standardised:
    """A part of kinds that predict one number.

    Attributes:
        mean: Mean over the training labels; learnt when None.
        std: Standard deviation over the training labels; learnt when None.
    """

    mean: float | None = None
    std: float | None = None

    def check_scale(self) -> None:
        """Checks what was set by hand.

        Raises:
            UserError: The standard deviation is not above 0.
        """
        if self.std is not None and not self.std > 0:
            raise UserError(f"{type(self).__name__}: std {self.std} must be above 0")

    def fit_scale(self, numbers: np.ndarray) -> Self:
        """Returns the task with the mean and the spread of labels (N,), NaN where missing.

        Raises:
            UserError: No label is known, or all of them are the same.
        """
        known = numbers[~np.isnan(numbers)]
        if not len(known):
            raise UserError("has no label in the training split")
        # the std of a single value may be rounding dust instead of 0
        if self.std is None and known.min() == known.max():
            raise UserError("has a single value in the training split; there is nothing to learn")
        mean = float(known.mean()) if self.mean is None else self.mean
        return replace(self, mean=mean, std=self.std or float(known.std()))

    def standardise(self, numbers: np.ndarray) -> np.ndarray:
        """Turns numbers in the label's own unit into standardised ones."""
        assert self.mean is not None and self.std is not None, "fit first"
        standard: np.ndarray = (numbers - self.mean) / self.std
        return standard

    def in_units(self, standardised: Tensor) -> Tensor:
        """Turns standardised numbers into the label's own unit, fp64."""
        assert self.mean is not None and self.std is not None, "fit first"
        return standardised.double() * self.std + self.mean

    def bound_skill(self, error: Tensor | float) -> float:
        """Returns 1 - error / std of an error in the label's own unit, at least ``LEAST``."""
        assert self.std is not None, "fit first"
        return at_least(1 - float(error) / self.std)


def at_least(skill: float) -> float:
    """Returns a score that is bounded below; NaN stays NaN."""
    return LEAST if skill < LEAST else skill


def needs_one_column(values: np.ndarray, kind: str) -> None:
    """Refuses labels of several columns.

    Raises:
        UserError: They are such.
    """
    if values.ndim > 1:
        raise UserError(f"has {values.shape[1]} columns, where {kind} has one")
