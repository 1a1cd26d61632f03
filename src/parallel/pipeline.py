"""Pipeline parallelism: each process runs some stages of one encoder, on slices of the batch."""

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import Optimizer

from src.parallel.device_transfer import move_modules, set_device
from src.parallel.pipeline_checks import check_cut, check_model, check_slices, list_stages
from src.parallel.pipeline_interfaces import STAGE, PipelineRank
from src.parallel.pipeline_runner import PipelineRunner, ScheduleName
from src.parallel.pipeline_state import (
    gather_entries,
    gather_optimizer_state,
    move_optimizer,
    select_own_state,
)
from src.parallel.stages import probe_stages
from src.parallel.strategy import Replicated, SplitModelStrategy
from src.planning.auto_placement import distribute
from src.planning.communication import ACTIVATIONS, Traffic
from src.planning.tensors import count_bytes
from src.runner import ShardableModel

META = torch.device("meta")
CPU = torch.device("cpu")


class Pipeline(SplitModelStrategy):
    """Process r runs the r-th run of stages, and the last one the heads too.

    All read the same batch, slice by slice. In a step every process works on another slice, and
    sends its output to the next one, then gradients back. A process has only the weights of its own
    stages in memory, with their gradients and optimizer states. Losses, balancer and metrics are
    the same on all processes, and checkpoints are like those of one device.

    Args:
        micro_batches: The number of slices of a step's rows. Of M slices on R processes a share (R
            - 1) / (M + R - 1) of the time is spent waiting.
        schedule: gpipe: all slices forward, then all backward (Huang et al., "GPipe", NeurIPS
            2019). 1f1b: one backward as soon as one forward is through, so that a process keeps
            what at most R slices need (Narayanan et al., "PipeDream", SOSP 2019); for balancers
            whose weights are known before the losses.
        cut: How many stages each process has; null: so that the largest share of the weights is
            smallest.
        timeout: Seconds that a process waits for the others before it gives up.
    """

    strategy_name = "pipeline"
    replicas = 1  # every process reads all rows

    def __init__(
        self,
        micro_batches: int = 4,
        schedule: ScheduleName = "gpipe",
        cut: list[int] | None = None,
        timeout: float = 600.0,
    ) -> None:
        super().__init__(timeout)
        self.micro_batches = micro_batches
        self.schedule = schedule
        self.cut = cut

        # the group of this process alone, and that of all processes for objects on CPUs
        self._alone: dist.ProcessGroup | None = None
        self._hosts: dist.ProcessGroup | None = None
        # keys of random layers that each stage draws
        self._draws: list[int] | None = None
        # the paths of the parts that this process runs
        self._own: list[str] = []

    # -- what is known before any process starts ---------------------------------------------------
    def check(self, model: ShardableModel) -> None:
        """Checks that the model is a chain of stages, which a schedule can train.

        Raises:
            UserError: It is none, the balancer needs what slices cannot give, or a setting does not
                fit.
        """
        super().check(model)
        check_slices(self.micro_batches, self.rows)
        check_model(model, self.schedule, self.precision_plugin.precision)
        check_cut(model, self.cut, self._count_ranks())
        self._draws, _ = probe_stages(model, list_stages(model))

    def _count_ranks(self) -> int:
        """Returns the number of processes, over all nodes."""
        return max(self.num_nodes * self.num_processes, 1)

    def count_stages(self, model: ShardableModel, ranks: int) -> list[int]:
        """Returns the number of stages of each process.

        Args:
            model: The model, built.
            ranks: The number of processes.

        Raises:
            UserError: There are too few stages, or the cut does not fit them.
        """
        check_cut(model, self.cut, ranks)
        if self.cut is not None:
            return self.cut
        sizes = [count_bytes(stage.parameters()) for stage in list_stages(model)]
        sizes[-1] += count_bytes(model.heads.parameters())
        places, _ = distribute(sizes, [], ranks, at_least=1)
        return [places.count(rank) for rank in range(ranks)]

    def assign_parts(self, model: ShardableModel, ranks: int) -> list[list[str]]:
        """Returns the paths of the parts of each process."""
        counts = self.count_stages(model, ranks)
        stages = [path for path in model.parts() if path.startswith(STAGE)]
        others = [path for path in model.parts() if not path.startswith(STAGE)]
        found = []
        for end, count in zip(accumulate(counts), counts, strict=True):
            found.append(stages[end - count : end])
        found[-1] += others
        return found

    def arrangement(self, devices: int) -> str:
        """Describes in words how a number of devices, over all nodes, work together."""
        return f"stages in {devices} runs, {self.micro_batches} slices"

    def holds(self, model: ShardableModel, devices: int) -> list[dict[str, float]]:
        """Returns for each device {part: share of its weights there}."""
        of_ranks = self.assign_parts(model, devices)
        return [{**dict.fromkeys(paths, 1.0), "balancer": 1.0} for paths in of_ranks]

    def traffic(self, model: ShardableModel, devices: int) -> list[Traffic]:
        """Estimates what a device sends or receives for a batch over its widest interface.

        Where sequences differ in length, they are taken to have five tokens.
        """
        if devices == 1:
            return []
        _, interfaces = probe_stages(model, list_stages(model))
        ends = list(accumulate(self.count_stages(model, devices)))[:-1]
        widest = max(interfaces[end - 1].empty(1, META).nbytes for end in ends)

        # forward, backward, and forward once more for the losses after the step
        passes = 3 if model.balancer.needs_reevaluation else 2
        messages = passes * self.micro_batches
        return [
            Traffic(ACTIVATIONS, messages, passes * widest, each_row=True),
            Traffic("sums of losses", 1, len(model.names) * 8),
        ]

    # -- processes and modules ---------------------------------------------------------------------
    def setup_environment(self) -> None:
        """Starts the process group.

        Raises:
            UserError: There are fewer rows than slices, or a callback that needs a whole model.
        """
        assert self.lightning_module is not None
        trainer = self.lightning_module.trainer
        data = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.state.fn == TrainerFn.FITTING:
            check_slices(self.micro_batches, getattr(data, "batch_size", None))
        super().setup_environment()

    def find_replica_group(self) -> dist.ProcessGroup:
        """Returns the group of this process alone, since every process reads all rows."""
        if self._alone is None:
            # every process must take part in the making of every group
            groups = [dist.new_group([rank]) for rank in range(self.world_size)]
            self._alone = groups[self.global_rank]
            self._hosts = dist.new_group(backend="gloo")
        assert self._alone is not None
        return self._alone

    def split_model(self) -> PipelineRunner:
        """Lets go of what other processes run, once, and returns what runs the network."""
        model = self.network
        if self._draws is None:
            self.check(model)
        if not self._own:
            self._own = self.assign_parts(model, self.world_size)[self.global_rank]
        self._move_own_parts(self.root_device)

        assert self._draws is not None
        assert self._hosts is not None
        first = int(self._own[0].removeprefix(STAGE))
        place = PipelineRank(
            rank=self.global_rank,
            ranks=self.world_size,
            device=self.root_device,
            hosts=self._hosts,
            paths=self._own,
            draws_below=sum(self._draws[:first]),
        )
        return PipelineRunner(
            place,
            self.micro_batches,
            self.schedule,
            self.precision_plugin.forward_context,
            model.balancer.parameters,
        )

    def _move_own_parts(self, device: torch.device) -> None:
        """Moves what this process runs to a device; the rest of the model has no memory here."""
        assert self.lightning_module is not None
        absent = {
            part: META for path, part in self.network.parts().items() if path not in self._own
        }
        move_modules(self.lightning_module, absent, device)
        set_device(self.lightning_module, device)

    def teardown(self) -> None:
        """Leaves what this process has on the CPU.

        Lightning's way would move the whole model, and a part without memory cannot be moved.
        """
        if self._own and self.lightning_module is not None:
            self._move_own_parts(CPU)
        self.release_model()
        for optimizer in self.optimizers:
            move_optimizer(optimizer, CPU)
        assert self.accelerator is not None
        assert self.cluster_environment is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()
        self.checkpoint_io.teardown()

    def predict_step(self, *args: object, **kwargs: object) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns row numbers and outputs; all processes have the same rows, the first's count."""
        ids, outputs = super().predict_step(*args, **kwargs)
        if self.is_global_zero:
            return ids, outputs
        return ids[:0], {name: output[:0] for name, output in outputs.items()}

    def replicated_tensors(self) -> list[Replicated]:
        """Returns the floating tensors of the balancer, which all processes hold alike."""
        balancer = self.network.balancer
        tensors: list[tuple[str, Tensor]] = [
            *balancer.named_parameters(),
            *balancer.named_buffers(),
        ]
        return [(None, {f"balancer.{name}": x for name, x in tensors if x.is_floating_point()})]

    # -- checkpoints -------------------------------------------------------------------------------
    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Returns the whole model on the first process; nothing on the others."""
        assert self.lightning_module is not None
        assert self._hosts is not None
        state = self.lightning_module.state_dict()
        mine = {name: value.cpu() for name, value in state.items() if not value.is_meta}
        whole = gather_entries(mine, self._hosts)
        # the order is that of one device, and so is the dictionary itself
        for name in state:
            state[name] = whole.get(name)
        return state if self.is_global_zero else {}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Loads the weights of this process."""
        assert self.lightning_module is not None
        state = dict(checkpoint["state_dict"])
        for name, value in self.lightning_module.state_dict().items():
            if value.is_meta and name in state:
                state[name] = state[name].to(META)
        self.lightning_module.load_state_dict(state, strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Returns the whole state on the first process; nothing on the others."""
        assert self._hosts is not None
        return gather_optimizer_state(optimizer, self._hosts)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Loads the optimizers' states of this process's weights."""
        pairs = zip(self.optimizers, checkpoint["optimizer_states"], strict=True)
        states = [select_own_state(optimizer, saved) for optimizer, saved in pairs]
        super().load_optimizer_state_dict({"optimizer_states": states})
