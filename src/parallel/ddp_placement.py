"""Data parallelism over replicas that are each placed on several devices."""

from collections.abc import Sequence

import torch

from src.errors import UserError
from src.parallel.ddp import DDP
from src.parallel.placed import Placed
from src.parallel.placement_paths import PlacementSetting
from src.planning.auto_placement import Balance
from src.planning.communication import Traffic
from src.runner import ShardableModel


class DDPPlacement(Placed, DDP):
    """One process for several devices, over which it places its copy of the model.

    DDP averages the gradients of the copies. ``--devices`` counts all devices of a node. Under
    torchrun or srun, which start the processes, it follows from the number of processes.

    Args:
        devices_per_replica: Number of devices of a copy.
        placement: {path of a part: place of its device among those of a copy, counted from 0}, or
            auto, as for placement.
        balance: The load that auto balances: bytes or time.
        micro_batches: Slices of each copy's rows that follow one another through the stages.
        save: A YAML file to write the placement to, which --config and --trainer read.
        timeout: Seconds that a process waits for the others before it gives up.
    """

    strategy_name = "ddp_placement"

    def __init__(
        self,
        devices_per_replica: int = 2,
        placement: PlacementSetting = "auto",
        balance: Balance = "bytes",
        micro_batches: int = 1,
        save: str | None = None,
        timeout: float = 600.0,
    ) -> None:
        super().__init__(timeout=timeout)
        self.devices_per_replica = devices_per_replica
        self.placement = placement
        self.balance = balance
        self.micro_batches = micro_batches
        self.save = save

    def count_processes(self, devices: int) -> int:
        """Returns the number of processes of a number of devices.

        Raises:
            UserError: The devices do not divide into replicas.
        """
        # check() has more to say about a size below 1
        size = max(self.devices_per_replica, 1)
        count, rest = divmod(devices, size)
        if rest or not count:
            raise UserError(
                f"--devices is {devices}, which does not divide into replicas of "
                f"{self.devices_per_replica}: use --devices "
                f"{max(devices - rest, self.devices_per_replica)}, or "
                f"--strategy.devices_per_replica {devices}"
            )
        return count

    @property
    def settings(self) -> dict[str, int]:
        """The settings besides the placement that a file needs."""
        return {
            "devices": len(self.parallel_devices or ()),
            "devices_per_replica": self.devices_per_replica,
        }

    @property
    def num_processes(self) -> int:
        """The number of processes of a node."""
        return self.count_processes(len(self._devices_or_one_replica()))

    @property
    def own_devices(self) -> list[torch.device]:
        """The devices of this process."""
        first = self.local_rank * self.devices_per_replica
        return list(self._devices_or_one_replica()[first : first + self.devices_per_replica])

    def _devices_or_one_replica(self) -> Sequence[torch.device]:
        """Returns the devices of a node; before the Trainer sets them, CPUs for one replica."""
        return self.parallel_devices or [torch.device("cpu")] * self.devices_per_replica

    def check(self, model: ShardableModel) -> None:
        """Checks the placement, writes it if that was asked for, and checks that DDP can average.

        Raises:
            UserError: A setting does not fit, the placement is wrong, see placement, or it names
                devices of different kinds.
        """
        if self.devices_per_replica < 1:
            raise UserError(
                f"strategy.devices_per_replica is {self.devices_per_replica}; it must be at least 1"
            )
        DDP.check(self, model)
        self.check_placement(model)

        places = self.resolve_placement(model, self.devices_per_replica)
        kinds = {self.device(place).type for place in (*places.values(), 0)}
        if len(kinds) > 1:
            raise UserError(
                f"strategy.placement names devices of the kinds {' and '.join(sorted(kinds))}, "
                "between which ddp cannot average: use one kind, or --strategy placement"
            )

    def determine_ddp_device_ids(self) -> None:
        """Returns None, as DDP wants it for a model that is on several devices."""

    def arrangement(self, devices: int) -> str:
        """Describes in words how a number of devices, over all nodes, work together."""
        return f"{self.count_processes(devices)} replicas x {self.devices_per_replica} devices"

    def traffic(self, model: ShardableModel, devices: int) -> list[Traffic]:
        """Estimates what a process sends for a batch, and what its own devices copy."""
        between_processes = DDP.traffic(self, model, self.count_processes(devices))
        return [*between_processes, *self.estimate_copies(model, devices)]
