"""Optimisation: parameter groups, optimizers and schedules of the learning rate."""

from src.models.optimisation.groups import parameter_groups
from src.models.optimisation.optimizer import optimizer_and_schedule, refuse_bad_settings
from src.models.optimisation.warmup_cosine import WarmupCosine

__all__ = ["WarmupCosine", "optimizer_and_schedule", "parameter_groups", "refuse_bad_settings"]
