"""The share of the global batch that this process works on, and sums over all of it.

A replica holds the whole model: it is one process under ddp and fsdp, and several where a model is
cut over processes (tensor parallelism, pipelines). The global batch is split among replicas; the
processes of one replica read the same rows. Everything that sums over the batch asks this module,
and nothing else of ours knows how processes are arranged.

A process works for one run at a time. So this module keeps one group for the process, as
torch.distributed keeps one default group: a strategy sets it, and takes it back at the end.
"""

from typing import TypeVar

import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

T = TypeVar("T")

# one process of each replica, this one among them; None: every process is a replica of its own
_group: ProcessGroup | None = None


def use(group: ProcessGroup | None) -> None:
    """Sets the group over which sums over the global batch run.

    Args:
        group: One process of each replica, this one among them; None for all processes.
    """
    global _group
    _group = group


def replica_group() -> ProcessGroup | None:
    """Returns the group over which sums over the global batch run; None for all processes."""
    return _group


def replica() -> tuple[int, int]:
    """Returns the number of this process's replica, and the number of replicas."""
    if not dist.is_initialized():
        return 0, 1
    return dist.get_rank(_group), dist.get_world_size(_group)


def global_sum(tensor: Tensor) -> Tensor:
    """Sums a tensor over all replicas, in place."""
    if replica()[1] > 1:
        dist.all_reduce(tensor, group=_group)
    return tensor


def gather(mine: T) -> list[T]:
    """Returns the objects of all replicas, in their order."""
    _, count = replica()
    if count == 1:
        return [mine]
    found: list[T] = [mine] * count
    dist.all_gather_object(found, mine, group=_group)
    return found
