"""The seam between models and strategies: the members that a strategy reads, and the runner.

A model runs its network through a ``Runner``. The default one calls the modules, as a plain script
would. A strategy that cuts the network over processes gives the model a runner of its own, and
takes it away again when the run ends; no method of a model is replaced.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn
from torch.optim import Optimizer

from src.batch import Batch, InputShape

# the inputs of a batch, as a model reads them
Inputs = Tensor | Mapping[str, Tensor]
# a stage's output: x, or x with tensors that ride along, such as masks
State = Tensor | tuple[Tensor, ...]


# -- the model, as a strategy sees it --------------------------------------------------------------
class StagedModule(Protocol):
    """A module that runs stages one after the other: an encoder, or several side by side.

    Attributes:
        recompute: Whether each stage keeps its inputs alone, and is computed once more in a
            backward pass.
        schedule: Runs all stages in another order; None for one after the other.
    """

    recompute: bool
    schedule: Callable[..., object] | None


class ShardableSharing(Protocol):
    """The sharing architecture of a model, as far as strategies read it."""

    @property
    def one_feature(self) -> bool:
        """Whether all tasks read the same features."""

    @property
    def reads_weights(self) -> bool:
        """Whether it reads the weights of its encoders, so that these cannot be placed."""

    def __call__(self, inputs: Inputs, /) -> Mapping[str, Tensor]:
        """Returns {task: features (B, ..., D)}."""

    def penalty(self) -> Tensor | None:
        """Returns a scalar that the step minimises besides the losses, or None."""

    def tensor_parallel_plan(self) -> Mapping[str, tuple[str, int]]:
        """Returns {path of a layer: (its split, the number of pieces)}."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yields all parameters."""

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Yields the parameters that several tasks use."""

    def modules(self) -> Iterator[nn.Module]:
        """Yields all modules."""

    def get_submodule(self, target: str, /) -> nn.Module:
        """Returns the module at a path."""


class ShardableHeads(Protocol):
    """The heads of a model, as far as strategies read them."""

    def __call__(self, features: Mapping[str, Tensor], /) -> list[Tensor]:
        """Returns the outputs (B, ..., K, O) of each group of alike tasks."""

    def loss_sums(
        self,
        outputs: list[Tensor],
        targets: Mapping[str, Tensor],
        weights: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns the sums of losses and the counts of labels, both (T,), weighted by rows."""

    def label_counts(
        self, targets: Mapping[str, Tensor], weights: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Returns the counts of known labels (T,), weighted by rows."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yields all parameters."""


class ShardableBalancer(Protocol):
    """The balancer of a model, as far as strategies read it."""

    @property
    def level(self) -> str | None:
        """Returns "features" or "parameters" where it takes gradients of tasks there, else None."""

    @property
    def weights_before_losses(self) -> bool:
        """Whether the weights of a step do not depend on the losses of that step."""

    @property
    def needs_reevaluation(self) -> bool:
        """Whether it sees the losses of the same batch once more after the step."""

    @property
    def needs_lookahead(self) -> bool:
        """Whether it tries a step, and takes it back, before each step."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yields all parameters."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yields all parameters with their names."""

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Yields all buffers with their names."""


class ShardableFreezing(Protocol):
    """The parameters of a model that do not train, or not yet, as far as strategies read it."""

    @property
    def version(self) -> int:
        """Counts how often the set of parameters that train has changed."""

    @property
    def thaws(self) -> bool:
        """Whether something begins to train in a later epoch."""


@runtime_checkable
class FollowsThaw(Protocol):
    """A strategy that averages the gradients of parameters which begin to train during a run."""

    def follow_thaw(self) -> None:
        """Takes note of the parameters that train by now; called before the step's forward pass."""


class ShardableStep(Protocol):
    """The training step of a model, as far as strategies use it."""

    @property
    def jacobian(self) -> object:
        """Takes the gradients in the parameters that train, as they are laid out at first use."""

    def weigh_losses(self, sums_T: Tensor, counts_T: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the scalar to minimise, and sums and counts over all replicas (2, T)."""


class ShardableModel(Protocol):
    """A multi-task model, as far as strategies read it.

    Attributes:
        runner: Runs the network; a strategy may put another in its place.
    """

    runner: "Runner"

    @property
    def training(self) -> bool:
        """Whether the model is in training mode."""

    @property
    def input_shape(self) -> InputShape:
        """The shape of one sample."""

    @property
    def make_optimizer(self) -> Callable[[Iterable[nn.Parameter]], Optimizer]:
        """Makes the optimizer of some parameters."""

    @property
    def tasks(self) -> Mapping[str, object]:
        """The tasks by name."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tasks in the order of T."""

    @property
    def sharing(self) -> ShardableSharing:
        """Maps inputs to the features of each task."""

    @property
    def heads(self) -> ShardableHeads:
        """Maps features to outputs."""

    @property
    def balancer(self) -> ShardableBalancer:
        """Turns the losses of tasks into one step."""

    @property
    def freezing(self) -> ShardableFreezing:
        """Says which parameters train."""

    @property
    def step(self) -> ShardableStep:
        """Takes a training step."""

    @property
    def compares_groups(self) -> bool:
        """Whether the losses of a step depend on groups of rows over the whole batch."""

    def configure_model(self) -> None:
        """Builds the network, once."""

    def parts(self) -> dict[str, nn.Module]:
        """Returns the modules that a strategy can place or shard, by path."""

    def penalty(self) -> Tensor | None:
        """Returns what a step minimises besides the losses; None for nothing."""

    def shared_and_private(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Returns the trained parameters of several tasks, and of one task alone, without heads."""

    def get_submodule(self, target: str, /) -> nn.Module:
        """Returns the module at a path."""

    def modules(self) -> Iterator[nn.Module]:
        """Yields all modules."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yields all parameters."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yields all parameters with their names."""

    def buffers(self) -> Iterator[Tensor]:
        """Yields all buffers."""

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Yields all buffers with their names."""


# -- the strategy, as a model sees it --------------------------------------------------------------
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


class Runner:
    """Runs the network of a model in this process, on whole parameters.

    Attributes:
        shards: The layout of the parameters; None where every process holds whole ones.
        frees_weights: Whether the whole weights of the heads are freed after each forward pass, so
            that whoever needs them later must copy them.
        clip_gradients: Clips the gradients of parameters to a limit, by norm or by value; None
            where Lightning's own way is right.
    """

    shards: Shards | None = None
    frees_weights: bool = False
    clip_gradients: Callable[[Iterable[nn.Parameter], float, str | None], None] | None = None

    def features(self, model: ShardableModel, inputs: Inputs) -> Mapping[str, Tensor]:
        """Returns {task: features (B, ..., D)}."""
        return model.sharing(inputs)

    def cast_features(
        self, model: ShardableModel, features: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """Returns the features in the precision in which the heads read them."""
        return features

    def outputs(self, model: ShardableModel, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Returns the outputs of the heads, (B, ..., K, O) for each group of alike tasks."""
        return model.heads(self.cast_features(model, features))

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
