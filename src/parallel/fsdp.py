"""Fully sharded data parallelism: parameters, gradients and optimizer states in shards."""

import secrets
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from src.checkpoint import load_checkpoint, save_folder
from src.errors import UserError
from src.parallel.dtensor import count_holders, local, reshard
from src.parallel.fsdp_traffic import (
    FSDPSettings,
    estimate_balancer,
    estimate_shards,
    estimate_splits,
)
from src.parallel.sharded_runner import ShardedRunner
from src.parallel.sharded_state import (
    CheckpointKind,
    collect_state,
    raise_everywhere,
    shard_optimizer_state,
    shard_state_dict,
)
from src.parallel.strategy import Replicated, SplitModelStrategy
from src.parallel.tensor_parallel import check_splits, make_split_shape, split_layers
from src.planning.communication import Traffic, count_in_shard
from src.planning.measure import collect_tensors
from src.runner import ShardableModel

# nothing of ours changes what a module has returned in place, which alone would be wrong
warnings.filterwarnings("ignore", message=".*returned a view tensor.*")

TypeName = Literal["float32", "bfloat16"]
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class FSDP(SplitModelStrategy):
    """FSDP2 on CPUs as on GPUs, and tensor parallelism within it.

    Every process holds a shard of each parameter, of its gradient and of its optimizer state (Zhao
    et al., "PyTorch FSDP", VLDB 2023). Modules that run by themselves are sharded by themselves:
    the stages of encoders, the rest of the sharing architecture, and the heads. Every process holds
    all other parameters (numbers that a balancer learns), and their gradients are averaged.
    Checkpoints are like those of one device.

    Args:
        tensor_parallel_size: Devices that compute one layer together, where the encoder says how
            its layers are cut (Shoeybi et al., "Megatron-LM", arXiv 1909.08053); the others share
            the batch.
        reshard_after_forward: Let go of a stage's whole parameters after its forward pass, and
            fetch them again in the backward pass: less memory for more traffic.
        parameter_type: In which precision the forward and backward pass run but for the heads;
            null: in that of the weights.
        reduce_type: In which precision gradients are summed over processes; null: in that of the
            passes.
        cpu_offload: Keep shards, gradients and optimizer states in the memory of the CPU; for GPUs.
        checkpoint: file: one, as on one device; folder: one file for each process, written at the
            same time.
        timeout: Seconds that a process waits for the others before it gives up.
    """

    strategy_name = "fsdp"

    def __init__(
        self,
        tensor_parallel_size: int = 1,
        reshard_after_forward: bool = True,
        parameter_type: TypeName | None = None,
        reduce_type: TypeName | None = None,
        cpu_offload: bool = False,
        checkpoint: CheckpointKind = "file",
        timeout: float = 600.0,
    ) -> None:
        super().__init__(timeout)
        self.tensor_parallel_size = tensor_parallel_size
        self.reshard_after_forward = reshard_after_forward
        self.parameter_type = parameter_type
        self.reduce_type = reduce_type
        self.cpu_offload = cpu_offload
        self.checkpoint = checkpoint
        self.mesh: DeviceMesh | None = None
        # of the set of parameters that train
        self._version = 0

    # -- what is known before any process starts ---------------------------------------------------
    @property
    def replicas(self) -> int:
        """The number of processes that read rows of their own."""
        return self._count_shards(self.num_nodes * self.num_processes)

    def _count_shards(self, devices: int) -> int:
        """Returns the number of shards of each parameter on a number of devices."""
        # check() has more to say about sizes that do not fit
        return max(devices // max(self.tensor_parallel_size, 1), 1)

    def check(self, model: ShardableModel) -> None:
        """Checks the settings, and that shards give the balancer what it needs.

        Raises:
            UserError: Devices do not divide, a balancer needs what shards cannot give, or the
                encoder cannot be cut in its layers.
        """
        super().check(model)
        self._check_tensor_parallel_size()
        if self.cpu_offload and self.root_device.type == "cpu":
            raise UserError(
                "strategy.cpu_offload moves shards from GPUs to the CPU, where this run is "
                "already: leave it out"
            )
        if self.precision_plugin.precision == "16-mixed":
            raise UserError(
                "--precision 16-mixed does not go with fsdp, whose shards would each be scaled by "
                "themselves: use bf16-mixed"
            )
        if model.balancer.needs_lookahead:
            raise UserError(
                f"{type(model.balancer).__name__} moves whole parameters there and back in each "
                "step, but a process has only shards of them under fsdp: use --strategy ddp"
            )
        if self.tensor_parallel_size > 1:
            check_splits(model, self.tensor_parallel_size)

    def _check_tensor_parallel_size(self) -> None:
        """Checks that the devices divide into groups that compute layers together."""
        size = self.tensor_parallel_size
        devices = self.num_nodes * self.num_processes
        if size < 1:
            raise UserError(f"strategy.tensor_parallel_size is {size}; it must be at least 1")
        if devices % size:
            fitting = f"--devices {size}"
            if devices > size:
                fitting = f"--devices {devices // size * size} or {(devices // size + 1) * size}"
            raise UserError(
                f"strategy.tensor_parallel_size is {size}, which does not divide the {devices} "
                f"devices: use {fitting}"
            )

    def arrangement(self, devices: int) -> str:
        """Describes in words how a number of devices, over all nodes, work together."""
        data = f"data {self._count_shards(devices)}"
        if self.tensor_parallel_size == 1:
            return f"{data}, each with 1/{devices} of the parameters"
        return f"{data} x tensor {self.tensor_parallel_size}"

    def holds(self, model: ShardableModel, devices: int) -> list[dict[str, float]]:
        """Returns for each device {part: share of its weights there}."""
        shards = self._count_shards(devices)
        shape_of = make_split_shape(model.sharing, self.tensor_parallel_size)
        found: list[dict[str, float]] = [{} for _ in range(shards)]
        for part, (weights, _) in collect_tensors(model).items():
            total = sum(p.numel() for p in weights)
            for k, held in enumerate(found):
                # every process holds all of the balancer
                held[part] = 1.0
                if total and part != "balancer":
                    own = sum(count_in_shard(shape_of(p), shards, k) for p in weights)
                    held[part] = own / total
        return [held for held in found for _ in range(self.tensor_parallel_size)]

    def traffic(self, model: ShardableModel, devices: int) -> list[Traffic]:
        """Estimates what a device sends for a batch, besides sums over the global batch."""
        compute_type = self._compute_type()
        reduce_type = self._reduce_type()
        settings = FSDPSettings(
            shards=self._count_shards(devices),
            keeps_weights=not self.reshard_after_forward,
            compute_itemsize=compute_type.itemsize if compute_type else None,
            reduce_itemsize=reduce_type.itemsize if reduce_type else None,
            mixed=self.precision_plugin.precision == "bf16-mixed",
        )
        found: list[Traffic] = []
        if settings.shards > 1:
            shape_of = make_split_shape(model.sharing, self.tensor_parallel_size)
            found += estimate_shards(model, settings, shape_of)
        if self.tensor_parallel_size > 1:
            found += estimate_splits(model, settings)
        if devices > 1:
            found += estimate_balancer(model)
        return found

    def _compute_type(self) -> torch.dtype | None:
        """Returns the type of the forward and backward pass; None for that of the weights."""
        return TYPES[self.parameter_type] if self.parameter_type else None

    def _reduce_type(self) -> torch.dtype | None:
        """Returns the type in which gradients are summed; None for that of the passes."""
        return TYPES[self.reduce_type] if self.reduce_type else None

    # -- processes and modules ---------------------------------------------------------------------
    def find_replica_group(self) -> dist.ProcessGroup:
        """Arranges the processes, data x tensor, and returns the group that shares the batch."""
        shape = (self.world_size // self.tensor_parallel_size, self.tensor_parallel_size)
        self.mesh = init_device_mesh(
            self.root_device.type, shape, mesh_dim_names=("data", "tensor")
        )
        return self.mesh["data"].get_group()

    def split_model(self) -> ShardedRunner:
        """Cuts the model into shards, once, and returns what runs the network."""
        if not any(isinstance(module, FSDPModule) for module in self.network.modules()):
            self.shard_model(self.network)
        # FSDP moves offloaded shards itself
        if not self.cpu_offload:
            self.model_to_device()
        self.barrier()
        return ShardedRunner()

    def shard_model(self, model: ShardableModel) -> None:
        """Splits layers over the devices of the tensor dimension, and shards over the others."""
        assert self.mesh is not None
        mesh = self.mesh["data"]
        if self.tensor_parallel_size > 1:
            split_layers(model.sharing, self.mesh["tensor"])

        reshards = self.reshard_after_forward
        precision = MixedPrecisionPolicy(self._compute_type(), self._reduce_type())
        offload = CPUOffloadPolicy() if self.cpu_offload else OffloadPolicy()
        sharing = model.get_submodule("sharing")
        stages = [part for path, part in model.parts().items() if not path.startswith("heads.")]
        # what is sharded later has the parameters that are left
        for module in (*stages, sharing):
            fully_shard(
                module,
                mesh=mesh,
                reshard_after_forward=reshards,
                mp_policy=precision,
                offload_policy=offload,
            )

        # the gradients of tasks would drown in less than the precision of the weights
        heads = model.get_submodule("heads")
        fully_shard(
            heads,
            mesh=mesh,
            reshard_after_forward=reshards,
            mp_policy=MixedPrecisionPolicy(None, self._reduce_type()),
            offload_policy=offload,
        )
        # these methods read weights as a forward pass does
        register_fsdp_forward_method(sharing, "penalty")
        register_fsdp_forward_method(heads, "record")
        for p in model.parameters():
            if p.requires_grad and not isinstance(p, DTensor):
                p.register_post_accumulate_grad_hook(average_gradient)

    def on_train_start(self) -> None:
        """Lets the step note how the parameters are laid out in shards."""
        assert self.lightning_module is not None
        reshard(self.lightning_module)
        _ = self.network.step.jacobian

    def on_train_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Looks whether other parameters train by now."""
        if self.network.freezing.version != self._version:
            self.follow_thaw()

    def follow_thaw(self) -> None:
        """Lets the shards take note of what trains by now: FSDP asks them in each step."""
        assert self.lightning_module is not None
        reshard(self.lightning_module)
        self._version = self.network.freezing.version

    def on_validation_start(self) -> None:
        """Sends the first process's buffers to all, so that they evaluate alike, as under ddp."""
        for buffer in self.network.buffers():
            if buffer.device.type == self.root_device.type:
                dist.broadcast(buffer, 0)

    def on_test_start(self) -> None:
        """Sends the first process's buffers to all."""
        self.on_validation_start()

    def on_predict_start(self) -> None:
        """Sends the first process's buffers to all."""
        self.on_validation_start()

    def replicated_tensors(self) -> list[Replicated]:
        """Returns the tensors that several processes hold, and must hold alike.

        All processes hold what is in no shard. Devices that compute layers together may hold the
        same shards.
        """
        assert self.mesh is not None
        assert self.lightning_module is not None
        reshard(self.lightning_module)
        everywhere: dict[str, Tensor] = {}
        twice: dict[str, Tensor] = {}
        for name, p in self.lightning_module.named_parameters():
            if not isinstance(p, DTensor):
                everywhere[name] = p.detach()
            elif count_holders(p) > 1:
                twice[name] = local(p.detach())
        return [(None, everywhere), (self.mesh["tensor"].get_group(), twice)]

    # -- checkpoints -------------------------------------------------------------------------------
    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Whether weights are loaded into shards, and not into the whole model."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Returns the weights for a checkpoint, see :func:`collect_state`."""
        assert self.lightning_module is not None
        return self._collect(self.lightning_module.state_dict())

    def _collect(self, tree: dict[str, Any]) -> dict[str, Any]:
        assert self.mesh is not None
        first_copy = self.mesh["tensor"].get_local_rank() == 0
        return cast(dict[str, Any], collect_state(tree, self.checkpoint, first_copy))

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        filepath: str | Path,
        storage_options: object = None,
    ) -> None:
        """Writes a file on the first process, or a folder on all."""
        if self.checkpoint == "file":
            super().save_checkpoint(checkpoint, filepath, storage_options)
            return
        # the first process decides on the path, and on the names of this save's files
        path, name = self.broadcast(
            (str(filepath), f"{checkpoint['global_step']}-{secrets.token_hex(4)}")
        )
        save_folder(
            Path(path), checkpoint, name, self.global_rank, self.world_size, raise_everywhere
        )

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Opens a file or a folder, whose tensors are put together one by one as they are cut."""
        checkpoint: dict[str, Any] = load_checkpoint(checkpoint_path, mmap=True, whole=False)
        return checkpoint

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Loads this process's shards of whole weights."""
        assert self.lightning_module is not None
        ours = self.lightning_module.state_dict()
        state = shard_state_dict(checkpoint["state_dict"], ours)
        self.lightning_module.load_state_dict(state, strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Returns an optimizer's state for a checkpoint, see :func:`collect_state`."""
        plain = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        return self._collect(plain.state_dict())

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Loads this process's shards of the optimizers' states."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(shard_optimizer_state(optimizer, saved))


def average_gradient(p: Tensor) -> None:
    """Averages the gradient of a parameter that every process holds, in place."""
    assert p.grad is not None
    dist.all_reduce(p.grad)
    p.grad.div_(dist.get_world_size())
