"""Tensors that are spread over processes: DTensors, as FSDP2 and tensor parallelism make them.

All functions also take plain tensors, which every process holds whole.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Shard


def local(tensor: Tensor) -> Tensor:
    """Returns this process's shard of a tensor, without a copy."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """Returns the whole tensor; every process of its mesh must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def as_shard(shard: Tensor, parameter: Tensor) -> Tensor:
    """Returns this process's shard as a tensor that is laid out like a parameter."""
    if not isinstance(parameter, DTensor):
        return shard
    return DTensor.from_local(
        shard,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def locate_shard(tensor: Tensor, parameter: DTensor) -> tuple[Tensor, tuple[int, ...]]:
    """Cuts this process's shard out of a whole tensor.

    Args:
        tensor: The whole tensor, the same in every process.
        parameter: The parameter by whose layout it is cut.

    Returns:
        The shard, a view; and where it begins in each dimension of the whole.
    """
    coordinates = parameter.device_mesh.get_coordinate()
    assert coordinates is not None
    first = [0] * tensor.ndim
    layout = list(zip(parameter.device_mesh.shape, coordinates, parameter.placements, strict=True))
    # the inner dimension of the mesh cuts first: FSDP shards what tensor parallelism has cut
    for size, place, placement in reversed(layout):
        if placement.is_replicate():
            continue
        # FSDP's shards of split layers are of a class that is no Shard, but has a dimension, too
        dim = cast(Shard, placement).dim
        length = -(-tensor.shape[dim] // size)
        start = min(place * length, tensor.shape[dim])
        tensor = tensor.narrow(dim, start, min(length, tensor.shape[dim] - start))
        first[dim] += start
    return tensor, tuple(first)


def shard_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Returns a whole tensor, the same in every process, laid out like a parameter.

    Nothing is sent.
    """
    if not isinstance(parameter, DTensor):
        return tensor.to(parameter.device)
    shard, _ = locate_shard(tensor, parameter)
    return as_shard(shard.to(parameter.device, copy=True), parameter)


def count_holders(tensor: Tensor) -> int:
    """Returns the number of processes that hold the same shard."""
    world = dist.get_world_size() if dist.is_initialized() else 1
    if not isinstance(tensor, DTensor):
        return world
    shards = 1
    for size, placement in zip(tensor.device_mesh.shape, tensor.placements, strict=True):
        shards *= 1 if placement.is_replicate() else size
    return world // shards


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Sums a tensor over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def total_norm(gradients: Iterable[Tensor]) -> Tensor:
    """Returns the Euclidean norm of all gradients together, in one collective."""
    squares = []
    for gradient in gradients:
        square = local(gradient).norm(dtype=torch.float64).square()
        # each number must count once, however many processes hold it
        squares.append(square / count_holders(gradient))
    total = torch.stack(squares).sum() if squares else torch.zeros((), dtype=torch.float64)
    return sum_over_processes(total).sqrt()


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float, by: str | None) -> None:
    """Clips gradients to a norm, as ``torch.nn.utils.clip_grad_norm_`` does, or each value.

    Args:
        parameters: The parameters whose gradients are clipped, in place.
        limit: The largest norm or value.
        by: "value", or "norm", which is meant by None, too.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if by == "value":
        for gradient in gradients:
            local(gradient).clamp_(-limit, limit)
        return
    factor = (limit / (total_norm(gradients) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        local(gradient).mul_(factor.to(gradient.dtype))


def reshard(module: nn.Module) -> None:
    """Frees the whole parameters that a forward pass may have left."""
    for m in module.modules():
        if isinstance(m, FSDPModule):
            m.reshard()


@contextmanager
def gather_weights(module: nn.Module) -> Iterator[None]:
    """Makes a module's parameters whole in every process, outside of a forward pass.

    Every process must enter.
    """
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
