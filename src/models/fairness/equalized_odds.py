"""Equalized odds: groups get the same predictions on average among rows of one label."""

from typing import ClassVar

from src.models.fairness.parity import ParityPenalty


class EqualizedOdds(ParityPenalty):
    """Penalises differences between the groups' mean predictions among rows of the same class.

    (Hardt, Price and Srebro, "Equality of opportunity in supervised learning", NeurIPS 2016.) For
    one of two classes these are differences of the mean probability among positive and among
    negative rows, smooth forms of true and false positive rates. See :class:`ParityPenalty` for the
    formula.

    Args:
        tasks: {name: task}.
        groups: The names of the groups.
        strength: The factor, or {task: factor}; tasks that it does not name have 0.
    """

    given_label: ClassVar[bool] = True

    @property
    def requirement(self) -> str:
        return "compares the probabilities of rows whose label is one class"
