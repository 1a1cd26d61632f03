"""Elastic weight consolidation: weights that mattered to old tasks move the least."""

from typing import ClassVar

from src.errors import UserError
from src.models.transfer.anchor import Anchor


class EWC(Anchor):
    """s/2 sum_i F_i (theta_i - theta0_i)^2, F the diagonal of the source's Fisher information.

    See Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017. F is
    measured on validation rows of the source, with their own labels, see
    :func:`src.models.transfer.fisher.measure_fisher`.

    Args:
        strength: s.
        rows: The number of validation rows that F is measured on.
    """

    reads_fisher: ClassVar[bool] = True

    def __init__(self, strength: float = 100.0, rows: int = 256) -> None:
        super().__init__(strength)
        if rows < 1:
            raise UserError(f"EWC: rows is {rows}; it must be at least 1")
        self.rows = rows
