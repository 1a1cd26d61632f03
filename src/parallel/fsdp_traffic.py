"""Estimates what FSDP sends for a batch, besides sums over the global batch."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from src.parallel.tensor_parallel import list_split_linears
from src.planning.communication import Traffic, estimate_fsdp, estimate_tensor_parallel
from src.planning.measure import collect_tensors
from src.planning.tensors import count_bytes
from src.runner import ShardableModel


@dataclass(frozen=True)
class FSDPSettings:
    """The settings of FSDP on which its traffic depends.

    Attributes:
        shards: The number of shards of each parameter.
        keeps_weights: Whether the forward pass leaves whole weights for the backward pass.
        compute_itemsize: Bytes of a number in the forward and backward pass; None: as stored.
        reduce_itemsize: Bytes of a number where gradients are summed; None: as in the passes.
        mixed: Whether the Trainer runs the network in bfloat16.
    """

    shards: int
    keeps_weights: bool
    compute_itemsize: int | None
    reduce_itemsize: int | None
    mixed: bool


def count_backward_passes(model: ShardableModel) -> int:
    """Returns the number of backward passes of a step through the encoders."""
    if model.balancer.level != "parameters":
        return 1
    # one for each task, and one for parameters that are not shared
    _, private = model.shared_and_private()
    return len(model.tasks) + bool(private)


def estimate_shards(
    model: ShardableModel, settings: FSDPSettings, shape_of: Callable[[Tensor], list[int]]
) -> list[Traffic]:
    """Estimates what processes with different shards send: weights and gradients.

    Args:
        model: The model, built.
        settings: The settings of FSDP.
        shape_of: The shape of the tensor that is cut into shards, for a parameter.
    """
    parts = collect_tensors(model)
    stages = []
    heads = []
    for part, (weights, _) in parts.items():
        if part.startswith("sharing") and weights:
            stages.append(weights)
        if part.startswith("heads"):
            heads += weights

    # weights that the forward pass has kept need not be fetched for the first backward pass
    passes = count_backward_passes(model)
    kept = settings.keeps_weights
    of_stages = estimate_fsdp(
        [(weights, 1 + passes - kept, passes) for weights in stages],
        settings.shards,
        settings.compute_itemsize,
        settings.reduce_itemsize or settings.compute_itemsize,
        shape_of,
    )
    # gradients of tasks are taken of the heads by themselves, which run in the type of their
    # weights
    fetches = 2 - kept + (model.balancer.level is not None)
    of_heads = estimate_fsdp(
        [(heads, fetches, 1)], settings.shards, None, settings.reduce_itemsize, shape_of
    )
    found = []
    for a, b in zip(of_stages, of_heads, strict=True):
        found.append(replace(a, count=a.count + b.count, bytes=a.bytes + b.bytes))
    return found


def estimate_splits(model: ShardableModel, settings: FSDPSettings) -> list[Traffic]:
    """Estimates what devices that compute layers together send."""
    again = int(model.balancer.needs_reevaluation)
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.mixed):
        return estimate_tensor_parallel(
            model,
            list_split_linears(model.sharing),
            count_backward_passes(model),
            again,
            settings.compute_itemsize,
        )


def estimate_balancer(model: ShardableModel) -> list[Traffic]:
    """Estimates the traffic of gradients that every process holds: those of the balancer."""
    learnt = [p for p in model.balancer.parameters() if p.requires_grad]
    if not learnt:
        return []
    return [Traffic("what the balancer learns", len(learnt), count_bytes(learnt))]
