"""Optimisation: parameter groups, optimizers and schedules of the learning rate."""

from src.models.optimisation.averaging import EvaluationWeights, choose_training_weights
from src.models.optimisation.groups import Grouping, parameter_groups
from src.models.optimisation.muon_adamw import MuonAdamW
from src.models.optimisation.optimizer import optimizer_and_schedule
from src.models.optimisation.schedules import AT_VALIDATION, show_scores
from src.models.optimisation.task_plateau import TaskPlateau
from src.models.optimisation.tries import refuse_spread, try_settings
from src.models.optimisation.warmup_cosine import WarmRestarts, WarmupCosine

__all__ = [
    "AT_VALIDATION",
    "EvaluationWeights",
    "Grouping",
    "MuonAdamW",
    "TaskPlateau",
    "WarmRestarts",
    "WarmupCosine",
    "choose_training_weights",
    "optimizer_and_schedule",
    "parameter_groups",
    "refuse_spread",
    "show_scores",
    "try_settings",
]
