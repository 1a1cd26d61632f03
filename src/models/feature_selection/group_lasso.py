"""Group lasso: the weights with which a first layer reads a column become zero together."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from src.batch import InputShape
from src.models.feature_selection.first_layer import (
    FirstLayerSelection,
    read_whole,
    sum_columns,
    take_columns,
    write_whole,
)
from src.models.feature_selection.step_sizes import StepSizes
from src.models.sharing.sharing import Sharing
from src.runner import Shards


class GroupLasso(FirstLayerSelection):
    """Group lasso on the first layer: lambda sum_d sqrt(p_d) ||W_d|| joins the losses.

    W_d are the p_d weights with which first layers read column d (Yuan and Lin, "Model selection
    and estimation in regression with grouped variables", JRSS B 2006). With an encoder for each
    task and ``per: shared`` they are those of all encoders, as in the multi-task lasso (Obozinski,
    Taskar and Jordan, "Joint covariate selection", 2010).

    Behind each step of the optimizer W_d becomes max(0, 1 - s_d lambda sqrt(p_d) / ||W_d||) W_d,
    the proximal operator of the penalty, so that columns become exactly zero. s_d is the learning
    rate, with Adam and its kin divided by the mean size of the column's gradients. A closed column
    stays closed.

    It needs an encoder whose first layer is dense, such as MLP.

    Args:
        architecture: The sharing architecture behind it.
        shape: The shape of one sample.
        per: shared: columns are closed for all tasks together; task: for each by itself, which
            needs an encoder for each, as Separate has.
        strength: lambda, or {task: lambda_t} with per task.
        warmup: Epochs in which lambda grows linearly from 0.
    """

    measure = "norm of weights"

    def __init__(
        self,
        architecture: Sharing,
        shape: InputShape,
        per: Literal["shared", "task"] = "shared",
        strength: float | dict[str, float] = 0.01,
        warmup: float = 0.0,
    ) -> None:
        super().__init__(architecture, shape, per, strength, warmup)

    @torch.no_grad()
    def finish_step(self, steps: StepSizes) -> None:
        """Shrinks the weights of each column."""
        parameters = self.weights()
        whole = [read_whole(p, steps.shards) for p in parameters]
        gradients = [g for g in map(steps.gradient_sizes, parameters) if g is not None]
        rate = steps.rate(parameters[0])
        norms = self._norms_of(whole)
        closed = []
        for number, own in enumerate(self.sets):
            weights = take_columns(whole, own)
            sizes = self._sum([torch.ones_like(w) for w in weights])
            sums = self._sum(take_columns(gradients, own)) if gradients else None
            cut = self.shrink(norms[number], sizes, sums, rate, number)
            kept = (norms[number] - cut).clamp(min=0)
            factors = kept / norms[number].where(kept > 0, 1)
            for w in weights:
                w.mul_(factors.to(w)[self.column_of.to(w.device)])
            closed.append(kept == 0)
        self.closed = torch.stack(closed)
        for p, values in zip(parameters, whole, strict=True):
            write_whole(p, values, steps.shards)

    def norms(self, shards: Shards | None = None) -> Tensor:
        """Returns ||W_d||, (sets, D)."""
        return self._norms_of([read_whole(p, shards) for p in self.weights()])

    def _norms_of(self, whole: Sequence[Tensor]) -> Tensor:
        squares = [
            self._sum([w.double().square() for w in take_columns(whole, own)]) for own in self.sets
        ]
        return torch.stack(squares).sqrt()

    def _sum(self, weights: Sequence[Tensor]) -> Tensor:
        return sum_columns(weights, self.column_of, len(self.columns))

    def closed_state(self) -> dict[str, Tensor]:
        """Returns first layers without weights."""
        each = zip(self.paths, self.weights(), strict=True)
        return {path: torch.zeros_like(p) for path, p in each}
