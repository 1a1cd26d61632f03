"""Dynamic weight averaging."""

from collections.abc import Mapping

import torch
from torch import Tensor

from src.balancing.balancer import LossBalancer, TaskLosses
from src.errors import UserError


class DynamicWeightAverage(LossBalancer):
    """DWA: more weight for tasks whose losses fall slowly.

    DWA: w_t = T softmax(r_t / temperature), r_t the ratio of the task's mean losses in the last two
    epochs; 1 in the first two (Liu, Johns and Davison, "End-to-end multi-task learning with
    attention", CVPR 2019).

    Args:
        tasks: {task: likelihood}.
        temperature: Towards infinity all weights are 1.
    """

    # rows: this epoch's sum of losses, its number of steps with labels, and the means of the last
    # epoch and of the one before
    history_4T: Tensor

    def __init__(self, tasks: Mapping[str, str], temperature: float = 2.0) -> None:
        super().__init__(tasks)
        if temperature <= 0:
            raise UserError(f"DynamicWeightAverage: temperature {temperature} must be above 0")
        self.temperature = temperature
        self.register_buffer("history_4T", torch.zeros(4, len(tasks), dtype=torch.float64))
        self.history_4T[2:] = torch.nan

    def weigh(self, losses: TaskLosses) -> Tensor:
        self.history_4T[0] += losses.global_T
        self.history_4T[1] += losses.present_T
        last, before = self.history_4T[2:]
        ratios = (last / before).nan_to_num(1.0, posinf=1.0)
        return len(self.tasks) * (ratios / self.temperature).softmax(0)

    def on_epoch_end(self) -> None:
        """Closes the epoch's mean; a task that had no label keeps its last one."""
        total, count, last, _ = self.history_4T.clone()
        self.history_4T[3] = last
        self.history_4T[2] = torch.where(count > 0, total / count, last)
        self.history_4T[:2] = 0
