"""The base classes of our strategies: what each one says and does besides Lightning's part."""

from abc import abstractmethod
from collections.abc import Iterable
from datetime import timedelta
from functools import cached_property
from typing import cast

import lightning as L
import torch.distributed as dist
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.strategy import Strategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from src import collectives
from src.errors import UserError
from src.launch.launcher import Launcher
from src.planning.communication import Traffic
from src.runner import Runner, ShardableModel

# a process group, None for all processes, and the tensors that all of the group hold
Replicated = tuple[dist.ProcessGroup | None, dict[str, Tensor]]


class MultiTaskStrategy(Strategy):
    """A strategy that says before any process starts whether and how it will run a model.

    Attributes:
        strategy_name: Its name on the command line.
        rows: Rows of a step that each replica reads, where they are known before the run.
        starts: Whether it will run, so that its devices must be here.
        timeout: How long a process waits for the others; None where there are no others.
    """

    strategy_name: str
    rows: int | None = None
    starts: bool = True
    timeout: timedelta | None = None

    @property
    @abstractmethod
    def replicas(self) -> int:
        """The number of shares into which the global batch is cut."""

    @abstractmethod
    def check(self, model: ShardableModel) -> None:
        """Checks a model that has been built, on the CPU, where its network still is whole.

        Raises:
            UserError: This strategy cannot run it; the message names the way out.
        """

    @abstractmethod
    def arrangement(self, devices: int) -> str:
        """Describes in words how a number of devices, over all nodes, work together."""

    @abstractmethod
    def holds(self, model: ShardableModel, devices: int) -> list[dict[str, float]]:
        """Returns for each device {part: share of its weights there}."""

    @abstractmethod
    def traffic(self, model: ShardableModel, devices: int) -> list[Traffic]:
        """Estimates what a device sends for a batch, besides sums over the global batch."""

    def elsewhere(self, model: ShardableModel, devices: int) -> dict[str, dict[str, float]]:
        """Returns {name of a device outside the Trainer's: {part: copies of it there}}."""
        return {}

    def replicated_tensors(self) -> list[Replicated]:
        """Returns the tensors that several processes hold, and must hold alike."""
        assert self.lightning_module is not None
        return [(None, dict(self.lightning_module.named_parameters()))]

    @property
    def worker_timeout(self) -> float:
        """Seconds to wait for a process that prepares batches.

        It is less than the wait for other ranks, so that the run ends with the error that names
        the worker, and not with that of a rank that has waited for this one.
        """
        return 600.0 if self.timeout is None else 0.9 * self.timeout.total_seconds()

    @property
    def network(self) -> ShardableModel:
        """The model that runs, as strategies see it."""
        assert self.lightning_module is not None
        return cast(ShardableModel, self.lightning_module)


class ProcessStrategy(MultiTaskStrategy, DDPStrategy):
    """A strategy of several processes, which our launcher starts.

    Args:
        timeout: Seconds that a process waits for the others before it gives up.
    """

    def __init__(self, timeout: float = 600.0) -> None:
        self.timeout = timedelta(seconds=timeout)
        super().__init__(timeout=self.timeout)

    @cached_property
    def launcher(self) -> Launcher:
        """Starts the processes of this machine."""
        assert self.cluster_environment is not None
        return Launcher(self.cluster_environment, self.num_processes, self.num_nodes)

    def check(self, model: ShardableModel) -> None:
        """Checks the settings that all strategies of several processes have.

        Raises:
            UserError: Processes would not wait for one another at all.
        """
        assert self.timeout is not None
        if self.timeout <= timedelta(0):
            raise UserError(
                f"strategy.timeout is {self.timeout.total_seconds()}; it must be more than 0 "
                "seconds"
            )


class SplitModelStrategy(ProcessStrategy):
    """A strategy that spreads one model over processes; none of them holds all of it."""

    @abstractmethod
    def find_replica_group(self) -> dist.ProcessGroup:
        """Returns the group of one process of each replica, this one among them."""

    @abstractmethod
    def split_model(self) -> Runner:
        """Leaves this process its share of the model, once, and returns what runs the network."""

    def setup_environment(self) -> None:
        """Starts the process group.

        Raises:
            UserError: A callback needs a whole model.
        """
        assert self.lightning_module is not None
        callbacks = self.lightning_module.trainer.callbacks  # type: ignore[attr-defined]
        refuse_second_models(callbacks, self.strategy_name)
        super().setup_environment()
        collectives.use(self.find_replica_group())

    def setup(self, trainer: L.Trainer) -> None:
        """Splits the model; unlike Lightning's DDP, no wrapper is put around it."""
        assert self.accelerator is not None
        assert self.lightning_module is not None
        self.accelerator.setup(trainer)
        self.model = self.precision_plugin.convert_module(self.lightning_module)
        self.network.runner = self.split_model()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def teardown(self) -> None:
        """Gives the model its own runner back."""
        self.release_model()
        super().teardown()

    def release_model(self) -> None:
        """Takes the runner from the model, and sums over the batch are over all processes again."""
        if self.lightning_module is not None:
            self.network.runner = Runner()
        collectives.use(None)


def refuse_second_models(callbacks: Iterable[L.Callback], strategy: str) -> None:
    """Refuses callbacks that keep a whole model besides the one that is trained.

    Raises:
        UserError: There is one, and a process of this strategy has a part.
    """
    for callback in callbacks:
        if isinstance(callback, WeightAveraging):
            name = type(callback).__name__
            raise UserError(
                f"{name} keeps a second whole model, but a process has only a part of it under "
                f"{strategy}: use --strategy ddp"
            )
