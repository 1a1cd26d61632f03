"""Schedules of the learning rate: their class's habits, and the number of steps that they need."""

from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from src.errors import UserError

Schedule = LRScheduler | ReduceLROnPlateau

# schedules that move at each optimizer step, which torch says in their documentation alone
EACH_STEP = (OneCycleLR, CyclicLR)


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
