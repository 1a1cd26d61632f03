"""Checkpoints of a pipeline: weights and optimizer states of all processes on the first one."""

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer

K = TypeVar("K")
V = TypeVar("V")

# Any: the entries of an optimizer's state are what its class makes of them
OptimizerState = Mapping[str, Any]


def gather_entries(mine: Mapping[K, V], hosts: dist.ProcessGroup) -> dict[K, V]:
    """Returns the entries of all processes on the first one; nothing on the others.

    Args:
        mine: The entries of this process; of two processes that have one, the first one's counts.
        hosts: The group of all processes for objects that are on CPUs.
    """
    if dist.get_rank() > 0:
        dist.send_object_list([mine], 0, group=hosts)
        return {}
    found = dict(mine)
    for rank in range(1, dist.get_world_size()):
        theirs: list[dict[K, V]] = [{}]
        dist.recv_object_list(theirs, rank, group=hosts)
        found = theirs[0] | found
    return found


def gather_optimizer_state(optimizer: Optimizer, hosts: dist.ProcessGroup) -> dict[str, Any]:
    """Returns an optimizer's state, as one device has it, on the first process; else nothing.

    Args:
        optimizer: The optimizer of all parameters; this process has the states of some.
        hosts: The group of all processes for objects that are on CPUs.
    """
    plain = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
    saved = plain.state_dict()
    mine = {}
    for number, entries in saved["state"].items():
        mine[number] = {key: bring_to_cpu(value) for key, value in entries.items()}
    whole = gather_entries(mine, hosts)
    return {**saved, "state": dict(sorted(whole.items()))} if dist.get_rank() == 0 else {}


def select_own_state(optimizer: Optimizer, saved: OptimizerState) -> dict[str, Any]:
    """Returns the part of an optimizer's state that belongs to the weights of this process."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    ours = {number for number, p in zip(numbers, parameters, strict=True) if not p.is_meta}
    state = {number: entries for number, entries in saved["state"].items() if number in ours}
    return {**saved, "state": state}


def move_optimizer(optimizer: Optimizer, device: torch.device) -> None:
    """Moves the states of an optimizer to a device."""
    for state in optimizer.state.values():
        for key, value in state.items():
            # the number of steps may be on the CPU for all devices
            if isinstance(value, Tensor) and key != "step":
                state[key] = value.to(device)


def bring_to_cpu(value: object) -> object:
    """Returns a tensor on the CPU, and anything else as it is."""
    return value.cpu() if isinstance(value, Tensor) else value
