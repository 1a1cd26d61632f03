"""LassoNet: a column may act through the network as far as it acts through a linear skip."""

from collections.abc import Iterator, Mapping, Sequence
from math import inf, prod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from src.batch import InputShape
from src.errors import UserError
from src.models.feature_selection.columns import map_places
from src.models.feature_selection.first_layer import (
    FirstLayerSelection,
    read_whole,
    take_columns,
    write_whole,
)
from src.models.feature_selection.step_sizes import StepSizes
from src.models.sharing.sharing import Owned, Sharing
from src.runner import Shards


class LassoNet(FirstLayerSelection):
    """LassoNet: z = f(x) + theta' x, where |W_dk| <= M ||theta_d|| for all weights W_d of column d.

    (Lemhadri, Ruan, Abraham and Tibshirani, "LassoNet: a neural network with feature sparsity",
    JMLR 2021.) W_d are the weights with which the first layer of f reads column d, so that a column
    is closed when its linear part is. The penalty is lambda sum_d sqrt(p_d) ||theta_d||, with p_d
    the size of theta_d. Behind each step of the optimizer the hierarchical proximal operator with
    s_d lambda sets theta and W, see :func:`find_bounds`. s_d is the learning rate, with Adam and
    its kin divided by the mean size of the gradients in theta_d. A closed column stays closed.

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
        strength: lambda, or {task: lambda_t} with per task.
        warmup: Epochs in which lambda grows linearly from 0.
        hierarchy: M; near 0 the outputs are nearly linear in the inputs.
    """

    measure = "norm of the linear part"

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
        flat = prod(shape.dense)
        embedded = len(self.column_of) - flat
        self.of_dense = self.column_of[:flat].tolist()
        self.of_categories = map_places(self.columns)[1]
        scale = (flat + len(shape.categories)) ** -0.5
        self.skip = nn.Parameter(torch.randn(count, flat, size) * scale)
        self.skips = nn.ParameterList(torch.randn(count, n, size) * scale for n in shape.categories)

        # the inputs of the first layer that are of each column, filled up with one behind the last
        each = [(self.column_of == d).nonzero()[:, 0] for d in range(len(self.columns))]
        self.inputs_of = pad_sequence(each, batch_first=True, padding_value=flat + embedded)
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
    def finish_step(self, steps: StepSizes) -> None:
        """Sets the linear part and the first layers by the operator."""
        shards = steps.shards
        parameters = self.weights()
        skips = [self.skip, *self.skips]
        whole = [read_whole(p, shards) for p in parameters]
        linear = [read_whole(p, shards) for p in skips]
        gradients = [g for g in map(steps.gradient_sizes, skips) if g is not None]

        norms = self._sum_linear([p.double().square() for p in linear]).sqrt()
        sizes = self._sum_linear([torch.ones_like(p) for p in linear])
        sums = self._sum_linear(gradients) if gradients else None
        rate = steps.rate(self.skip)
        for number, own in enumerate(self.sets):
            weights = take_columns(whole, own)
            of_set = sums[number] if sums is not None else None
            cut = self.shrink(norms[number], sizes[number], of_set, rate, number)
            joined = torch.cat([w.to(norms.device) for w in weights])
            # (D, weights of a column); columns of fewer inputs are filled up with 0
            by_column = torch.cat([joined.T, joined.new_zeros(1, len(joined))])[self.inputs_of]
            bounds = find_bounds(norms[number], by_column.flatten(1), cut, self.hierarchy)

            for w in weights:
                limit = bounds.to(w)[self.column_of.to(w.device)]
                w.copy_(torch.minimum(torch.maximum(w, -limit), limit))
            kept = bounds / self.hierarchy / norms[number].where(bounds > 0, 1)
            self._scale_linear([p[number] for p in linear], kept)
            norms[number] = bounds
        self.closed = norms == 0
        for p, values in zip([*parameters, *skips], [*whole, *linear], strict=True):
            write_whole(p, values, shards)

    def _sum_linear(self, linear: Sequence[Tensor]) -> Tensor:
        """Sums tensors like the linear part over each column: (sets, D) float64."""
        sums = torch.zeros(
            len(self.sets), len(self.columns), dtype=torch.float64, device=linear[0].device
        )
        place = torch.tensor(self.of_dense, dtype=torch.long, device=sums.device)
        sums.index_add_(1, place, linear[0].double().sum(-1))
        for d, table in zip(self.of_categories, linear[1:], strict=True):
            sums[:, d] += table.double().sum((-2, -1))
        return sums

    def _scale_linear(self, linear: Sequence[Tensor], factors: Tensor) -> None:
        """Multiplies the linear part of one set by a factor for each column, in place."""
        own = factors.to(linear[0])
        linear[0].mul_(own[torch.tensor(self.of_dense, dtype=torch.long)][:, None])
        for d, table in zip(self.of_categories, linear[1:], strict=True):
            table.mul_(own[d])

    @torch.no_grad()
    def norms(self, shards: Shards | None = None) -> Tensor:
        """Returns ||theta_d||, (sets, D)."""
        linear = [read_whole(p, shards) for p in (self.skip, *self.skips)]
        return self._sum_linear([p.double().square() for p in linear]).sqrt()

    def closed_state(self) -> dict[str, Tensor]:
        """Returns first layers and a linear part without weights."""
        own = dict(zip(self.paths, self.weights(), strict=True))
        own |= {"skip": self.skip, **{f"skips.{k}": p for k, p in enumerate(self.skips)}}
        return {name: torch.zeros_like(p) for name, p in own.items()}


def find_bounds(norms: Tensor, weights: Tensor, cut: Tensor, hierarchy: float) -> Tensor:
    """Solves the hierarchical proximal operator of each column, by a sort.

    For a column with linear part theta and weights W it is

        min over b, V of  1/2 ||b - theta||^2 + 1/2 ||V - W||^2 + cut ||b||
        subject to        |V_k| <= M ||b|| for all k,

    whose solution is b = w / M theta / ||theta|| and V = W, clipped to [-w, w] (Lemhadri et al.,
    algorithm 2, for a vector theta). A column with theta = 0 is closed.

    Args:
        norms: ||theta||, (D,).
        weights: W, (D, K); zeros may fill up a row.
        cut: (D,).
        hierarchy: M.

    Returns:
        The bounds w, (D,) float64.
    """
    M = hierarchy
    sizes = weights.abs().sort(dim=1, descending=True).values.double()
    nothing = sizes.new_zeros(len(sizes), 1)

    # where the m largest weights are at the bound, it is M / (1 + m M^2) (...)+
    m = torch.arange(sizes.shape[1] + 1, device=sizes.device)
    sums = torch.cat([nothing, sizes.cumsum(1)], 1)
    pulled = (norms.double() - cut.double())[:, None] + M * sums
    bounds = M / (1 + m * M**2) * pulled.clamp(min=0)
    count = (torch.cat([sizes, nothing], 1) > bounds).sum(1, keepdim=True)
    found = bounds.gather(1, count)[:, 0]
    return found.masked_fill(norms == 0, 0)
