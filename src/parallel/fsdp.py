"""Fully sharded data parallelism: every process holds a part of each parameter, of its gradient and of its optimizer state."""

import secrets
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)
from torch.optim import Optimizer

from src import collectives
from src.checkpoint import Part, Parts, exchanged, load_checkpoint, save_folder
from src.errors import UserError
from src.launch.launcher import Launches
from src.parallel.dtensor import (
    DTensorShards,
    clip_gradients,
    count_holders,
    full_tensor,
    gather_weights,
    local,
    own_slice,
    reshard,
    shard_like,
)
from src.parallel.strategy import WorkerTimeout, refuse_second_models, refuse_timeout
from src.planning.communication import (
    Traffic,
    count_in_shard,
    estimate_fsdp,
    estimate_tensor_parallel,
)
from src.planning.measure import collect_tensors
from src.runner import Runner, ShardableModel

# nothing of ours changes what a module has returned in place, which alone would be wrong
warnings.filterwarnings("ignore", message=".*returned a view tensor.*")

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class FSDP(WorkerTimeout, Launches, DDPStrategy):
    """FSDP2 (Zhao et al., "PyTorch FSDP", VLDB 2023), on CPUs as on GPUs, and tensor parallelism within it.

    What runs by itself is sharded by itself: the stages of encoders, the rest of the sharing
    architecture, and the heads. What belongs to none of these (numbers that a balancer learns)
    every process holds, and its gradients are averaged. Checkpoints are those that one device
    writes.

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
        parameter_type: Literal["float32", "bfloat16"] | None = None,
        reduce_type: Literal["float32", "bfloat16"] | None = None,
        cpu_offload: bool = False,
        checkpoint: Literal["file", "folder"] = "file",
        timeout: float = 600.0,
    ) -> None:
        super().__init__(timeout=timedelta(seconds=timeout))
        self.tensor_parallel_size, self.reshard_after_forward = (
            tensor_parallel_size,
            reshard_after_forward,
        )
        self.parameter_type, self.reduce_type = parameter_type, reduce_type
        self.cpu_offload, self.checkpoint = cpu_offload, checkpoint
        self.mesh: DeviceMesh | None = None

    # -- what is known before any process starts ---------------------------------------------------
    @property
    def replicas(self) -> int:
        """Processes that read rows of their own."""
        return self._shards(self.num_nodes * self.num_processes)

    def _shards(self, devices: int) -> int:
        """Into how many each parameter is cut on so many devices; check() has more to say of sizes that do not fit."""
        return max(devices // max(self.tensor_parallel_size, 1), 1)

    def check(self, model: Any) -> None:
        """Looks at the model.

        Raises:
            UserError: Devices do not divide, a balancer needs what shards cannot give, or the
                encoder cannot be cut in its layers.
        """
        refuse_timeout(self._timeout)
        devices, size = self.num_nodes * self.num_processes, self.tensor_parallel_size
        if size < 1:
            raise UserError(f"strategy.tensor_parallel_size is {size}; it must be at least 1")
        if devices % size:
            fitting = (
                f"--devices {devices // size * size} or {(devices // size + 1) * size}"
                if devices > size
                else f"--devices {size}"
            )
            raise UserError(
                f"strategy.tensor_parallel_size is {size}, which does not divide the {devices} devices: use {fitting}"
            )
        if self.cpu_offload and self.root_device.type == "cpu":
            raise UserError(
                "strategy.cpu_offload moves shards from GPUs to the CPU, where this run is already: leave it out"
            )
        if self.precision_plugin.precision == "16-mixed":
            raise UserError(
                "--precision 16-mixed does not go with fsdp, whose shards would each be scaled by themselves: use bf16-mixed"
            )
        if model.balancer.needs_lookahead:
            raise UserError(
                f"{type(model.balancer).__name__} moves whole parameters there and back in each step, of which a process has parts "
                "under fsdp: use --strategy ddp"
            )
        if size > 1:
            check_splits(model.sharing, size)

    def arrangement(self, devices: int) -> str:
        """How so many devices work together, in words."""
        data = f"data {self._shards(devices)}"
        if self.tensor_parallel_size == 1:
            return f"{data}, each with 1/{devices} of the parameters"
        return f"{data} x tensor {self.tensor_parallel_size}"

    def holds(self, model: Any, devices: int) -> list[dict[str, float]]:
        """What share of each part's parameters lies on each device."""
        shards, shape = self._shards(devices), self._shapes(model)
        found: list[dict[str, float]] = [{} for _ in range(shards)]
        for part, (weights, _) in collect_tensors(model).items():
            for k, held in enumerate(found):
                total = sum(p.numel() for p in weights)
                held[part] = (
                    sum(count_in_shard(shape(p), shards, k) for p in weights) / total
                    if total and part != "balancer"
                    else 1.0
                )
        return [held for held in found for _ in range(self.tensor_parallel_size)]

    def traffic(self, model: Any, devices: int) -> list[Traffic]:
        """What each device sends in a step, besides sums over the global batch: each unit is fetched for each pass through it."""
        found, shards = [], self._shards(devices)
        passes = (
            len(model.tasks) + bool(model.shared_and_private()[1])
            if model.balancer.level == "parameters"
            else 1
        )
        if shards > 1:
            found += self._fetched_and_summed(model, shards, passes)
        if self.tensor_parallel_size > 1:
            size = TYPES[self.parameter_type].itemsize if self.parameter_type else None
            again = int(getattr(model.balancer, "needs_reevaluation", False))
            with torch.autocast(
                "cpu", torch.bfloat16, enabled=self.precision_plugin.precision == "bf16-mixed"
            ):
                found += estimate_tensor_parallel(
                    model, split_linears(model.sharing), passes, again, size
                )
        learnt = [p for p in model.balancer.parameters() if p.requires_grad]
        if learnt and devices > 1:
            found.append(
                Traffic(
                    "what the balancer learns",
                    len(learnt),
                    sum(p.numel() * p.element_size() for p in learnt),
                )
            )
        return found

    def _fetched_and_summed(self, model: Any, shards: int, passes: int) -> list[Traffic]:
        """What goes between those that have other shards, in so many backward passes."""
        parts, level = collect_tensors(model), model.balancer.level
        stages = [
            weights
            for part, (weights, _) in parts.items()
            if part.startswith("sharing") and weights
        ]
        heads = [
            p for part, (weights, _) in parts.items() if part.startswith("heads") for p in weights
        ]
        kept = (
            not self.reshard_after_forward
        )  # what the forward pass has fetched is there for the first backward pass
        runs_in, sums_in = (
            TYPES[name].itemsize if name else None
            for name in (self.parameter_type, self.reduce_type)
        )
        shapes = self._shapes(model)
        of_stages = estimate_fsdp(
            [(unit, 1 + passes - kept, passes) for unit in stages],
            shards,
            runs_in,
            sums_in or runs_in,
            shapes,
        )
        # gradients of tasks are taken of the heads by themselves, which run in the type of their
        # weights
        of_heads = estimate_fsdp(
            [(heads, 2 - kept + (level is not None), 1)], shards, None, sums_in, shapes
        )
        return [
            replace(a, count=a.count + b.count, bytes=a.bytes + b.bytes)
            for a, b in zip(of_stages, of_heads, strict=True)
        ]

    def _shapes(self, model: Any) -> Callable[[Tensor], list[int]]:
        """Says what tensor parallelism leaves of a parameter."""
        cut: dict[int, int] = {}
        for layer, what in split_linears(model.sharing).items():
            if what == "columns":
                cut |= {id(p): 0 for p in layer.parameters()}
            else:
                cut[id(layer.weight)] = 1  # what its outputs are added to is whole

        def shape(p: Tensor) -> list[int]:
            return [
                n // self.tensor_parallel_size if d == cut.get(id(p)) else n
                for d, n in enumerate(p.shape)
            ]

        return shape

    # -- processes and modules ---------------------------------------------------------------------
    def setup_environment(self) -> None:
        """Arranges the processes: data x tensor."""
        trainer: Any = self.lightning_module.trainer if self.lightning_module is not None else None
        refuse_second_models(trainer.callbacks if trainer else (), "fsdp")
        super().setup_environment()
        shape = (self.world_size // self.tensor_parallel_size, self.tensor_parallel_size)
        self.mesh = init_device_mesh(
            self.root_device.type, shape, mesh_dim_names=("data", "tensor")
        )
        collectives.use(self.mesh["data"].get_group())

    def setup(self, trainer: L.Trainer) -> None:
        """Cuts the model into shards, once."""
        assert self.accelerator is not None
        assert self.lightning_module is not None
        self.accelerator.setup(trainer)
        self.model = self.precision_plugin.convert_module(self.lightning_module)
        if not any(isinstance(module, FSDPModule) for module in self.lightning_module.modules()):
            self._shard(self.lightning_module)
        self.lightning_module.runner = ShardedRunner()
        if not self.cpu_offload:
            self.model_to_device()
        self.barrier()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def _shard(self, model: Any) -> None:
        assert self.mesh is not None
        if self.tensor_parallel_size > 1:
            split_layers(model.sharing, self.mesh["tensor"])
        passes, sums = (TYPES.get(name or "") for name in (self.parameter_type, self.reduce_type))
        settings: dict[str, Any] = {
            "mesh": self.mesh["data"],
            "mp_policy": MixedPrecisionPolicy(passes, sums),
        }
        if self.cpu_offload:
            settings["offload_policy"] = CPUOffloadPolicy()
        for path, part in model.parts().items():
            if not path.startswith("heads."):
                fully_shard(part, reshard_after_forward=self.reshard_after_forward, **settings)
        fully_shard(model.sharing, reshard_after_forward=self.reshard_after_forward, **settings)
        settings["mp_policy"] = MixedPrecisionPolicy(
            None, sums
        )  # gradients of tasks would drown in less
        fully_shard(model.heads, reshard_after_forward=self.reshard_after_forward, **settings)
        register_fsdp_forward_method(model.sharing, "penalty")
        register_fsdp_forward_method(model.heads, "record")
        for p in model.parameters():
            if not isinstance(p, DTensor) and p.requires_grad:
                p.register_post_accumulate_grad_hook(average)

    def configure_ddp(self) -> None:
        """There is no wrapper."""

    def teardown(self) -> None:
        """Forgets the arrangement."""
        if self.lightning_module is not None:
            self.lightning_module.runner = Runner()
        collectives.use(None)
        super().teardown()

    def on_train_start(self) -> None:
        """Notes in the model which parameters gradients are taken of, as they lie in shards."""
        assert self.lightning_module is not None
        reshard(self.lightning_module)
        _ = self.lightning_module.step.jacobian

    def on_validation_start(self) -> None:
        """Every process evaluates with the first one's buffers, as under ddp."""
        assert self.lightning_module is not None
        for buffer in self.lightning_module.buffers():
            if buffer.device.type == self.root_device.type:
                dist.broadcast(buffer, 0)

    on_test_start = on_predict_start = on_validation_start

    def alike(self) -> list[tuple[dist.ProcessGroup | None, dict[str, Tensor]]]:
        """What several processes hold, and which: what is in no shard all, of shards those that compute layers together."""
        assert self.mesh is not None
        assert self.lightning_module is not None
        reshard(self.lightning_module)
        named = {name: p.detach() for name, p in self.lightning_module.named_parameters()}
        everywhere = {name: p for name, p in named.items() if not isinstance(p, DTensor)}
        twins = {
            name: local(p)
            for name, p in named.items()
            if name not in everywhere and count_holders(p) > 1
        }
        return [(None, everywhere), (self.mesh["tensor"].get_group(), twins)]

    # -- checkpoints -------------------------------------------------------------------------------
    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Weights are loaded into shards."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole model, as one device has it; on ranks other than the first without what only its shards would say."""
        assert self.lightning_module is not None
        return self._collected(self.lightning_module.state_dict())

    def _collected(self, tree: Any) -> Any:
        """Nested values with what a checkpoint holds of DTensors: this process's parts, or whole tensors on the first rank."""
        assert self.mesh is not None
        first_twin = self.mesh["tensor"].get_local_rank() == 0

        def saved(key: str, leaf: Any) -> Any:
            if not isinstance(leaf, DTensor):
                return leaf.detach().cpu() if isinstance(leaf, Tensor) else leaf
            if self.checkpoint == "folder":
                _, first = own_slice(torch.empty(leaf.shape, device="meta"), leaf)
                write = first_twin or count_holders(leaf) == 1
                return Part(local(leaf.detach()), first, tuple(leaf.shape), write)
            complete = full_tensor(leaf.detach())
            return complete.cpu() if self.is_global_zero else complete.new_empty(0)

        return exchanged(tree, saved)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        """Writes a file on the first rank, or a folder on all."""
        if self.checkpoint == "file":
            super().save_checkpoint(checkpoint, filepath, storage_options)
            return
        # the first process says where, and what this save's files are called
        path, name = self.broadcast(
            (str(filepath), f"{checkpoint['global_step']}-{secrets.token_hex(4)}")
        )
        save_folder(Path(path), checkpoint, name, self.global_rank, self.world_size, agree)

    def load_checkpoint(
        self, checkpoint_path: Any, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Opens either; tensors of a folder are put together one by one as they are dealt."""
        return load_checkpoint(checkpoint_path, mmap=True, whole=False)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Every process takes its part of whole tensors."""
        assert self.lightning_module is not None
        ours = self.lightning_module.state_dict()
        theirs = checkpoint["state_dict"]
        state = {
            key: shard_like(put_together(value), ours[key]) if key in ours else value
            for key, value in theirs.items()
        }
        self.lightning_module.load_state_dict(state, strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole state, as one device has it."""
        plain = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        return self._collected(plain.state_dict())

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Every process takes its part of what has a parameter's shape."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            numbers = [number for group in saved["param_groups"] for number in group["params"]]
            place = dict(zip(numbers, parameters, strict=True))
            state = {
                number: {
                    key: shard_like(put_together(value), place[number])
                    if getattr(value, "shape", None) == place[number].shape
                    else value
                    for key, value in entries.items()
                }
                for number, entries in saved["state"].items()
            }
            # how an optimizer computes depends on where its tensors lie, and is not the
            # checkpoint's to say
            ours = [
                {key: group[key] for key in ("fused", "foreach") if key in group}
                for group in optimizer.param_groups
            ]
            groups = [
                {**group, **kept} for group, kept in zip(saved["param_groups"], ours, strict=True)
            ]
            optimizer.load_state_dict({**saved, "state": state, "param_groups": groups})


def split_linears(sharing: Any) -> dict[nn.Module, str]:
    """Returns the linear layers that devices compute together, with 'columns' or 'rows'."""
    plan = sharing.tensor_parallel_plan()
    return {
        sharing.get_submodule(path): split for path, (split, _) in plan.items() if split != "units"
    }


def check_splits(sharing: Any, size: int) -> None:
    """Checks that the layers of an encoder can be split.

    Raises:
        UserError: No layer can, or not into this number of pieces.
    """
    plan = sharing.tensor_parallel_plan()
    asked = f"strategy.tensor_parallel_size {size}"
    if not plan:
        encoder = (
            type(sharing.encoder).__name__ if hasattr(sharing, "encoder") else "these encoders"
        )
        raise UserError(
            f"{asked}: no layer of {type(sharing).__name__} with {encoder} says how devices "
            "compute it together; MLP and Transformer do under HardSharing and MTAN; or leave the "
            "setting at 1, and fsdp cuts parameters alone"
        )
    for path, (_, pieces) in plan.items():
        if pieces % size:
            raise UserError(
                f"{asked} does not divide the {pieces} pieces of {path}: its width, or its "
                "attention heads"
            )


def split_layers(sharing: Any, mesh: DeviceMesh) -> None:
    """Splits layers over devices, in place, by the plan of the encoder."""
    styles: dict[str, ParallelStyle] = {"columns": ColwiseParallel(), "rows": RowwiseParallel()}
    for path, (split, _) in sharing.tensor_parallel_plan().items():
        layer = sharing.get_submodule(path)
        if split == "units":
            layer.part = (mesh.get_local_rank(), mesh.size())
        else:
            parallelize_module(layer, mesh, styles[split])


def agree(error: OSError | None) -> None:
    """Waits for all processes.

    Raises:
        OSError: One of them had it.
    """
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, error and (error.errno, error.strerror, error.filename))
    for found in filter(None, everyone):
        raise OSError(*found)


def put_together(value: Any) -> Any:
    """A tensor of a folder, whole."""
    return value.whole() if isinstance(value, Parts) else value


def in_type_of(heads: nn.Module, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Features in the precision of the heads' weights; those that are one tensor stay one."""
    dtype = next(heads.parameters()).dtype
    cast = {id(z): z.to(dtype) for z in features.values()}
    return {name: cast[id(z)] for name, z in features.items()}


def average(p: Tensor) -> None:
    """Averages the gradient of what every process holds."""
    assert p.grad is not None
    dist.all_reduce(p.grad)
    p.grad.div_(dist.get_world_size())


class ShardedRunner(Runner):
    """Runs a network whose parameters are spread over processes."""

    shards = DTensorShards()
    clip_gradients = staticmethod(clip_gradients)

    def outputs(self, model: ShardableModel, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Returns the outputs of the heads."""
        # in a plain dict FSDP would give each task a tensor of its own, also where all tasks read
        # the same one
        hidden = MappingProxyType(in_type_of(model.heads, features))
        return super().outputs(model, hidden)

    def record(
        self, model: ShardableModel, features: Mapping[str, Tensor], activations: Any
    ) -> list[Tensor]:
        """Returns the outputs of the heads, and notes what their gradients will need."""
        # the whole weights are freed after the pass
        activations.copies_weights = True
        return super().record(model, in_type_of(model.heads, features), activations)

    def gather_weights(self, module: nn.Module) -> AbstractContextManager[object]:
        """Returns a context within which a module's parameters are whole in every process."""
        return gather_weights(module)
