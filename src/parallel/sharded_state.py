"""Checkpoints of parameters that are spread over processes, as one file or as a folder."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from src.checkpoint import Shard, Shards, map_leaves
from src.parallel.dtensor import count_holders, full_tensor, local, locate_shard, shard_like

CheckpointKind = Literal["file", "folder"]

# Any: a checkpoint is a tree of dicts and lists with any values as leaves
Tree = Any


def collect_state(tree: Tree, kind: CheckpointKind, first_copy: bool) -> Tree:
    """Returns a tree with what a checkpoint holds in place of its DTensors.

    Every process must call this.

    Args:
        tree: Nested dicts and lists.
        kind: For a folder, each process keeps its own shards; for a file, the first one has whole
            tensors, and the others have empty ones.
        first_copy: Whether this process writes a shard that several processes hold.
    """

    def collect(key: str, leaf: object) -> object:
        if not isinstance(leaf, DTensor):
            return leaf.detach().cpu() if isinstance(leaf, Tensor) else leaf
        if kind == "folder":
            _, first = locate_shard(torch.empty(leaf.shape, device="meta"), leaf)
            writes = first_copy or count_holders(leaf) == 1
            return Shard(local(leaf.detach()), first, tuple(leaf.shape), writes)
        whole = full_tensor(leaf.detach())
        return whole.cpu() if dist.get_rank() == 0 else whole.new_empty(0)

    return map_leaves(tree, collect)


def shard_state_dict(theirs: Mapping[str, object], ours: Mapping[str, Tensor]) -> dict[str, object]:
    """Returns saved weights, laid out like those of this process.

    Args:
        theirs: Whole tensors by name.
        ours: The weights of the model by name; weights that it lacks stay as they are.
    """
    found: dict[str, object] = {}
    for key, value in theirs.items():
        found[key] = shard_like(join_parts(value), ours[key]) if key in ours else value
    return found


def shard_optimizer_state(optimizer: Optimizer, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a saved state of an optimizer, laid out like the parameters of this process.

    Args:
        optimizer: The optimizer of this process.
        saved: The state; its tensors of a parameter's shape are whole.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    by_number = dict(zip(numbers, parameters, strict=True))
    state: dict[int, dict[str, object]] = {}
    for number, entries in saved["state"].items():
        p = by_number[number]
        state[number] = {}
        for key, value in entries.items():
            like_parameter = getattr(value, "shape", None) == p.shape
            state[number][key] = shard_like(join_parts(value), p) if like_parameter else value

    # how an optimizer computes depends on where its tensors are, so the run decides that and not
    # the checkpoint
    groups = []
    for group, ours in zip(saved["param_groups"], optimizer.param_groups, strict=True):
        groups.append({**group, **{key: ours[key] for key in ("fused", "foreach") if key in ours}})
    return {**saved, "state": state, "param_groups": groups}


def raise_everywhere(error: OSError | None) -> None:
    """Waits for all processes.

    Args:
        error: The error of this process, if it had one.

    Raises:
        OSError: One of the processes had it.
    """
    mine = None if error is None else (error.errno, error.strerror, error.filename)
    everyone = [mine] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    for found in everyone:
        if found is not None:
            raise OSError(*found)


def join_parts(value: object) -> Tensor:
    """Returns a tensor of a checkpoint, put together where it comes in parts."""
    whole = value.assemble() if isinstance(value, Shards) else value
    assert isinstance(whole, Tensor)
    return whole
