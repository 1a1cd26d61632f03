"""Whether labels lie in their conformal sets and intervals, row by row."""

from collections.abc import Sequence

import torch
from torch import Tensor

from src.tasks import Quantiles, Regression, is_labelled
from src.tasks.calibration.conformal import Conformal

COVERAGE = 0.9
METRIC = f"conformal_coverage_{COVERAGE:g}"


def find_covered(
    conformal: Conformal, outputs: Tensor, targets: Tensor, groups: Sequence[str] | None = None
) -> Tensor:
    """Returns whether each label (N, L) is covered: 1 or 0, and NaN where it is missing.

    Args:
        conformal: The conformity scores of the task.
        outputs: (N, O), calibrated where the run is.
        targets: (N,) or (N, L).
        groups: The group of each row, where scores are compared by group.
    """
    task = conformal.task
    known = is_labelled(targets).reshape(len(targets), -1)
    if isinstance(task, Regression | Quantiles):
        ends = conformal.interval(outputs, COVERAGE, groups)
        labels = task.in_units(targets.double().reshape(len(targets), -1))
        inside = (ends[..., 0] <= labels) & (labels <= ends[..., 1])
    else:
        sets = conformal.sets(outputs, COVERAGE, groups=groups)
        # of one label the classes are a row, of several each has a row of its own
        sets = sets if sets.ndim == 3 else sets[:, None]
        places = targets.reshape(len(targets), -1).where(known, 0).long()
        inside = sets.gather(-1, places[..., None]).squeeze(-1)
    return inside.double().masked_fill(~known, torch.nan)
