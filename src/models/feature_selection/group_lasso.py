"""Group lasso: the weights with which a first layer reads a column become zero together."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from src.batch import InputShape
from src.models.feature_selection.first_layer import (
    FirstLayerSelection,
    read_whole,
    take_columns,
    write_whole,
)
from src.models.sharing.sharing import Sharing
from src.runner import Shards


class GroupLasso(FirstLayerSelection):
    """Group lasso on the first layer: lambda sum_d sqrt(p_d) ||W_d|| joins the losses.

    W_d are the p_d weights with which first layers read column d (Yuan and Lin, "Model selection
    and estimation in regression with grouped variables", JRSS B 2006): with an encoder for each
    task and ``per: shared`` the weights of all of them, as in the multi-task lasso (Obozinski,
    Taskar and Jordan, 2010).

    The penalty has no gradient of its own. Behind each step of the optimizer, at its rate eta, W_d
    becomes max(0, 1 - eta lambda sqrt(p_d) / ||W_d||) W_d, the proximal operator, so that columns
    become exactly zero. With SGD that is proximal gradient descent: a column is closed where the
    root mean square of its gradients is below lambda. With Adam it is a proximal step in the
    metric of plain gradients, as is usual: lambda then compares with gradients in units of their
    size, from 0 to 1.

    It needs an encoder whose first layer is dense, such as MLP.

    Args:
        architecture: The sharing architecture behind it.
        shape: The shape of one sample.
        per: shared: columns are closed for all tasks together; task: for each by itself, which
            needs an encoder for each, as Separate has.
        strength: lambda, or {task: lambda_t} with per task.
        warmup: Epochs in which lambda grows linearly from 0.
    """

    measure = "size of weights"

    def __init__(
        self,
        architecture: Sharing,
        shape: InputShape,
        per: Literal["shared", "task"] = "shared",
        strength: float | dict[str, float] = 0.1,
        warmup: float = 0.0,
    ) -> None:
        super().__init__(architecture, shape, per, strength, warmup)

    @torch.no_grad()
    def finish_step(self, rates: Mapping[int, float], shards: Shards | None) -> None:
        """Shrinks the weights of each column, at the learning rate of the first layer."""
        parameters = self.weights()
        # a frozen layer takes no step
        rate = rates.get(id(parameters[0]), 0.0)
        whole = [read_whole(p, shards) for p in parameters]
        for number, own in enumerate(self.sets):
            weights = take_columns(whole, own)
            squares, sizes = self._sum_squares(weights)
            cut = self.thresholds(rate, sizes, number)
            factors = (1 - cut / squares.sqrt().clamp(min=1e-30)).clamp(min=0)
            for w in weights:
                w.mul_(factors.to(w)[self.column_of.to(w.device)])
        for p, values in zip(parameters, whole, strict=True):
            write_whole(p, values, shards)

    def _sum_squares(self, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns the sum of squares and the number of each column's weights, (D,) each."""
        column_of = self.column_of.to(weights[0].device)
        squares = torch.zeros(len(self.columns), dtype=torch.float64, device=column_of.device)
        sizes = torch.zeros_like(squares)
        for w in weights:
            squares.index_add_(0, column_of, w.double().square().sum(0))
            sizes.index_add_(0, column_of, torch.full_like(w[0], len(w), dtype=torch.float64))
        return squares, sizes

    @torch.no_grad()
    def openness(self) -> Tensor:
        """Returns the root mean square of the weights of each task and column: (T, D)."""
        whole = [p.detach() for p in self.weights()]
        rows = []
        for own in self.sets:
            squares, sizes = self._sum_squares(take_columns(whole, own))
            rows.append((squares / sizes).sqrt())
        return torch.stack(rows).expand(len(self.tasks), -1)

    def is_open(self) -> Tensor:
        """Returns where weights are not zero: (T, D)."""
        return self.openness() > 0

    def closed_state(self) -> dict[str, Tensor]:
        """Returns first layers without weights."""
        each = zip(self.paths, self.weights(), strict=True)
        return {path: torch.zeros_like(p) for path, p in each}
