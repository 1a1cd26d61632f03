"""The default learning-rate schedule, and the same one that begins anew where tasks join late."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import cos, pi
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from src.errors import UserError, suggest_or_list


class WarmupCosine(LRScheduler):
    """Warms up linearly, then follows half a cosine down to ``floor``, moved at each step.

    See Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017.

    With a warm-up of w steps of N: lr(s) = lr (s + 1) / w for s < w, then lr (floor + (1 - floor)
    (1 + cos(pi (s - w) / (N - w))) / 2).

    Args:
        optimizer: The optimizer whose rates it sets.
        warmup: Length of the warm-up as a share of all steps.
        floor: Last learning rate as a share of the peak.
        total_steps: Number of optimizer steps; the model fills in the run's when None.
    """

    interval = "step"
    # what the run says anew each time, and no checkpoint keeps
    not_saved: tuple[str, ...] = ("total_steps",)

    def __init__(
        self,
        optimizer: Optimizer,
        warmup: float = 0.05,
        floor: float = 0.0,
        total_steps: int | None = None,
    ) -> None:
        if not 0 <= warmup <= 1 or not 0 <= floor <= 1:
            raise UserError(
                f"{type(self).__name__}: warmup {warmup} and floor {floor} must be in [0, 1]"
            )
        self.warmup = warmup
        self.floor = floor
        self.total_steps = total_steps
        super().__init__(optimizer)

    def factor(self, step: int, total: int | None) -> float:
        """Returns the share of the peak rate at a step of a curve, counted from 0.

        It is 1 as long as the length of the curve is unknown.
        """
        if total is None:
            return 1.0
        warm = round(self.warmup * total)
        if step < warm:
            return (step + 1) / warm
        progress = min(1.0, (step - warm) / max(1, total - warm))
        return self.floor + (1 - self.floor) * (1 + cos(pi * progress)) / 2

    def set_total(self, total_steps: int) -> None:
        """Sets the number of steps, unless it is fixed already, and the first step's rates."""
        if self.total_steps is None:
            self.total_steps = total_steps
            self._set_rates()

    def state_dict(self) -> dict[str, Any]:
        """Returns the state without the number of steps.

        A run that is resumed with more epochs follows the longer curve.
        """
        state = super().state_dict()
        return {key: value for key, value in state.items() if key not in self.not_saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from a step, at the rate of the curve as long as it is now."""
        super().load_state_dict(state_dict)
        self._set_rates()

    def _set_rates(self) -> None:
        self._last_lr = self.get_lr()
        for group, lr in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = lr

    def get_lr(self) -> list[float | Tensor]:
        """Returns the learning rate of each parameter group."""
        share = self.factor(self.last_epoch, self.total_steps)
        return [base * share for base in self.base_lrs]


class WarmRestarts(WarmupCosine):
    """``WarmupCosine``, begun anew for the parameters of a task that joins late.

    A task whose labels or whose thawed head come after some epochs would start at the rate to which
    the curve has come down by then. With a start after e epochs, the curve of the task's own
    parameters (its head, and what it owns in the architecture) ends there, and a new one with its
    own warm-up leads from there to the end of the run. 'encoder' begins all parameters of the
    architecture that tasks share anew (Loshchilov and Hutter, "SGDR: stochastic gradient descent
    with warm restarts", ICLR 2017).

    Args:
        optimizer: The optimizer whose rates it sets.
        starts: {task, or 'encoder': the epochs after which its curve begins anew, one or a list}.
        warmup: Length of each warm-up as a share of its curve.
        floor: Last learning rate of each curve as a share of the peak.
        total_steps: Number of optimizer steps; the model fills in the run's when None.
    """

    by_task = True
    not_saved = ("total_steps", "starts", "epoch_steps")

    def __init__(
        self,
        optimizer: Optimizer,
        starts: dict[str, int | list[int]] | None = None,
        warmup: float = 0.05,
        floor: float = 0.0,
        total_steps: int | None = None,
    ) -> None:
        self.starts = {name: list_starts(name, given) for name, given in (starts or {}).items()}
        self.epoch_steps: int | None = None
        super().__init__(optimizer, warmup, floor, total_steps)

    def check_names(self, tasks: Iterable[str]) -> None:
        """Checks the names of ``starts``.

        Raises:
            UserError: One of them is neither a task nor 'encoder'.
        """
        known = ["encoder", *tasks]
        for name in self.starts:
            if name not in known:
                raise UserError(
                    f"model.scheduler.starts names '{name}', which is neither 'encoder' nor a "
                    f"task; {suggest_or_list(name, known)}"
                )

    def set_epoch(self, steps: int) -> None:
        """Sets the number of optimizer steps of an epoch, and the first step's rates.

        Raises:
            UserError: A curve would begin when the run is over.
        """
        self.epoch_steps = steps
        for name, starts in self.starts.items():
            if self.total_steps is not None and starts[-1] * steps >= self.total_steps:
                raise UserError(
                    f"model.scheduler.starts.{name} is {starts[-1]}, but the run is over after "
                    f"{self.total_steps / steps:.3g} epochs"
                )
        self._set_rates()

    def get_lr(self) -> list[float | Tensor]:
        """Returns the learning rate of each parameter group, each by its own curve."""
        if self.epoch_steps is None or self.total_steps is None:
            return list(self.base_lrs)
        rates: list[float | Tensor] = []
        for base, group in zip(self.base_lrs, self.optimizer.param_groups, strict=True):
            starts = [epoch * self.epoch_steps for epoch in self._starts_of(group)]
            begin, end = find_curve(self.last_epoch, [0, *starts, self.total_steps])
            rates.append(base * self.factor(self.last_epoch - begin, end - begin))
        return rates

    def _starts_of(self, group: Mapping[str, Any]) -> list[int]:
        """Returns the epochs after which the curve of a group begins anew."""
        task = group.get("task")
        if task is not None:
            return self.starts.get(task, [])
        is_shared = str(group.get("name", "")).partition(".")[0] == "encoder"
        return self.starts.get("encoder", []) if is_shared else []


def list_starts(name: str, given: int | Sequence[int]) -> list[int]:
    """Returns the epochs after which a curve begins anew, in their order.

    Raises:
        UserError: There is none, or one is below 1.
    """
    epochs = sorted([given] if isinstance(given, int) else given)
    if not epochs or epochs[0] < 1:
        raise UserError(
            f"model.scheduler.starts.{name} is {given}; it must be the number of epochs, at least "
            "1, after which the curve begins anew"
        )
    return epochs


def find_curve(step: int, places: Sequence[int]) -> tuple[int, int]:
    """Returns where the curve of a step begins and ends; behind the last one, the last one.

    Args:
        step: The step.
        places: Where curves begin, and the end of the last one.
    """
    for begin, end in reversed(list(pairwise(places))):
        if step >= begin:
            return begin, end
    raise AssertionError(f"step {step} is before the first curve")
