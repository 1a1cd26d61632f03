"""Schedules of the learning rate: their class's habits, and what a run tells them."""

from collections.abc import Callable, Mapping
from math import ceil, isnan

import lightning as L
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from src.errors import UserError
from src.models.optimisation.task_plateau import TaskPlateau
from src.models.optimisation.warmup_cosine import WarmRestarts, WarmupCosine

Schedule = LRScheduler | ReduceLROnPlateau

# schedules that move at each optimizer step, which torch says in their documentation alone
EACH_STEP = (OneCycleLR, CyclicLR)
# schedules that move when a validation ends
AT_VALIDATION = (ReduceLROnPlateau, TaskPlateau)


def make_schedule(
    make_scheduler: Callable[..., Schedule], optimizer: Optimizer, steps: Callable[[], float]
) -> Schedule:
    """Makes a schedule, with the number of steps of the whole run where its class needs it.

    Raises:
        UserError: The run has no end.
    """
    try:
        return make_scheduler(optimizer)
    except ValueError as error:
        if "total_steps" not in str(error):
            raise
    return make_scheduler(optimizer, total_steps=whole_steps(steps(), "the schedule"))


def fit_to_run(schedule: Schedule, trainer: L.Trainer) -> None:
    """Tells a schedule how long the run and its epochs are, where it wants to know.

    Raises:
        UserError: The run has no end, or is over before a curve begins.
    """
    if isinstance(schedule, WarmupCosine) and schedule.total_steps is None:
        total = whole_steps(trainer.estimated_stepping_batches, type(schedule).__name__)
        schedule.set_total(total)
    if isinstance(schedule, WarmRestarts):
        trainer.fit_loop.setup_data()
        batches = trainer.num_training_batches
        schedule.set_epoch(ceil(batches / trainer.accumulate_grad_batches))


def whole_steps(total: float, who: str) -> int:
    """Returns the number of steps of a run that has an end.

    Raises:
        UserError: It has none.
    """
    if total == float("inf"):
        raise UserError(
            f"{who} needs an end: set trainer.max_epochs, trainer.max_steps or "
            "model.scheduler.total_steps"
        )
    return int(total)


def show_scores(trainer: L.Trainer, scores: Mapping[str, float], mean: float) -> None:
    """Shows the scores of a validation to the schedules that wait for them.

    Args:
        trainer: The Trainer.
        scores: {task: score}, NaN where no label defines it.
        mean: val/score, NaN where no label defines it.
    """
    for config in trainer.lr_scheduler_configs:
        schedule = config.scheduler
        if isinstance(schedule, TaskPlateau):
            schedule.see_scores(scores, mean)
        elif isinstance(schedule, ReduceLROnPlateau) and not isnan(mean):
            schedule.step(mean)
