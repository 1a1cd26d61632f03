"""The contract of every balancer: how T task losses become one step of the optimizer.

There are three families, by what a method looks at:

- a LossBalancer turns the values of the losses into weights, or into one scalar;
- a GramianBalancer turns the T x T inner products of the task gradients into weights;
- a GradientBalancer turns the gradients themselves into one direction.

The last two (``gradients.py``) act on what the tasks share, at one of two levels. At level
``features``, gradients are taken with respect to the shared features z: the encoder needs one
backward pass, whatever T is. At level ``parameters``, they are taken with respect to the shared
parameters, as most papers define them: the encoder needs one backward pass per task. Each head
keeps the gradient of its own loss, unless the paper of a method says otherwise.

Names of tensors end in their shape: T tasks, B rows of this rank, F features, P shared parameters,
N coordinates of a gradient (B x F at level features, P at level parameters), n tasks that have a
gradient in this step.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from src.errors import UserError

Level = Literal["features", "parameters"]
WEIGHT_OF_EACH = ", a weight for each task"  # for messages
Array = TypeVar("Array", Tensor, np.ndarray)


@dataclass(slots=True)
class TaskLosses:
    """The losses of one step; fixed weights of tasks are already multiplied in.

    Attributes:
        local_T: (T,) this rank's share, in the autograd graph: the sum of the valid element losses
            x world size / the global count of valid elements. Its mean over the ranks is the loss
            over the global batch, and this mean is what DDP and FSDP take of gradients.
        global_T: (T,) the losses over the global batch, detached, the same on every rank.
        present_T: (T,) bool, whether the task has a label anywhere in the global batch. An absent
            task has loss 0.
        key: A number that is a function of (seed, step). A method seeds its random draws with it,
            so that all ranks, and a resumed run, draw the same.
        preference_T: (T,) How much this step prefers each task, with sum 1, where the sharing
            architecture takes a preference; else None.
    """

    local_T: Tensor
    global_T: Tensor
    present_T: Tensor
    key: int = 0
    preference_T: Tensor | None = None

    def prefer(self, weights_T: Tensor) -> Tensor:
        """Returns weights (T, ...) times T and the preference, so that an even one leaves them."""
        if self.preference_T is None:
            return weights_T
        factors_T = (len(weights_T) * self.preference_T).to(weights_T)
        return weights_T * factors_T.view(-1, *[1] * (weights_T.ndim - 1))


def make_example_losses(tasks: int) -> TaskLosses:
    """Returns losses between 0.5 and 1.5, to try out a balancer before anything is trained."""
    losses_T = torch.linspace(0.5, 1.5, tasks)
    present_T = torch.ones(tasks, dtype=torch.bool)
    return TaskLosses(losses_T.clone().requires_grad_(), losses_T, present_T)


def check_shape(
    balancer: "Balancer", method: str, found: Array, shape: tuple[int, ...], meaning: str = ""
) -> Array:
    """Returns the result of a balancer's method, after a look at its shape.

    A wrong shape would often broadcast over the tasks without any error.

    Args:
        balancer: The balancer.
        method: Name of its method.
        found: The result.
        shape: The shape that it must have.
        meaning: Says in the message what the result is.

    Raises:
        UserError: The result has another shape, or is no array.
    """
    if getattr(found, "shape", None) == shape:
        return found

    given = f"a {type(found).__name__}"
    if hasattr(found, "shape"):
        given = f"shape {tuple(found.shape)}"
    wanted = f"shape {tuple(shape)}" if len(shape) else "a scalar"
    name = type(balancer).__name__
    raise UserError(f"{name}.{method} returns {given}; it must return {wanted}{meaning}")


class Balancer(nn.Module, ABC):
    """Turns the T task losses of a step into one step of the optimizer.

    Its whole state lies in parameters and buffers of fixed shape, so that checkpoints hold it.

    A balancer must decide alike on every rank. A decision may depend on ``global_T``,
    ``present_T``, the balancer's own state and randomness drawn from ``key``, but never on the
    value of ``local_T``.

    What a method needs of the training step, it declares in the attributes below. The step reads
    them, and never asks for the class of a method.

    Args:
        tasks: {task: likelihood}, in the order of T. The task's loss is, up to a scale, the
            negative logarithm of this likelihood: 'gaussian', 'laplace' or 'categorical'.

    Attributes:
        level: With respect to what gradients are taken: the shared features or the shared
            parameters. None for a method that looks at losses alone.
        accumulates: Whether the step may be split into several micro-batches.
        weights_before_losses: Whether the weights of a step depend neither on the losses of that
            step nor on how often they are asked for.
        needs_reevaluation: Whether :meth:`after_step` must be called with the losses of the same
            batch after the optimizer's step. Only a LossBalancer may ask for it.
        needs_lookahead: Whether :meth:`learn_from_lookahead` must be called before each step.
        lookahead_batches: The split that provides the other batch of a look ahead.
        reads_preference: Whether the method itself weighs by the preference of a step. What the
            others weigh is multiplied by it, in what tasks share and in their heads.
    """

    level: Level | None = None
    accumulates: ClassVar[bool] = True
    weights_before_losses: ClassVar[bool] = False
    needs_reevaluation: ClassVar[bool] = False
    needs_lookahead: ClassVar[bool] = False
    lookahead_batches: Literal["train", "val"] = "train"
    reads_preference: ClassVar[bool] = False

    def __init__(self, tasks: Mapping[str, str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.likelihoods = tuple(tasks.values())

    def on_epoch_end(self) -> None:
        """Ends a training epoch, for methods that count epochs."""

    def after_step(self, before: TaskLosses, after: TaskLosses) -> None:
        """Learns from the losses of one batch before and after the optimizer's step.

        The step calls it for methods with ``needs_reevaluation``.
        """
        raise NotImplementedError(f"{type(self).__name__} does not look at losses after the step")

    @property
    def task_weights_T(self) -> Tensor:  # noqa: N802, ends in its shape
        """The weights (T,) of the tasks in the step that a look ahead tries out."""
        raise NotImplementedError(f"{type(self).__name__} does not look ahead")

    def learn_from_lookahead(self, slopes_T: Tensor, rate: float) -> None:
        """Learns from the effect that the step would have on another batch.

        The step calls it for methods with ``needs_lookahead``. With theta' the parameters after a
        step of gradient descent with ``task_weights_T``, and v the gradient of the other batch's
        summed losses at theta', the slope of task t is <v, g_t>.

        Args:
            slopes_T: (T,) inner products <v, g_t>; 0 for a task without labels.
            rate: Learning rate of the network.
        """
        raise NotImplementedError(f"{type(self).__name__} does not look ahead")

    def summary(self) -> list[str]:
        """Returns lines that tell a person, when training ends, what was learnt."""
        return []

    def try_out(self) -> None:
        """Runs a copy on example losses, so that mistakes show before anything is trained.

        Raises:
            UserError: A method returns a wrong shape.
        """

    @abstractmethod
    def forward(self, *args: Any) -> Any:
        """Balances one step; each family of methods has its own arguments and result."""


class LossBalancer(Balancer):
    """Minimises sum_t w_t L_t, with weights w computed from the values of the losses."""

    @abstractmethod
    def weigh(self, losses: TaskLosses) -> Tensor:
        """Returns the weights (T,); learnt weights stay in the autograd graph."""

    def total(self, losses: TaskLosses, weights_T: Tensor) -> Tensor:
        """Returns the scalar whose gradient the step follows: sum_t w_t L_t."""
        return torch.dot(weights_T, losses.local_T)

    def forward(self, losses: TaskLosses) -> tuple[Tensor, Tensor]:
        """Returns the scalar to minimise, and the detached weights (T,)."""
        weights_T = self.weigh(losses)
        shape = losses.local_T.shape
        weights_T = check_shape(self, "weigh", weights_T, shape, WEIGHT_OF_EACH)
        if not self.reads_preference:
            weights_T = losses.prefer(weights_T)
        weights_T = weights_T.to(losses.local_T)
        total = check_shape(self, "total", self.total(losses, weights_T), ())
        return total, weights_T.detach()

    def try_out(self) -> None:
        # a copy, since methods with a state learn from every call
        deepcopy(self)(make_example_losses(len(self.tasks)))
