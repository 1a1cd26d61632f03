"""Demographic parity: groups get the same predictions on average."""

from typing import ClassVar

from src.models.fairness.parity import ParityPenalty


class DemographicParity(ParityPenalty):
    """Penalises differences between the groups' mean predictions, whatever the labels are.

    (Calders, Kamiran and Pechenizkiy, "Building classifiers with independency constraints", ICDMW
    2009; the penalty on means is that of Calders et al., "Controlling attribute effect in linear
    regression", ICDM 2013.) Groups are compared by the mean probability of each class, or by the
    mean of a standardised number. See :class:`ParityPenalty` for the formula.

    Args:
        tasks: {name: task}.
        groups: The names of the groups.
        strength: The factor, or {task: factor}; tasks that it does not name have 0.
    """

    given_label: ClassVar[bool] = False

    @property
    def requirement(self) -> str:
        return "compares probabilities or means"
