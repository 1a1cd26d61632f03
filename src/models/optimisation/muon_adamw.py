"""Muon for the matrices of hidden layers and AdamW for all else, as one optimizer."""

from collections.abc import Callable, Iterable
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

from src.errors import UserError
from src.runner import Shards

# the quintic of Newton-Schulz, steep at 0
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class MuonAdamW(AdamW):
    """Muon for the matrices of the encoders, AdamW for embeddings, heads, norms and biases.

    With the gradient G of a matrix, M <- m M + (1 - m) G, U = m M + (1 - m) G, and
    W <- W - lr decay W - lr 0.2 sqrt(max(A, B)) orthogonalize(U), where A x B is the shape of W
    (Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024). The factor
    gives an update the size of AdamW's, so that one rate serves both (Liu et al., "Muon is scalable
    for LLM training", arXiv 2502.16982). A convolution is a matrix (outputs, inputs x kernel), and
    layers that are stacked are as many matrices.

    Groups of matrices have their kind under 'matrices', see ``parameter_groups``. Unlike
    torch.optim.Muon, which computes in bfloat16, matrices keep their precision: rounding would make
    a run differ from one number of devices to another.

    Args:
        params: Parameter groups.
        lr: The learning rate of both rules.
        betas: Decay rates of AdamW's means.
        eps: Keeps AdamW's division from 0.
        weight_decay: The decay of both rules.
        momentum: m, of Muon.
        steps: Steps of Newton and Schulz.

    Attributes:
        shards: The layout of parameters that are spread over processes; None where they are whole.
    """

    by_matrix = True
    shards: Shards | None = None

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        steps: int = 5,
    ) -> None:
        if not 0 <= momentum < 1:
            raise UserError(f"MuonAdamW: momentum {momentum} must be at least 0 and below 1")
        if steps < 1:
            raise UserError(f"MuonAdamW: steps {steps} must be at least 1")
        self.momentum = momentum
        self.steps = steps
        super().__init__(params, lr, betas, eps, weight_decay)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group; one without a kind of matrices follows AdamW."""
        param_group.setdefault("matrices", None)
        param_group.setdefault("momentum", self.momentum)
        param_group.setdefault("steps", self.steps)
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes a step by both rules; returns what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        everything = self.param_groups
        self.param_groups = [group for group in everything if group["matrices"] is None]
        try:
            super().step()
        finally:
            self.param_groups = everything
        for group in everything:
            if group["matrices"] is not None:
                for p in group["params"]:
                    self._move_matrix(p, group)
        return loss

    def _move_matrix(self, p: Tensor, group: dict[str, Any]) -> None:
        """Moves a parameter that is a matrix, or a stack of matrices, by Muon's rule."""
        if p.grad is None:
            return
        state = self.state[p]
        if not state:
            # AdamW looks for its count of steps in each state that is loaded
            state["step"] = torch.tensor(0.0)
            state["momentum_buffer"] = torch.zeros_like(p)
        state["step"] += 1

        # each process has its shard of the momentum, and all need the whole matrix
        shards = self.shards
        gradient, weight = p.grad, p
        buffer = state["momentum_buffer"]
        if shards is not None:
            gradient, weight, buffer = map(shards.local, (gradient, weight, buffer))
        buffer.lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(buffer, group["momentum"])
        if shards is not None:
            update = shards.full_tensor(shards.as_shard(update, p))

        first = 1 if group["matrices"] == "stacked" else 0
        matrices = update.flatten(first + 1)
        step = orthogonalize(matrices, group["steps"]).view_as(update)
        if shards is not None:
            step = shards.local(shards.shard_like(step, p))
        rate = float(group["lr"])
        weight.mul_(1 - rate * group["weight_decay"])
        weight.add_(step, alpha=-rate * 0.2 * sqrt(max(matrices.shape[-2:])))


def orthogonalize(matrices: Tensor, steps: int = 5, eps: float = 1e-7) -> Tensor:
    """Brings the singular values of matrices near 1: U S V' -> U S' V' with S' from 0.5 to 1.5.

    X <- a X + (b X X' + c (X X')^2) X, from X = G / |G| on.

    Args:
        matrices: (..., A, B).
        steps: How often.
        eps: The least norm that a matrix is divided by.
    """
    a, b, c = COEFFICIENTS
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT
