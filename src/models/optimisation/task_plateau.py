"""Rates that fall where a score stalls, for each task by its own score."""

from collections.abc import Mapping
from math import isnan
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from src.errors import UserError


class TaskPlateau(LRScheduler):
    """Lowers the rate of a task's own parameters when the task's validation score stalls.

    A task's own parameters are its head, and what it alone owns in the architecture, such as the
    last experts of PLE. All that tasks share follows val/score. A rate falls by ``factor`` after
    ``patience`` validations without a better score; a validation that has no label of a task says
    nothing about it.

    Args:
        optimizer: The optimizer whose rates it sets.
        factor: The rate after a fall, as a share of the rate before.
        patience: Validations without a better score before the rate falls.
        threshold: By how much a score must be above the best one to be better.
        cooldown: Validations after a fall that do not count.
        min_lr: The rate below which none falls.
    """

    by_task = True

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 0.5,
        patience: int = 5,
        threshold: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        if not 0 < factor < 1:
            raise UserError(f"TaskPlateau: factor {factor} must be above 0 and below 1")
        if patience < 1:
            raise UserError(f"TaskPlateau: patience {patience} must be at least 1")
        for name, value in (("threshold", threshold), ("cooldown", cooldown), ("min_lr", min_lr)):
            if not value >= 0:
                raise UserError(f"TaskPlateau: {name} {value} must be at least 0")
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.cooldown = cooldown
        self.min_lr = min_lr
        # of each group: the best score, validations since then, validations that do not count yet
        groups = len(optimizer.param_groups)
        self.best: list[float | None] = [None] * groups
        self.waited = [0] * groups
        self.cooling = [0] * groups
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Returns the learning rate of each parameter group, as it is."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def see_scores(self, scores: Mapping[str, float], mean: float) -> None:
        """Looks at the scores of a validation, and lowers the rates that are due.

        Args:
            scores: {task: score}, NaN where no label defines it; higher is better.
            mean: The score of all tasks together.
        """
        for k, group in enumerate(self.optimizer.param_groups):
            score = scores[group["task"]] if "task" in group else mean
            if not isnan(score):
                self._count(k, group, score)
        self._last_lr = self.get_lr()

    def _count(self, k: int, group: dict[str, Any], score: float) -> None:
        """Counts a validation of group k, and lowers its rate where it is due."""
        best = self.best[k]
        if best is None or score > best + self.threshold:
            self.best[k] = score
            self.waited[k] = 0
        else:
            self.waited[k] += 1
        if self.cooling[k]:
            self.cooling[k] -= 1
            self.waited[k] = 0
        if self.waited[k] < self.patience:
            return

        # a rate that a multiplier has put below the least one stays there
        rate = float(group["lr"])
        group["lr"] = min(rate, max(rate * self.factor, self.min_lr))
        self.waited[k] = 0
        self.cooling[k] = self.cooldown
