"""The contract of every balancer: how T task losses become one step.

Three families, by what a method looks at:

- a LossBalancer turns the values of the losses into weights, or into one scalar;
- a GramianBalancer turns the T x T inner products of the task gradients into weights;
- a GradientBalancer turns the gradients themselves into one direction.

The last two act on what the tasks share, at one of two levels. ``features``: gradients with respect
to the shared features z, one
backward pass through the encoder whatever T is. ``parameters``: with respect to the shared
parameters, as most papers define it, one backward pass per task. Each head keeps the gradient of
its own loss, unless a method's paper says otherwise.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from src.errors import UserError

Level = Literal["features", "parameters"]


@dataclass(slots=True)
class TaskLosses:
    """The losses of one step, as every rank sees them; fixed weights are in them already.

    Attributes:
        local_T: (T,) This rank's share, in the graph: sum of the valid element losses x world size
            / global count of valid elements. Its mean over the ranks, which is what DDP and FSDP
            take of gradients, is the loss over the global batch.
        global_T: (T,) The losses over the global batch, detached, the same on every rank.
        present_T: (T,) bool, whether the task has a label anywhere in the global batch; an absent
            task has loss 0.
        key: A number that is a function of (seed, step): what a method draws at random, it draws
            from this.
    """

    local_T: Tensor
    global_T: Tensor
    present_T: Tensor
    key: int = 0


@dataclass(slots=True)
class Problem:
    """What a Gramian method solves: the n tasks that have a gradient in this step, on the CPU, in float64.

    Attributes:
        G: (n, n) inner products of their gradients; the diagonal is above 0.
        losses: (n,)
        tasks: (n,) their places among the T tasks, for methods with a state per task.
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
    """Says which coordinates of the gradients lie on this rank.

    Attributes:
        first: The place of the first one among those of all ranks.
        features_BF: At features level the features of this rank's samples; None at parameters
            level.
        sum_over_ranks: Sums a tensor over all ranks, in place.
    """

    first: int = 0
    features_BF: Tensor | None = None
    sum_over_ranks: Callable[[Tensor], Tensor] = lambda tensor: tensor


def expect(balancer: "Balancer", method: str, found: Any, shape: tuple[int, ...]) -> Any:
    """Returns what a method of a balancer gave, of which a wrong shape would be spread over the tasks in silence.

    Raises:
        UserError: It has another shape.
    """
    if getattr(found, "shape", None) == shape:
        return found
    given = (
        f"a {type(found).__name__}"
        if not hasattr(found, "shape")
        else f"shape {tuple(found.shape)}"
    )
    wanted = f"shape {tuple(shape)}" if len(shape) else "a scalar"
    what = {"weigh": ", a weight for each task", "head_weights": ", a weight for each task"}.get(
        method, ""
    )
    raise UserError(
        f"{type(balancer).__name__}.{method} returns {given}; it must return {wanted}{what}"
    )


class Balancer(nn.Module, ABC):
    """Its whole state is in parameters and buffers of fixed shape, so that a checkpoint has it.

    A balancer must treat all ranks alike: what it decides may depend on ``global_T``,
    ``present_T``, its own state and randomness drawn from ``key``, never on ``local_T``'s value.

    Args:
        tasks: {task: likelihood}, in the order of T; the likelihood that the task's loss is the
            negative logarithm of, up to a scale: 'gaussian', 'laplace' or 'categorical'.

    Attributes:
        level: Where gradients are taken; None for a method that looks at losses alone.
        accumulates: Whether a step over several micro-batches is right.
        needs_lookahead: Whether it takes a step and takes it back, to see what that does to another
            batch.
    """

    level: Level | None = None
    needs_lookahead: ClassVar[bool] = False
    accumulates: ClassVar[bool] = True

    def __init__(self, tasks: Mapping[str, str]) -> None:
        super().__init__()
        self.tasks, self.likelihoods = tuple(tasks), tuple(tasks.values())

    def on_epoch_end(self) -> None:
        """Comes at the end of each epoch of training, for methods that count them."""

    @abstractmethod
    def forward(self, *args: Any) -> Any:
        """What each family makes of a step."""


class LossBalancer(Balancer):
    """The step minimises sum_t w_t L_t, with w from the losses' values.

    Attributes:
        needs_reevaluation: Whether it sees the same batch once more, after the optimizer's step.
        known_before: Whether the weights of a step depend neither on that step's losses nor on how
            often they are asked for.
    """

    needs_reevaluation: ClassVar[bool] = False
    known_before: ClassVar[bool] = False

    @abstractmethod
    def weigh(self, losses: TaskLosses) -> Tensor:
        """Returns the weights (T,); where a weight depends on parameters of the balancer, it is in the graph."""

    def total(self, losses: TaskLosses, weights_T: Tensor) -> Tensor:
        """Returns the scalar whose gradient the step follows: sum_t w_t L_t."""
        return torch.dot(weights_T, losses.local_T)

    def forward(self, losses: TaskLosses) -> tuple[Tensor, Tensor]:
        """Returns the scalar, and the weights (T,) detached."""
        weights_T = expect(self, "weigh", self.weigh(losses), losses.local_T.shape).to(
            losses.local_T
        )
        return expect(self, "total", self.total(losses, weights_T), ()), weights_T.detach()

    def after_step(self, before: TaskLosses, after: TaskLosses) -> None:
        """Sees the same batch once more, after the optimizer's step; for methods with ``needs_reevaluation``."""


class CpuBalancer(Balancer):
    """A balancer whose arithmetic is on T numbers: its buffers are float64 and stay on the CPU, wherever the model goes.

    Args:
        tasks: {task: likelihood}.
        level: Where gradients are taken: features or parameters.
    """

    levels: ClassVar[tuple[str, ...]] = ("features", "parameters")
    why: ClassVar[str] = ""  # the method has but one level

    def __init__(self, tasks: Mapping[str, str], level: Level = "features") -> None:
        super().__init__(tasks)
        if level not in self.levels:
            raise UserError(
                f"{type(self).__name__} {self.why}: set --model.balancer.level {' or '.join(self.levels)}"
            )
        self.level = level

    def prepare(self, size: int) -> None:
        """Makes buffers that depend on the number of shared parameters; called once, before anything is loaded."""

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        for name, buffer in self._buffers.items():
            if (
                buffer is not None and buffer.dtype != torch.float64
            ):  # one of the gradients' size moves with them
                self._buffers[name] = fn(buffer)
        return self


class GramianBalancer(CpuBalancer):
    """The encoder follows d = sum_t w_t g_t, with w from the Gramian G_kl = <g_k, g_l>.

    A task without a label or with a gradient of 0 leaves the problem, and the others are balanced
    among themselves: means and sums of weights are over these n. A Gramian that is not finite gives
    weights that are not, and leaves the state alone.
    """

    tracks: bool = False  # whether :meth:`track` does anything

    def track(self, rows_TP: Tensor, losses: TaskLosses) -> Tensor:
        """Returns what stands for the gradients of the parameters (T, P): themselves, or what is kept of them over steps."""
        return rows_TP

    @abstractmethod
    def weigh(self, problem: Problem) -> np.ndarray:
        """Returns the weights (n,) of the tasks' gradients."""

    def head_weights(self, problem: Problem, weights: np.ndarray) -> np.ndarray | None:
        """Returns the weights (n,) of the losses in their own heads; None: all 1, as usual."""
        return None

    def forward(self, losses: TaskLosses, gram_TT: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the weights of the tasks in what they share, and in their own heads where these are not 1, both (T,)."""
        G = gram_TT.detach().double().cpu().numpy()
        if not np.isfinite(G).all():
            return torch.full_like(gram_TT[0], torch.nan), None
        active = losses.present_T.cpu().numpy() & (G.diagonal() > 0)
        places = active.nonzero()[0]
        if not len(places):
            return torch.zeros_like(gram_TT[0]), None
        whole = len(places) == len(G)
        values = losses.global_T.cpu().numpy().astype(np.float64)
        problem = Problem(
            G if whole else G[places[:, None], places], values[places], places, losses.key
        )
        shared = expect(self, "weigh", self.weigh(problem), places.shape)
        own = self.head_weights(problem, shared)
        if own is not None:
            expect(self, "head_weights", own, places.shape)
        if not whole:
            shared, own = (
                spread(shared, places, len(G), 0.0),
                own if own is None else spread(own, places, len(G), 1.0),
            )
        return torch.from_numpy(shared).to(gram_TT), own if own is None else torch.from_numpy(
            own
        ).to(gram_TT)


def spread(values: np.ndarray, places: np.ndarray, size: int, elsewhere: float) -> np.ndarray:
    """The values at their places, and a constant elsewhere."""
    whole = np.full(size, elsewhere)
    whole[places] = values
    return whole


class GradientBalancer(CpuBalancer):
    """The encoder follows a direction made of the gradients themselves.

    Attributes:
        sums_features: Whether it sums, over all ranks, a float64 number per task and feature.
    """

    sums_features: bool = False

    @abstractmethod
    def combine(self, rows_TN: Tensor, losses: TaskLosses, where: Coordinates) -> Tensor:
        """Returns the direction (N,).

        Args:
            rows_TN: The tasks' gradients, 0 for absent ones. At parameters level they are whole and
                the same on every rank; at features level these are the coordinates of this rank's
                samples.
            losses: The losses.
            where: Which coordinates these are.
        """

    def forward(
        self, rows_TN: Tensor, losses: TaskLosses, where: Coordinates = Coordinates()
    ) -> Tensor:
        """Returns the direction (N,)."""
        return expect(self, "combine", self.combine(rows_TN, losses, where), rows_TN.shape[1:])

    def head_weights(self, losses: TaskLosses) -> Tensor | None:
        """Returns the weights (T,) of the losses in their own heads; None: all 1."""
        return None


def try_out(balancer: Balancer) -> None:
    """Tries a copy of a balancer on made losses, before anything is trained.

    Raises:
        UserError: A method returns another shape than it must.
    """
    size = len(balancer.tasks)
    balancer = deepcopy(balancer)
    losses_T = torch.linspace(0.5, 1.5, size)
    losses = TaskLosses(
        losses_T.clone().requires_grad_(), losses_T, torch.ones(size, dtype=torch.bool)
    )
    if isinstance(balancer, LossBalancer):
        balancer(losses)
    elif isinstance(balancer, GramianBalancer):
        balancer(losses, torch.eye(size) + 0.1)
