"""LassoNet: a column may act through the network as far as it acts through a linear skip."""

from collections.abc import Iterator, Mapping
from math import inf
from typing import Literal

import torch
from torch import Tensor, nn

from src.batch import InputShape
from src.errors import UserError
from src.models.feature_selection.columns import map_places
from src.models.feature_selection.first_layer import (
    FirstLayerSelection,
    read_whole,
    take_columns,
    write_whole,
)
from src.models.sharing.sharing import Owned, Sharing
from src.runner import Shards


class LassoNet(FirstLayerSelection):
    """LassoNet: z = f(x) + theta' x, where |W_dk| <= M ||theta_d|| for all weights W_d of column d.

    (Lemhadri, Ruan, Abraham and Tibshirani, "LassoNet: a neural network with feature sparsity",
    JMLR 2021.) W_d are the weights with which the first layer of f reads column d, so that a column
    is closed when its linear part is. The penalty is lambda sum_d sqrt(p_d) ||theta_d||, with p_d
    the size of theta_d. Behind each step of the optimizer, at its rate eta, the hierarchical
    proximal operator with eta lambda sets theta and W, see :func:`apply_hier_prox`.

    The skip leads to the features of a task, where the paper has one output and no weights sqrt(p):
    through a linear head this is a linear part of each output. Categories have a vector theta_dc
    each, as one-hot columns would have. The paper trains at lambda 0 first and then follows a path
    of growing lambda: here ``warmup`` grows it, in one run.

    It needs an encoder whose first layer is dense, such as MLP.

    Args:
        architecture: The sharing architecture behind it.
        shape: The shape of one sample.
        per: shared: columns are closed for all tasks together; task: for each by itself, which
            needs an encoder for each, as Separate has.
        strength: lambda, or {task: lambda_t} with per task. With Adam it compares with gradients in
            units of their size, from 0 to 1.
        warmup: Epochs in which lambda grows linearly from 0.
        hierarchy: M; near 0 the outputs are nearly linear in the inputs.
    """

    measure = "size of the linear part"

    def __init__(
        self,
        architecture: Sharing,
        shape: InputShape,
        per: Literal["shared", "task"] = "shared",
        strength: float | dict[str, float] = 0.1,
        warmup: float = 0.0,
        hierarchy: float = 10.0,
    ) -> None:
        super().__init__(architecture, shape, per, strength, warmup)
        if not 0 < hierarchy < inf:
            raise UserError(f"LassoNet: hierarchy {hierarchy} must be above 0")
        sizes = set(self.feature_sizes.values())
        if len(sizes) > 1:
            raise UserError(
                f"LassoNet adds one linear part to the features of all tasks, but with "
                f"{type(architecture).__name__} they differ in size: use --model.select "
                "StochasticGates"
            )
        self.hierarchy = hierarchy
        (size,) = sizes
        count = len(self.sets)
        flat = shape.dense[0] if shape.dense else 0
        for length in shape.dense[1:]:
            flat *= length
        dense, categories = map_places(self.columns)
        each = flat // max(1, len(dense))
        self.of_dense = [d for d in dense for _ in range(each)]
        self.of_categories = categories
        scale = max(1, flat + len(categories)) ** -0.5
        self.skip = nn.Parameter(torch.randn(count, flat, size) * scale)
        self.skips = nn.ParameterList(torch.randn(count, n, size) * scale for n in shape.categories)
        if per == "task":
            self.one_feature = False

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns each task's features, with the linear part added."""
        features = super().forward(inputs)
        dense = inputs if isinstance(inputs, Tensor) else inputs["dense"]
        # (sets, B, D)
        added = dense.flatten(1) @ self.skip
        if not isinstance(inputs, Tensor):
            for skip, codes in zip(self.skips, inputs["categorical"].unbind(1), strict=True):
                added = added + skip[:, codes]
        found: dict[str, Tensor] = {}
        sums: dict[int, Tensor] = {}
        for t, task in enumerate(self.tasks):
            z = features[task]
            if self.per == "task":
                found[task] = z + added[t]
                continue
            # features that several tasks read stay one tensor
            if id(z) not in sums:
                sums[id(z)] = z + added[0]
            found[task] = sums[id(z)]
        return found

    def owners(self) -> Iterator[Owned]:
        """Yields the linear part for its task, or for all, besides what the architecture has."""
        yield from super().owners()
        yield Owned(self.tasks, [self.skip, *self.skips], slices=self.per == "task")

    @torch.no_grad()
    def finish_step(self, rates: Mapping[int, float], shards: Shards | None) -> None:
        """Sets the weights of each column by the operator, at the rate of the linear part."""
        parameters = self.weights()
        skips = [self.skip, *self.skips]
        rate = rates.get(id(self.skip), 0.0)
        whole = [read_whole(p, shards) for p in parameters]
        linear = [read_whole(p, shards) for p in skips]
        for number, own in enumerate(self.sets):
            weights = take_columns(whole, own)
            rows = [p[number] for p in linear]
            for d in range(len(self.columns)):
                self._set_column(d, number, rate, rows, weights)
        for p, values in zip([*parameters, *skips], [*whole, *linear], strict=True):
            write_whole(p, values, shards)

    def _set_column(
        self, d: int, number: int, rate: float, rows: list[Tensor], weights: list[Tensor]
    ) -> None:
        """Sets theta_d, in the rows of a set's linear part, and W_d, in its first layers."""
        device = weights[0].device
        read = (self.column_of == d).nonzero()[:, 0].to(device)
        dense = torch.tensor([k for k, own in enumerate(self.of_dense) if own == d])
        tables = [rows[1 + k] for k, own in enumerate(self.of_categories) if own == d]
        theta = [rows[0][dense.to(rows[0].device)], *tables]
        flat = torch.cat([part.flatten() for part in theta])
        w = torch.cat([own[:, read].flatten() for own in weights]).to(flat.device)
        size = torch.tensor(float(len(flat)), dtype=torch.float64)
        cut = float(self.thresholds(rate, size, number))
        flat, w = apply_hier_prox(flat, w, cut, self.hierarchy)

        first, *others = flat.split([part.numel() for part in theta])
        rows[0][dense.to(rows[0].device)] = first.view_as(theta[0])
        for table, values in zip(tables, others, strict=True):
            table.copy_(values.view_as(table))
        parts = w.to(device).split([len(own) * len(read) for own in weights])
        for own, values in zip(weights, parts, strict=True):
            own[:, read] = values.view(len(own), len(read))

    @torch.no_grad()
    def openness(self) -> Tensor:
        """Returns ||theta_d|| of each task and column: (T, D)."""
        column_of = [*self.of_dense]
        squares = [self.skip.double().square().sum(-1)]
        for d, table in zip(self.of_categories, self.skips, strict=True):
            column_of.append(d)
            squares.append(table.double().square().sum((-2, -1))[:, None])
        joined = torch.cat(squares, 1)
        place = torch.tensor(column_of, device=joined.device)
        sums = joined.new_zeros(len(joined), len(self.columns)).index_add_(1, place, joined)
        return sums.sqrt().expand(len(self.tasks), -1)

    def is_open(self) -> Tensor:
        """Returns where the linear part is not zero: (T, D)."""
        return self.openness() > 0

    def closed_state(self) -> dict[str, Tensor]:
        """Returns first layers and a linear part without weights."""
        own = dict(zip(self.paths, self.weights(), strict=True))
        own |= {"skip": self.skip, **{f"skips.{k}": p for k, p in enumerate(self.skips)}}
        return {name: torch.zeros_like(p) for name, p in own.items()}


def apply_hier_prox(
    theta: Tensor, weights: Tensor, cut: float, hierarchy: float
) -> tuple[Tensor, Tensor]:
    """Applies the hierarchical proximal operator to one column.

    It solves min 1/2 ||b - theta||^2 + 1/2 ||V - W||^2 + cut ||b|| subject to |V_k| <= M ||b||, by
    a sort (Lemhadri et al., algorithm 2, for a vector theta).

    Args:
        theta: The linear part (P,).
        weights: W, (K,).
        cut: The threshold.
        hierarchy: M.

    Returns:
        b and V.
    """
    M = hierarchy
    norm = theta.double().norm()
    sizes = weights.double().abs().sort(descending=True).values
    zero = sizes.new_zeros(1)

    # with the m largest weights at the bound: the bound w_m = M ||b||
    m = torch.arange(len(sizes) + 1, device=sizes.device)
    pulled = norm + M * torch.cat([zero, sizes.cumsum(0)]) - cut
    bounds = M / (1 + m * M**2) * pulled.clamp(min=0)
    chosen = int((torch.cat([sizes, zero]) > bounds).sum())
    bound = bounds[chosen]

    if norm > 0:
        direction = theta.double() / norm
    else:
        # all directions are alike
        direction = torch.zeros_like(theta, dtype=torch.float64)
        direction[0] = 1
    clipped = torch.minimum(weights.double().abs(), bound).copysign(weights.double())
    return (direction * bound / M).to(theta.dtype), clipped.to(weights.dtype)
