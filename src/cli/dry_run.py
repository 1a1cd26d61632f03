"""Measures a few rows of a run, to say what it will take on its devices."""

from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_map

from src.cli.batch_sums import list_batch_sums
from src.data import MultiTaskDataModule
from src.models import MultiTaskModel
from src.planning.devices import Devices
from src.planning.measure import extrapolate_costs, weigh_parts
from src.planning.memory import Footprint, Load, make_footprint
from src.planning.plan import Plan, make_plan


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
        self._measured: dict[int, Footprint] = {}

    def measure(self, rows: int) -> Footprint:
        """Measures what the parts of the model take for a number of rows."""
        if rows not in self._measured:
            self.model.configure_model()
            split: Any = self.data.split("train")
            batch = split[torch.arange(min(4, len(split)))]
            mixed = torch.autocast("cpu", torch.bfloat16, enabled=self.mixed)
            with mixed, self.model.freezing.after_thaw(self.model):
                costs = extrapolate_costs(
                    self.model,
                    lambda few: tree_map(
                        lambda tensor: tensor[:few], (batch.inputs, batch.targets)
                    ),
                    rows,
                )
            self._measured[rows] = make_footprint(self.model, costs, self.doubled)
        return self._measured[rows]

    def load(self) -> Load:
        """Returns the bytes of a device that holds the whole model, with its share of the batch."""
        footprint = self.measure(-(-self.data.batch_size // self.devices.count))
        return footprint.load(dict.fromkeys(footprint.costs, 1.0))

    def weigh(self, rows: int) -> Footprint:
        """Weighs the parts of the model without running it, whatever the number of rows."""
        with self.model.freezing.after_thaw(self.model):
            return make_footprint(self.model, weigh_parts(self.model), self.doubled)

    def plan(self, strategy: Any, accumulated: int, look: bool, why: str) -> Plan:
        """Returns what each device holds, and sends in a step.

        Args:
            strategy: How several devices work together.
            accumulated: Batches per optimizer step.
            look: Whether to measure anything.
            why: The reason for this strategy, where it was chosen here.
        """
        self.model.configure_model()
        return make_plan(
            self.model,
            strategy,
            self.devices,
            self.measure if look else self.weigh,
            self.data.batch_size,
            accumulated,
            partial(list_batch_sums, self.model),
            why,
        )
