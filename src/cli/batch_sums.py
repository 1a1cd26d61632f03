"""The sums over the global batch that a training step takes, for the table that --plan prints."""

from src.balancing import GramianBalancer
from src.models.module import MultiTaskModel
from src.planning.communication import Traffic
from src.planning.measure import preserve_state


def list_batch_sums(model: MultiTaskModel, shards: bool = False) -> list[Traffic]:
    """Lists what replicas send for one batch, besides gradients that the strategy averages.

    Args:
        model: The model, built.
        shards: Whether each process holds a part of every parameter.
    """
    T = len(model.names)
    balancer = model.balancer
    losses = Traffic("losses", 1, 2 * T * 4)  # sums and counts, in float32

    if balancer.level == "features":
        if isinstance(balancer, GramianBalancer):
            # losses and Gramian travel in one tensor, in float64
            return [Traffic("losses and Gramian", 1, (2 * T + T * T) * 8)]
        if not balancer.sums_features:
            return [losses]
        with preserve_state(model):
            z = next(iter(model.sharing(model.input_shape.example()).values()))
        return [losses, Traffic("gradients of features", 1, T * z[0].numel() * 8)]

    if balancer.level == "parameters":
        shared = [p for p in model.sharing.shared_parameters() if p.requires_grad]
        weights = sum(p.numel() for p in shared)
        if not shards:
            return [Traffic("gradients of tasks and losses", 1, T * (weights + 2) * 4)]
        # products of shards are summed; where the rows themselves are tracked, they travel too
        if isinstance(balancer, GramianBalancer) and not balancer.tracks:
            return [losses, Traffic("Gramian", 1, T * T * 8)]
        return [losses, Traffic("gradients of tasks", T * len(shared), T * weights * 4)]

    if balancer.needs_lookahead:
        parts = (model.sharing, model.heads)
        gradient = 4 * sum(p.numel() for m in parts for p in m.parameters() if p.requires_grad)
        # losses and their gradient of this batch, of the other batch after the step, and the slopes
        return [
            losses.times(4),
            Traffic("gradients of losses", 2, 2 * gradient),
            Traffic("slopes", 1, T * 4),
        ]
    return [losses.times(2) if balancer.needs_reevaluation else losses]
