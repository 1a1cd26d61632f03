"""Tensor parallelism: devices that compute one layer together.

A layer is split as the encoder's plan says (Shoeybi et al., "Megatron-LM", arXiv 1909.08053): a
device has some columns of a first linear layer and the rows of the next one that read them.
"""

from collections.abc import Callable
from typing import Protocol, cast

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)

from src.errors import UserError
from src.runner import ShardableModel, ShardableSharing


class SplitUnits(Protocol):
    """A dropout layer between two split layers.

    Attributes:
        part: The number of this device, and the number of devices that share the units.
    """

    part: tuple[int, int]


def list_split_linears(sharing: ShardableSharing) -> dict[nn.Module, str]:
    """Returns {linear layer that devices compute together: its split, "columns" or "rows"}."""
    found = {}
    for path, (split, _) in sharing.tensor_parallel_plan().items():
        layer = sharing.get_submodule(path)
        if split != "units":
            found[layer] = split
    return found


def check_splits(model: ShardableModel, size: int) -> None:
    """Checks that the layers of an encoder can be split.

    Args:
        model: The model, built.
        size: The number of devices that compute a layer together.

    Raises:
        UserError: No layer can, or not into this number of pieces.
    """
    plan = model.sharing.tensor_parallel_plan()
    asked = f"strategy.tensor_parallel_size {size}"
    if not plan:
        encoder = getattr(model.sharing, "encoder", None)
        name = "these encoders" if encoder is None else type(encoder).__name__
        raise UserError(
            f"{asked}: no layer of {type(model.sharing).__name__} with {name} says how devices "
            "compute it together; MLP and Transformer do under HardSharing and MTAN; or leave the "
            "setting at 1, and fsdp cuts parameters alone"
        )
    for path, (split, pieces) in plan.items():
        if split != "units" and not isinstance(model.sharing.get_submodule(path), nn.Linear):
            raise UserError(
                f"{asked}: {path} has an adapter of finetune.lora, and devices do not compute such "
                "layers together: leave the setting at 1, and fsdp cuts parameters alone"
            )
        if pieces % size:
            raise UserError(
                f"{asked} does not divide the {pieces} pieces of {path}: its width, or its "
                "attention heads"
            )


def split_layers(sharing: ShardableSharing, mesh: DeviceMesh) -> None:
    """Splits layers over devices, in place, by the plan of the encoder.

    Args:
        sharing: The sharing architecture.
        mesh: The devices that compute a layer together.
    """
    styles: dict[str, ParallelStyle] = {"columns": ColwiseParallel(), "rows": RowwiseParallel()}
    for path, (split, _) in sharing.tensor_parallel_plan().items():
        layer = sharing.get_submodule(path)
        if split == "units":
            # dropout draws for all units of the layer, and takes those of this device
            cast(SplitUnits, layer).part = (mesh.get_local_rank(), mesh.size())
        else:
            parallelize_module(layer, mesh, styles[split])


def make_split_shape(sharing: ShardableSharing, size: int) -> Callable[[Tensor], list[int]]:
    """Returns a function that gives the shape of a device's piece of a parameter.

    Args:
        sharing: The sharing architecture, not yet split.
        size: The number of devices that compute a layer together.
    """
    # the dimension of each split parameter
    dims: dict[int, int] = {}
    for layer, split in list_split_linears(sharing).items():
        if split == "columns":
            dims |= {id(p): 0 for p in layer.parameters()}
        else:
            # the bias is added to the sum over all devices, and is whole
            dims[id(layer.get_parameter("weight"))] = 1

    def shape(p: Tensor) -> list[int]:
        dim = dims.get(id(p))
        return [n // size if d == dim else n for d, n in enumerate(p.shape)]

    return shape
