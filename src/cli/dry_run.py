"""What a run will take on its devices, from a few of its rows."""

from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_map

from src.cli.batch_sums import list_batch_sums
from src.data import MultiTaskDataModule
from src.models import MultiTaskModel
from src.planning.devices import Devices
from src.planning.measure import Cost, measured_at
from src.planning.plan import Load, Plan, load_of, planned, state_ratio, task_gradients, unmeasured


class Forecast:
    """Measures a model on a few training rows, once for each number of rows that is asked for.

    Args:
        model: The model.
        data: Where its rows come from.
        devices: Where it will run.
        precision: What the Trainer is told of it.
    """

    def __init__(
        self, model: MultiTaskModel, data: MultiTaskDataModule, devices: Devices, precision: str
    ) -> None:
        self.model, self.data, self.devices = model, data, devices
        self.mixed = precision in ("bf16-mixed", "16-mixed")
        self.doubled = 2.0 if precision.startswith("64") else 1.0  # bytes, beside those of fp32
        self._costs: dict[int, dict[str, Cost]] = {}

    def costs(self, rows: int) -> dict[str, Cost]:
        """What the parts of the model take for so many rows."""
        if rows not in self._costs:
            self.model.configure_model()
            split: Any = self.data.split("train")
            batch = split[torch.arange(min(4, len(split)))]
            with torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
                self._costs[rows] = measured_at(
                    self.model,
                    lambda few: tree_map(
                        lambda tensor: tensor[:few], (batch.inputs, batch.targets)
                    ),
                    rows,
                )
        return self._costs[rows]

    def load(self) -> Load:
        """What one device takes that holds the whole model, with its share of the batch."""
        parts = self.costs(-(-self.data.batch_size // self.devices.count))
        whole = dict.fromkeys(parts, 1.0)
        return load_of(
            parts,
            whole,
            [whole],
            state_ratio(self.model._make_optimizer),
            task_gradients(self.model),
            self.doubled,
        )

    def plan(self, strategy: Any, accumulated: int, look: bool, why: str) -> Plan:
        """What lies where and is sent in a step.

        Args:
            strategy: How several devices work together.
            accumulated: Batches per optimizer step.
            look: Whether to measure anything.
            why: This strategy, where it was chosen here.
        """
        self.model.configure_model()
        return planned(
            self.model,
            strategy,
            self.devices,
            self.costs if look else lambda rows: unmeasured(self.model),
            self.model._make_optimizer,
            self.data.batch_size,
            accumulated,
            partial(list_batch_sums, self.model),
            self.doubled,
            why,
        )
