"""The seam between a model and a strategy: how the network runs, and how its parameters are laid out.

A model runs its network through a ``Runner``. The default one calls the modules, as a plain script
would. A strategy that cuts the network over processes gives the model a runner of its own, and
takes it away again when the run ends; no method of a model is replaced.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from src.batch import Batch, InputShape

Inputs = Tensor | dict[str, Tensor]


class Shards(Protocol):
    """The layout of parameters that are spread over processes."""

    def local(self, tensor: Tensor) -> Tensor:
        """Returns this process's shard of a tensor, without a copy."""

    def full_tensor(self, tensor: Tensor) -> Tensor:
        """Returns the whole tensor; every process of its mesh must call this."""

    def as_shard(self, shard: Tensor, parameter: Tensor) -> Tensor:
        """Returns this process's shard as a tensor that is laid out like a parameter."""

    def shard_like(self, tensor: Tensor, parameter: Tensor) -> Tensor:
        """Returns a whole tensor, the same in every process, laid out like a parameter."""

    def holders(self, tensor: Tensor) -> int:
        """Returns the number of processes that hold the same shard."""

    def sum_over_processes(self, tensor: Tensor) -> Tensor:
        """Sums a tensor over all processes, in place."""


@dataclass(slots=True)
class ScheduledGradients:
    """The gradients of a step that a runner has taken by a schedule of its own.

    Attributes:
        value: What the step minimises, a scalar without a graph.
        gradients: The gradients of the value, averaged over nothing yet.
        parameters: The parameters that the gradients belong to, in the same order.
        totals_2T: (2, T) Sums of losses and counts of labels over the global batch.
    """

    value: Tensor
    gradients: list[Tensor]
    parameters: list[Tensor]
    totals_2T: Tensor


class ShardableModel(Protocol):
    """The part of a model that a strategy may know.

    Attributes:
        sharing: The sharing architecture, which maps inputs to features of each task.
        heads: The heads of all tasks.
        balancer: The balancer.
        tasks: The tasks by name.
        names: The names of the tasks in the order of T.
        input_shape: The shape of one sample.
        runner: Runs the network; a strategy may put another in its place.
        step: Takes a training step.
    """

    sharing: Any
    heads: Any
    balancer: Any
    tasks: dict[str, Any]
    names: tuple[str, ...]
    input_shape: InputShape
    runner: "Runner"
    step: Any

    def configure_model(self) -> None:
        """Builds the network, once."""

    def parts(self) -> dict[str, nn.Module]:
        """Returns the modules that a strategy can place or shard, by path."""

    def shared_and_private(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Returns the trained parameters of several tasks, and of one task alone, without heads."""


class Runner:
    """Runs the network of a model in this process, on whole parameters.

    Attributes:
        shards: The layout of the parameters; None where every process holds whole ones.
        clip_gradients: Clips the gradients of parameters to a limit, by norm or by value; None
            where Lightning's own way is right.
    """

    shards: Shards | None = None
    clip_gradients: Callable[[Iterable[nn.Parameter], float, str | None], None] | None = None

    def features(self, model: ShardableModel, inputs: Inputs) -> Mapping[str, Tensor]:
        """Returns {task: features (B, ..., D)}."""
        found: Mapping[str, Tensor] = model.sharing(inputs)
        return found

    def outputs(self, model: ShardableModel, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Returns the outputs of the heads, (B, ..., K, O) for each group of alike tasks."""
        found: list[Tensor] = model.heads(features)
        return found

    def record(
        self, model: ShardableModel, features: Mapping[str, Tensor], activations: Any
    ) -> list[Tensor]:
        """Returns the outputs of the heads, and notes what their gradients will need.

        Args:
            model: The model.
            features: {task: features, without a graph}.
            activations: A ``HeadActivations``, which is filled.
        """
        outputs, _ = model.heads.record(features, activations)
        return list(outputs)

    def take_gradients(self, model: ShardableModel, batch: Batch) -> ScheduledGradients | None:
        """Runs a step forward and backward by a schedule; None: the model does so itself."""
        return None

    def gather_weights(self, module: nn.Module) -> AbstractContextManager[object]:
        """Returns a context within which a module's parameters are whole in every process."""
        return nullcontext()


def count_rows(inputs: Inputs) -> int:
    """Returns the number of rows of a batch's inputs."""
    tensors: Sequence[Tensor] = [inputs] if isinstance(inputs, Tensor) else list(inputs.values())
    return len(tensors[0])
