"""The weights of first layers, column by column of the inputs that they read."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import chain
from math import inf, prod
from typing import Literal, cast

import torch
from torch import Tensor, nn

from src.batch import InputShape
from src.errors import UserError
from src.models.encoders.stem import LinearStem, VectorStem
from src.models.feature_selection.columns import map_places
from src.models.feature_selection.selection import Selection
from src.models.sharing.sharing import Sharing
from src.runner import Shards

TINY = 1e-8  # keeps sizes of gradients from 0


class FirstLayerSelection(Selection):
    """The base of ways that close a column by zeros in the first layer of an encoder.

    They shrink weights behind each step of the optimizer by a proximal operator in the optimizer's
    own metric, as far as one number a column can follow it: where Adam divides gradients by their
    size, so does the shrinkage, by its mean over the column (Yun, Lozano and Yang, "Adaptive
    proximal gradient methods for structured neural networks", NeurIPS 2021). So lambda is in units
    of the loss with any optimizer. The optimizer's moments stay as they are.

    A column that is closed stays closed, as is usual on a path from dense to sparse: the noise of
    single batches would open it again.

    Attributes:
        paths: The names of the first layers' weights.
        sets: The sets of weights that are closed together: one, or one for each task; each is a
            list of (number of a layer, number of its encoder, or None for all of them).
        column_of: (inputs of the layer) The number of the column that each of them is of.
        closed: (sets, D) The columns that stay closed; None before the first step.
    """

    way_out = "use --model.select StochasticGates, or HardSharing or Separate with MLP"

    def __init__(
        self,
        architecture: Sharing,
        shape: InputShape,
        per: Literal["shared", "task"],
        strength: float | dict[str, float],
        warmup: float,
    ) -> None:
        super().__init__(architecture, shape, strength, warmup)
        kind = type(self).__name__
        if per not in ("shared", "task"):
            raise UserError(f"{kind}: per '{per}' must be shared or task")
        if per == "shared" and isinstance(strength, Mapping):
            raise UserError(
                f"{kind}: strength names tasks, but columns are chosen for all of them together: "
                "give one number, or set --model.select.per task"
            )
        self.per = per
        paths = [name for name, m in architecture.named_modules() if isinstance(m, LinearStem)]
        if not paths:
            raise UserError(
                f"{kind} chooses inputs by the weights of a first layer that is dense, as MLP has "
                "it, and this encoder has none: use --model.encoder MLP, or --model.select "
                "StochasticGates"
            )
        self.paths = [f"architecture.{path}.1.weight" for path in paths]
        self.sets = find_sets(architecture, self.weights(), per, kind)
        self.closed: Tensor | None = None

        # the order in which a stem puts numbers side by side
        stem = cast(VectorStem, cast(LinearStem, architecture.get_submodule(paths[0]))[0])
        dense, categories = map_places(self.columns)
        sizes = [cast(Tensor, e.weight).shape[-1] for e in stem.embeddings]
        of_dense = [[d] * prod(shape.dense[1:]) for d in dense]
        of_embeddings = [[d] * size for d, size in zip(categories, sizes, strict=True)]
        self.column_of = torch.tensor([*chain(*of_dense, *of_embeddings)])

    def weights(self) -> list[nn.Parameter]:
        """Returns the weights of the first layers: (out, in), or (K, out, in) of K encoders."""
        return [self.get_parameter(path) for path in self.paths]

    @abstractmethod
    def norms(self, shards: Shards | None = None) -> Tensor:
        """Returns the norm of what closes each column, (sets, D), detached."""

    @torch.no_grad()
    def begin_step(self, epoch: float, shards: Shards | None) -> None:
        """Sets the strength of a step, and sees which columns are closed when training begins."""
        super().begin_step(epoch, shards)
        if self.closed is None:
            self.closed = self.norms(shards) == 0

    def shrink(
        self, norms: Tensor, sizes: Tensor, gradients: Tensor | None, rate: float, number: int
    ) -> Tensor:
        """Returns by how much the norm of each column's group shrinks in a step.

        Args:
            norms: The norms of the groups (D,).
            sizes: The number of weights in each (D,).
            gradients: The sums of the sizes of their gradients (D,); None where the optimizer does
                not divide by them.
            rate: The learning rate.
            number: The number of the set of weights.

        Returns:
            (D,), infinite for columns that stay closed.
        """
        cut = rate * self.share * self.strengths[number] * sizes.sqrt()
        if gradients is not None:
            cut = cut / (gradients / sizes + TINY)
        assert self.closed is not None
        return cut.expand_as(norms).masked_fill(self.closed[number].to(cut.device), inf)

    @torch.no_grad()
    def openness(self) -> Tensor:
        """Returns the norm of what closes each column, for each task: (T, D)."""
        return self.norms().expand(len(self.tasks), -1)

    def is_open(self) -> Tensor:
        """Returns where weights are not zero: (T, D)."""
        return self.openness() > 0


def find_sets(
    architecture: Sharing, weights: Sequence[nn.Parameter], per: str, kind: str
) -> list[list[tuple[int, int | None]]]:
    """Finds the first layers of all tasks, or of each task.

    Raises:
        UserError: Each task shall have its own, but tasks share one.
    """
    if per == "shared":
        return [[(i, None) for i in range(len(weights))]]
    place = {id(p): i for i, p in enumerate(weights)}
    found: dict[str, list[tuple[int, int | None]]] = {task: [] for task in architecture.tasks}
    for owned in architecture.owners():
        for p in owned.parameters:
            if id(p) not in place:
                continue
            if owned.slices:
                for k, task in enumerate(owned.tasks):
                    found[task].append((place[id(p)], k))
            elif len(owned.tasks) == 1:
                found[owned.tasks[0]].append((place[id(p)], None))
            else:
                raise UserError(
                    f"{kind}: per task needs a first layer for each task, but "
                    f"{type(architecture).__name__} shares it: set --model.select.per shared, "
                    "--model.sharing Separate, or --model.select StochasticGates"
                )
    return list(found.values())


def take_columns(weights: Sequence[Tensor], own: Sequence[tuple[int, int | None]]) -> list[Tensor]:
    """Returns views (rows, in) of a set of first layers."""
    taken = [weights[i] if k is None else weights[i][k] for i, k in own]
    return [w.flatten(0, -2) for w in taken]


def sum_columns(weights: Sequence[Tensor], column_of: Tensor, columns: int) -> Tensor:
    """Sums weights (rows, in) over the inputs of each column, and over rows: (D,) float64."""
    place = column_of.to(weights[0].device)
    sums = torch.zeros(columns, dtype=torch.float64, device=place.device)
    for w in weights:
        sums.index_add_(0, place, w.double().sum(0))
    return sums


def read_whole(p: nn.Parameter, shards: Shards | None) -> Tensor:
    """Returns the values of a parameter, whole; without shards they are the parameter's own."""
    return p.detach() if shards is None else shards.full_tensor(p.detach()).clone()


def write_whole(p: nn.Parameter, values: Tensor, shards: Shards | None) -> None:
    """Puts whole values into a parameter; without shards they are there already."""
    if shards is not None:
        shards.local(p.detach()).copy_(shards.local(shards.shard_like(values, p.detach())))
