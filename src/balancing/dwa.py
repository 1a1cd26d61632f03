"""DWA: dynamic weight averaging."""

from collections.abc import Mapping

import torch
from torch import Tensor

from src.balancing.balancer import LossBalancer, TaskLosses
from src.errors import UserError


class DynamicWeightAverage(LossBalancer):
    """DWA: gives more weight to tasks whose losses fall slowly.

    w_t = T softmax(r_t / temperature), where r_t is the ratio of the task's mean losses in the last
    two epochs, and 1 in the first two epochs (Liu, Johns and Davison, "End-to-end multi-task
    learning with attention", CVPR 2019).

    Args:
        tasks: {task: likelihood}.
        temperature: The larger, the more equal the weights.
    """

    # rows: the sum of the losses in this epoch, the number of its steps with labels, the mean loss
    # of the last epoch, and that of the epoch before
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
        total, count, last, _ = self.history_4T.clone()

        # a task that had no label in this epoch keeps its last mean
        self.history_4T[3] = last
        self.history_4T[2] = torch.where(count > 0, total / count, last)
        self.history_4T[:2] = 0
