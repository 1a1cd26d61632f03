"""Tensors of which every process holds a part: DTensors, as FSDP2 and tensor parallelism make them.

All of this also takes plain tensors, which every process holds whole.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Shard


def local(tensor: Tensor) -> Tensor:
    """This process's part."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """All of it; every process of its mesh must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def as_shard(part: Tensor, parameter: Tensor) -> Tensor:
    """This process's part of a tensor that lies as a parameter does, as such a tensor."""
    if not isinstance(parameter, DTensor):
        return part
    shape: dict[str, Any] = {"shape": parameter.shape, "stride": parameter.stride()}
    return DTensor.from_local(
        part, parameter.device_mesh, parameter.placements, run_check=False, **shape
    )


def own_slice(tensor: Tensor, parameter: DTensor) -> tuple[Tensor, tuple[int, ...]]:
    """This process's part of a whole tensor, the same in every process, laid as a parameter lies, and where that begins."""
    coordinates = parameter.device_mesh.get_coordinate()
    assert coordinates is not None
    first = [0] * tensor.ndim
    # the inner dimension of the mesh cuts first: what tensor parallelism has cut is then cut into
    # shards
    for size, place, placement in reversed(
        list(zip(parameter.device_mesh.shape, coordinates, parameter.placements, strict=True))
    ):
        if not placement.is_replicate():
            dim: int = cast(Shard, placement).dim
            length = -(-tensor.shape[dim] // size)
            start = min(place * length, tensor.shape[dim])
            tensor = tensor.narrow(dim, start, min(length, tensor.shape[dim] - start))
            first[dim] += start
    return tensor, tuple(first)


def shard_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor, the same in every process, laid as a parameter lies; nothing is sent."""
    if not isinstance(parameter, DTensor):
        return tensor.to(parameter.device)
    part, _ = own_slice(tensor, parameter)
    return as_shard(part.to(parameter.device, copy=True), parameter)


def count_holders(tensor: Tensor) -> int:
    """How many processes hold the same part."""
    world = dist.get_world_size() if dist.is_initialized() else 1
    if not isinstance(tensor, DTensor):
        return world
    parts = 1
    for size, placement in zip(tensor.device_mesh.shape, tensor.placements, strict=True):
        parts *= 1 if placement.is_replicate() else size
    return world // parts


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Sums over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def total_norm(gradients: Iterable[Tensor]) -> Tensor:
    """The Euclidean norm of all gradients together, whatever lies where, in one collective."""
    squares: list[Tensor] = [
        local(g).norm(dtype=torch.float64).square() / count_holders(g) for g in gradients
    ]
    total = torch.stack(squares).sum() if squares else torch.zeros((), dtype=torch.float64)
    return sum_over_processes(total).sqrt()


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float, by: str | None) -> None:
    """Clips gradients to a norm, as ``torch.nn.utils.clip_grad_norm_`` does, or each value."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if by == "value":
        for gradient in gradients:
            local(gradient).clamp_(-limit, limit)
        return
    factor = (limit / (total_norm(gradients) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        local(gradient).mul_(factor.to(gradient.dtype))


def reshard(module: nn.Module) -> None:
    """Lets go of whole parameters, which a forward pass may have left where they are not let go of after it."""
    for m in module.modules():
        if isinstance(m, FSDPModule):
            m.reshard()


@contextmanager
def gather_weights(module: nn.Module) -> Iterator[None]:
    """Whole parameters in every process, for those who read them outside of a forward pass; every process must enter."""
    for m in module.modules():
        if isinstance(m, FSDPModule):
            m.unshard()
    try:
        yield
    finally:
        reshard(module)


class DTensorShards:
    """The layout of parameters that FSDP2 and tensor parallelism spread over processes."""

    local = staticmethod(local)
    full_tensor = staticmethod(full_tensor)
    as_shard = staticmethod(as_shard)
    shard_like = staticmethod(shard_like)
    holders = staticmethod(count_holders)
    sum_over_processes = staticmethod(sum_over_processes)
