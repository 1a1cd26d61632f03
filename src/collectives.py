"""Which share of the global batch this process works on.

A replica is what holds the whole model: one process under ddp and fsdp, several where a model is
cut over processes (tensor parallelism, pipelines). The global batch is dealt to replicas; the
processes of one replica read the same rows. Everything that sums over the batch asks here, and
nothing else of the house knows how processes are arranged.
"""

from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

T = TypeVar("T")

_group: ProcessGroup | None = (
    None  # one process of each replica, this one among them; None: every process is a replica
)


def use(group: ProcessGroup | None) -> None:
    """Says with whom this process shares the global batch: one process of each replica; None: with all processes."""
    global _group
    _group = group


def replica_group() -> ProcessGroup | None:
    """With whom this process shares the global batch."""
    return _group


def replica() -> tuple[int, int]:
    """This process's replica, and how many there are."""
    if not dist.is_initialized():
        return 0, 1
    return dist.get_rank(_group), dist.get_world_size(_group)


def global_sum(tensor: Tensor) -> Tensor:
    """Sums over all replicas, in place."""
    if replica()[1] > 1:
        dist.all_reduce(tensor, group=_group)
    return tensor


def gathered(mine: T) -> list[T]:
    """What each replica has, in their order."""
    _, count = replica()
    if count == 1:
        return [mine]
    everyone: list[Any] = [None] * count
    dist.all_gather_object(everyone, mine, group=_group)
    return everyone
