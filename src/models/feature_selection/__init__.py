"""Which inputs each task needs: learnt while the network trains."""

from src.models.feature_selection.columns import InputColumn, list_columns
from src.models.feature_selection.group_lasso import GroupLasso
from src.models.feature_selection.lassonet import LassoNet
from src.models.feature_selection.selection import Selection, check_closing
from src.models.feature_selection.step_sizes import StepSizes
from src.models.feature_selection.stochastic_gates import StochasticGates

__all__ = [
    "GroupLasso",
    "InputColumn",
    "LassoNet",
    "Selection",
    "StepSizes",
    "StochasticGates",
    "check_closing",
    "list_columns",
]
