"""Thresholds by group that meet a constraint of fairness, found by fairlearn on validation rows."""

from collections.abc import Sequence
from math import isinf
from typing import TYPE_CHECKING, Any

import numpy as np

from src.errors import UserError
from src.tasks.group_thresholds import ALWAYS, NEVER, Constraint, GroupRule, Operation

if TYPE_CHECKING:
    from fairlearn.postprocessing import ThresholdOptimizer

CONSTRAINTS: dict[Constraint, str] = {
    "EqualizedOdds": "equalized_odds",
    "DemographicParity": "demographic_parity",
}
OBJECTIVES = ("accuracy", "balanced_accuracy")


def fit_rules(
    constraint: Constraint,
    objective: str,
    scores: np.ndarray,
    positive: np.ndarray,
    groups: Sequence[str],
) -> dict[str, GroupRule]:
    """Returns {group: rule} with the highest objective under a constraint.

    Args:
        constraint: EqualizedOdds or DemographicParity.
        objective: accuracy or balanced_accuracy.
        scores: (N,) probabilities.
        positive: (N,) whether the label is positive.
        groups: The group of each row.

    Raises:
        UserError: fairlearn is not installed, or a group has labels of one class alone.
    """
    check_groups(positive, groups)
    optimizer = fit_optimizer(constraint, objective, scores, positive, groups)
    found = optimizer.interpolated_thresholder_.interpolation_dict
    return {str(group): read_rule(rule) for group, rule in found.items()}


def check_groups(positive: np.ndarray, groups: Sequence[str]) -> None:
    """Refuses a group whose rows do not have both classes.

    Raises:
        UserError: There is one, or there is one group alone.
    """
    names = np.array(groups, dtype=object)
    if len(set(groups)) < 2:
        raise UserError(f"--thresholds: all validation rows are of one group, '{names[0]}'")
    for group in sorted(set(groups)):
        own = positive[names == group]
        count = int(own.sum())
        if count in (0, len(own)):
            raise UserError(
                f"--thresholds: the group '{group}' has {len(own)} validation rows, {count} of "
                "them positive: a threshold needs both classes; leave the column out, or merge its "
                "small groups"
            )


def fit_optimizer(
    constraint: Constraint,
    objective: str,
    scores: np.ndarray,
    positive: np.ndarray,
    groups: Sequence[str],
) -> "ThresholdOptimizer":
    """Fits fairlearn's optimizer on scores that a network has given already.

    Raises:
        UserError: fairlearn is not installed.
    """
    try:
        from fairlearn.postprocessing import ThresholdOptimizer
        from sklearn.base import BaseEstimator
    except ImportError:
        raise UserError("--thresholds needs the package fairlearn: pip install fairlearn") from None

    class GivenScores(BaseEstimator):
        """Scores that stand in the one column of the inputs."""

        def fit(self, x: np.ndarray, y: np.ndarray) -> "GivenScores":
            """Learns nothing."""
            return self

        def predict(self, x: np.ndarray) -> np.ndarray:
            """Returns the scores."""
            return np.asarray(x)[:, 0]

        def __sklearn_is_fitted__(self) -> bool:
            return True

    optimizer = ThresholdOptimizer(
        estimator=GivenScores(),
        constraints=CONSTRAINTS[constraint],
        objective=f"{objective}_score",
        prefit=True,
        predict_method="predict",
    )
    names = np.array(groups, dtype=object)
    return optimizer.fit(scores[:, None], positive.astype(int), sensitive_features=names)


def read_rule(rule: Any) -> GroupRule:
    """Returns the numbers of a group's rule as fairlearn has found them.

    Args:
        rule: p0, operation0, p1, operation1; for equalized odds p_ignore and prediction_constant.
    """
    return GroupRule(
        clip(rule.get("p_ignore", 0.0)),
        clip(rule.get("prediction_constant", 0.0)),
        clip(rule["p0"]),
        read_operation(rule["operation0"]),
        clip(rule["p1"]),
        read_operation(rule["operation1"]),
    )


def read_operation(operation: Any) -> Operation:
    """Returns a comparison as plain numbers."""
    threshold = float(operation.threshold)
    if isinf(threshold):
        threshold = NEVER if threshold > 0 else ALWAYS
    return Operation(operation.operator, threshold)


def clip(share: float) -> float:
    """Returns a share without rounding beyond 0 and 1."""
    return min(max(float(share), 0.0), 1.0)
