"""Data parallelism over replicas that each lie on several devices."""

from typing import Any, Literal

import torch

from src.errors import UserError
from src.parallel.ddp import DDP
from src.parallel.placement import Placed
from src.planning.auto_placement import Balance
from src.planning.communication import Traffic


class DDPPlacement(Placed, DDP):
    """One process for every few devices, over which it lays its copy of the model; DDP averages the copies' gradients.

    ``--devices`` counts all devices of a node. Under torchrun or srun, which start the processes,
    it follows from how many these are.

    Args:
        devices_per_replica: How many devices a copy lies on.
        placement: {path of a part: place of its device among those of a copy, counted from 0}, or
            auto, as for placement.
        balance: What auto deals: bytes or time.
        micro_batches: Slices of each copy's rows that follow one another through the stages.
        save: A YAML file to write the plan to, which --config and --trainer read.
        timeout: Seconds that a process waits for the others before it gives up.
    """

    strategy_name = "ddp_placement"

    def __init__(
        self,
        devices_per_replica: int = 2,
        placement: Literal["auto"] | dict[str, Any] = "auto",
        balance: Balance = "bytes",
        micro_batches: int = 1,
        save: str | None = None,
        timeout: float = 600.0,
    ) -> None:
        super().__init__(timeout=timeout)
        self.devices_per_replica = devices_per_replica
        self.placement, self.balance, self.micro_batches, self.save = (
            placement,
            balance,
            micro_batches,
            save,
        )

    def processes(self, devices: int) -> int:
        """Into how many processes so many devices go.

        Raises:
            UserError: They do not divide.
        """
        count, rest = divmod(devices, max(self.devices_per_replica, 1))  # check() has more to say
        if rest or not count:
            raise UserError(
                f"--devices is {devices}, which does not divide into replicas of {self.devices_per_replica}: "
                f"use --devices {max(devices - rest, self.devices_per_replica)}, or --strategy.devices_per_replica {devices}"
            )
        return count

    @property
    def settings(self) -> dict[str, Any]:
        """What a file says of it besides the placement."""
        return {
            "devices": len(self.parallel_devices or ()),
            "devices_per_replica": self.devices_per_replica,
        }

    @property
    def num_processes(self) -> int:
        """Processes of a node."""
        return self.processes(
            len(self.parallel_devices or [torch.device("cpu")] * self.devices_per_replica)
        )

    @property
    def own_devices(self) -> list[torch.device]:
        """The devices of this process."""
        devices = self.parallel_devices or [torch.device("cpu")] * self.devices_per_replica
        return devices[self.local_rank * self.devices_per_replica :][: self.devices_per_replica]

    def check(self, model: Any) -> None:
        """As for placement.

        Raises:
            UserError: Besides, DDP cannot average what lies on devices of different kinds.
        """
        if self.devices_per_replica < 1:
            raise UserError(
                f"strategy.devices_per_replica is {self.devices_per_replica}; it must be at least 1"
            )
        DDP.check(self, model)
        Placed.check(self, model)
        kinds = {
            self.device(place).type
            for place in (*self.planned(model, self.devices_per_replica).values(), 0)
        }
        if len(kinds) > 1:
            raise UserError(
                f"strategy.placement names devices of the kinds {' and '.join(sorted(kinds))}, between which ddp cannot "
                "average: use one kind, or --strategy placement"
            )

    def determine_ddp_device_ids(self) -> None:
        """None: the model lies on several."""

    def arrangement(self, devices: int) -> str:
        """How so many devices work together, in words."""
        return f"{self.processes(devices)} replicas x {self.devices_per_replica} devices"

    def traffic(self, model: Any, devices: int) -> list[Traffic]:
        """What a process sends in a step, besides sums over the global batch, and what is carried between its devices."""
        return [
            *DDP.traffic(self, model, self.processes(devices)),
            *Placed.traffic(self, model, devices),
        ]
