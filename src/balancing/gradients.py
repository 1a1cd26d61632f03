"""The two families of balancers that look at the gradients of the tasks."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from src.balancing.balancer import (
    WEIGHT_OF_EACH,
    Balancer,
    Level,
    TaskLosses,
    check_shape,
    make_example_losses,
)
from src.errors import UserError


@dataclass(slots=True)
class Problem:
    """The input of a Gramian method: the n tasks that have a gradient in this step.

    Everything is float64 and on the CPU.

    Attributes:
        G: (n, n) inner products of the gradients; the diagonal is above 0.
        losses: (n,) losses over the global batch.
        tasks: (n,) positions among the T tasks, for methods with a state per task.
        key: A number that is a function of (seed, step).
    """

    G: np.ndarray
    losses: np.ndarray
    tasks: np.ndarray
    key: int = 0

    @property
    def norms(self) -> np.ndarray:
        """(n,) lengths of the gradients."""
        return np.sqrt(self.G.diagonal())


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Says which coordinates of the gradients this rank holds.

    Attributes:
        first: Position of the first one among the coordinates of all ranks.
        features_BF: The features of this rank's samples at level features; None at level
            parameters.
        sum_over_ranks: Sums a tensor over all ranks, in place.
    """

    first: int = 0
    features_BF: Tensor | None = None
    sum_over_ranks: Callable[[Tensor], Tensor] = lambda tensor: tensor


class CpuBalancer(Balancer):
    """A balancer that computes on T numbers: its float64 buffers stay on the CPU.

    Problems of this size are slower on a GPU, and some GPUs have no float64. Buffers of another
    type, which are of the size of the gradients, move with the model.

    Args:
        tasks: {task: likelihood}.
        level: Where gradients are taken: features or parameters.

    Attributes:
        levels: The levels at which the method works.
        level_reason: Why it works at these alone, in words that follow its name.
    """

    levels: ClassVar[tuple[str, ...]] = ("features", "parameters")
    level_reason: ClassVar[str] = ""

    def __init__(self, tasks: Mapping[str, str], level: Level = "features") -> None:
        super().__init__(tasks)
        if level not in self.levels:
            raise UserError(
                f"{type(self).__name__} {self.level_reason}: "
                f"set --model.balancer.level {' or '.join(self.levels)}"
            )
        self.level = level

    def prepare(self, size: int) -> None:
        """Registers buffers whose size depends on the model; called once, before any is loaded.

        Args:
            size: Number P of shared parameters.
        """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # every conversion and move of a module goes through this method of torch
        for name, buffer in self._buffers.items():
            if buffer is not None and buffer.dtype != torch.float64:
                self._buffers[name] = fn(buffer)
        return self


class GramianBalancer(CpuBalancer):
    """The encoder follows d = sum_t w_t g_t, with w computed from the Gramian G_kl = <g_k, g_l>.

    A task without a label, or with a gradient of 0, leaves the problem, and the n others are
    balanced among themselves: means and sums over tasks are over these n. If the Gramian is not
    finite, the weights are NaN and the state stays as it is.

    Attributes:
        tracks: Whether :meth:`track` does anything.
    """

    tracks: bool = False

    def track(self, rows_TP: Tensor, losses: TaskLosses) -> Tensor:
        """Returns the gradients (T, P) whose Gramian is balanced, such as means over steps.

        Args:
            rows_TP: The gradients of this step with respect to the shared parameters.
            losses: The losses.
        """
        return rows_TP

    @abstractmethod
    def weigh(self, problem: Problem) -> np.ndarray:
        """Returns the weights (n,) of the tasks' gradients."""

    def head_weights(self, problem: Problem, weights: np.ndarray) -> np.ndarray | None:
        """Returns the weights (n,) of the losses in the tasks' own heads; None if all are 1."""
        return None

    def forward(self, losses: TaskLosses, gram_TT: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the weights (T,) of the gradients, and of the losses in the heads.

        The second are None where all are 1.
        """
        G = gram_TT.detach().double().cpu().numpy()
        T = len(G)

        # the step must not go on as if the gradients were known, nor spoil the state
        if not np.isfinite(G).all():
            return torch.full_like(gram_TT[0], torch.nan), None

        # a task that is absent, or already at a stationary point, has no direction to balance
        active = losses.present_T.cpu().numpy() & (G.diagonal() > 0)
        places = active.nonzero()[0]
        if not len(places):
            return torch.zeros_like(gram_TT[0]), None

        values = losses.global_T.cpu().numpy().astype(np.float64)
        if len(places) < T:
            G = G[places[:, None], places]
        problem = Problem(G, values[places], places, losses.key)
        shared = check_shape(self, "weigh", self.weigh(problem), places.shape, WEIGHT_OF_EACH)
        shared_T = losses.prefer(scatter(shared, places, T, 0.0).to(gram_TT))

        own = self.head_weights(problem, shared)
        if own is None:
            return shared_T, None
        check_shape(self, "head_weights", own, places.shape, WEIGHT_OF_EACH)
        return shared_T, scatter(own, places, T, 1.0).to(gram_TT)

    def try_out(self) -> None:
        tasks = len(self.tasks)
        deepcopy(self)(make_example_losses(tasks), torch.eye(tasks) + 0.1)


def scatter(values: np.ndarray, places: np.ndarray, size: int, elsewhere: float) -> Tensor:
    """Returns a vector (size,) with the values at their places, and a constant elsewhere."""
    if len(places) == size:
        return torch.from_numpy(values)
    whole = np.full(size, elsewhere)
    whole[places] = values
    return torch.from_numpy(whole)


class GradientBalancer(CpuBalancer):
    """The encoder follows a direction computed from the gradients themselves.

    Attributes:
        sums_features: Whether it sums a float64 number per task and feature over all ranks.
    """

    sums_features: bool = False

    @abstractmethod
    def combine(self, rows_TN: Tensor, losses: TaskLosses, where: Coordinates) -> Tensor:
        """Returns the direction (N,).

        Args:
            rows_TN: The gradients of the tasks, 0 for absent tasks. At level parameters they are
                complete and the same on every rank. At level features these are the coordinates
                that belong to this rank's samples.
            losses: The losses.
            where: Which coordinates these are.
        """

    def head_weights(self, losses: TaskLosses) -> Tensor | None:
        """Returns the weights (T,) of the losses in the tasks' own heads; None if all are 1."""
        return None

    def forward(
        self, rows_TN: Tensor, losses: TaskLosses, where: Coordinates = Coordinates()
    ) -> Tensor:
        """Returns the direction (N,)."""
        direction_N = self.combine(losses.prefer(rows_TN), losses, where)
        return check_shape(self, "combine", direction_N, rows_TN.shape[1:])
