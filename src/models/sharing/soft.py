"""Soft parameter sharing: one encoder for each task, tied by what their distance costs."""

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import Literal, cast

import torch
from torch import Tensor

from src.errors import UserError
from src.models.encoders.encoder import Inputs, State, top
from src.models.sharing.sharing import EncoderFactory, Owned, Sharing
from src.models.sharing.stacked_encoders import StackedEncoders


class SoftSharing(Sharing):
    """Soft parameter sharing: one encoder per task, z_t = f(x; theta_t), tied by a penalty.

    The penalty is sum_k s_k Omega(theta_1k, ..., theta_Tk) over the stages k.

    ``l2``: Omega = sum_t |theta_tk - mean_t theta_tk|^2, the squared distance from their mean
    (Duong et al., ACL 2015).
    ``trace``: Omega = sum over the stage's tensors of the trace norm (sum of singular values) of
    the matrix that has each task's tensor as a row, which makes the tasks' weights linearly
    dependent (Yang and Hospedales, "Trace norm regularised deep multi-task learning", ICLR workshop
    2017); singular values far below 0.01 count as 0.

    A strength of 0 leaves a stage to each task; an infinite one (.inf, l2 alone) makes the encoders
    move alike: all of them run with their mean.

    Args:
        encoder: Makes an encoder.
        tasks: The tasks' names.
        norm: l2 or trace.
        strength: s, of every stage, or a list with one for each stage.
    """

    def __init__(
        self,
        encoder: EncoderFactory,
        tasks: Sequence[str],
        norm: Literal["l2", "trace"] = "l2",
        strength: float | list[float] = 0.01,
    ) -> None:
        super().__init__(encoder, tasks)
        self.encoders = StackedEncoders(encoder, len(tasks))
        stages = len(self.encoders.names)
        self.strengths = strength if isinstance(strength, list) else [strength] * stages
        if len(self.strengths) != stages:
            raise UserError(
                f"SoftSharing: strength has {len(self.strengths)} entries, but the encoder has "
                f"{stages} stages"
            )
        if any(not s >= 0 for s in self.strengths):
            raise UserError(f"SoftSharing: strength {strength} must be at least 0")
        if norm == "trace" and inf in self.strengths:
            raise UserError("SoftSharing: an infinite strength goes with norm l2 alone")
        self.norm = norm
        self.reads_weights = any(self.strengths)
        self.feature_sizes = dict.fromkeys(tasks, self.encoders.features)

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns each task's own features."""
        state: Inputs | State = inputs
        for k, strength in enumerate(self.strengths):
            # tied for good: all encoders run with their mean, and move by the same gradient
            if strength == inf:
                means = {
                    name: p.mean(0, keepdim=True).expand_as(p)
                    for name, p in self.encoders.stack_parameters(k).items()
                }
                state = self.encoders.run_stage_with(k, means, state, k > 0, len(self.tasks))
            else:
                state = self.encoders(state, apart=k > 0, first=k, last=k + 1)
        return dict(zip(self.tasks, top(cast(State, state)).unbind(), strict=True))

    def owners(self) -> Iterator[Owned]:
        """Yields each encoder for its task, but stages that run with their mean for all."""
        for k, strength in enumerate(self.strengths):
            yield from self.encoders.owners(
                [self.tasks if strength == inf else (task,) for task in self.tasks], stage=k
            )

    def penalty(self) -> Tensor | None:
        """Returns sum_k s_k Omega_k."""
        terms = [
            strength * distance(p, self.norm)
            for k, strength in enumerate(self.strengths)
            if 0 < strength < inf
            for p in self.encoders.stack_parameters(k).values()
        ]
        return torch.stack(terms).sum() if terms else None


def distance(p: Tensor, norm: str) -> Tensor:
    """Computes how far apart T tensors of one shape (T, ...) are."""
    if norm == "l2":
        return (p - p.mean(0)).square().sum()
    # rows that are nearly the same differ in digits that float32 does not have
    M = p.flatten(1).double()
    # tr (M M' + e I)^1/2, with the gradient (M M' + e I)^-1/2 M; for e = 0 it is not defined where
    # tensors are equal, or 0
    with torch.no_grad():
        values, vectors = torch.linalg.eigh(M @ M.T)
        root = (vectors * (values.clamp(min=0) + 1e-4).rsqrt()) @ vectors.T
    half = ((root @ M) * M).sum().to(p.dtype) / 2
    return half + half.detach()
