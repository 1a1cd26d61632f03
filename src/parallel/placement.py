"""Manual model parallelism: one process, several devices, and a place for each part of a model."""

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from src.errors import UserError
from src.parallel.placed import CPU, Placed
from src.parallel.placement_paths import PlacementSetting
from src.planning.auto_placement import Balance
from src.planning.communication import Traffic
from src.runner import ShardableModel


class Placement(Placed, SingleDeviceStrategy):
    """One process over the Trainer's devices.

    What is not placed is on the first of them, with the losses and the balancer.

    Args:
        placement: {path of a part: place of its device among the Trainer's, counted from 0, or a
            device's name}. Paths may be prefixes and hold wildcards (encoder.stages.*,
            heads.income); the most specific one counts. Or auto: stages and heads are placed so
            that the fullest device has the least.
        balance: The load that auto balances: bytes (weights, gradients, optimizer, and what a step
            keeps) or time (of the forward pass).
        micro_batches: Slices of each batch that follow one another through the stages, so that
            several devices are busy at once.
        save: A YAML file to write the placement to, which --config and --trainer read.
    """

    strategy_name = "placement"

    def __init__(
        self,
        placement: PlacementSetting = "auto",
        balance: Balance = "bytes",
        micro_batches: int = 1,
        save: str | None = None,
    ) -> None:
        super().__init__()
        self.placement = placement
        self.balance = balance
        self.micro_batches = micro_batches
        self.save = save

        # the Trainer sets both
        self.parallel_devices: list[torch.device] | None = None
        self.num_nodes = 1

    def check(self, model: ShardableModel) -> None:
        """Finds the place of each part, and writes the placement if that was asked for.

        Raises:
            UserError: There are several nodes, or the placement is wrong, see
                ``check_placement``.
        """
        if self.num_nodes > 1:
            raise UserError(
                f"--num_nodes is {self.num_nodes}, but --strategy placement is one process, on one "
                "node: use --strategy ddp_placement"
            )
        self.check_placement(model)

    @property
    def own_devices(self) -> list[torch.device]:
        """The devices of this process: all."""
        return self.parallel_devices or [CPU]

    @property
    def replicas(self) -> int:
        """The number of shares of a batch: all devices work on the same rows."""
        return 1

    def arrangement(self, devices: int) -> str:
        """Describes in words how a number of devices work together."""
        return f"1 replica x {devices} devices"

    def traffic(self, model: ShardableModel, devices: int) -> list[Traffic]:
        """Estimates what is copied between the devices for a batch."""
        return self.estimate_copies(model, devices)
