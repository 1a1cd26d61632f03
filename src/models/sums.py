"""Which sums over the global batch a training step takes."""

from typing import Any

from src.balancing import GramianBalancer
from src.planning.communication import Traffic
from src.planning.measure import without_trace


def sums(model: Any, shards: bool = False) -> list[Traffic]:
    """What processes send for one training batch besides gradients that the strategy averages.

    Args:
        model: The model, built.
        shards: Whether each process holds a part of every parameter.
    """
    T, balancer = len(model.names), model.balancer
    losses = Traffic("losses", 1, 2 * T * 4)  # sums and counts
    if balancer.level == "features":
        if isinstance(
            balancer, GramianBalancer
        ):  # the Gramian and what it needs travel together, in float64
            return [Traffic("losses and Gramian", 1, (2 * T + T * T) * 8)]
        if not balancer.sums_features:
            return [losses]
        with without_trace(model):
            z = next(iter(model.sharing(model.input_shape.example()).values()))
        return [losses, Traffic("gradients of features", 1, T * z[0].numel() * 8)]
    if balancer.level == "parameters":
        shared = [p for p in model.sharing.shared_parameters() if p.requires_grad]
        weights = sum(p.numel() for p in shared)
        if not shards:
            return [Traffic("gradients of tasks and losses", 1, T * (weights + 2) * 4)]
        if isinstance(balancer, GramianBalancer) and not balancer.tracks:
            return [losses, Traffic("Gramian", 1, T * T * 8)]
        return [losses, Traffic("gradients of tasks", T * len(shared), T * weights * 4)]
    if balancer.needs_lookahead:  # of this batch, of the other one after the step, and the slopes
        gradient = 4 * sum(
            p.numel()
            for part in (model.sharing, model.heads)
            for p in part.parameters()
            if p.requires_grad
        )
        return [
            losses.times(4),
            Traffic("gradients of losses", 2, 2 * gradient),
            Traffic("slopes", 1, T * 4),
        ]
    return [losses.times(2) if balancer.needs_reevaluation else losses]
