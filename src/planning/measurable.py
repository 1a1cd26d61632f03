"""The members of a model that planning reads."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from src.batch import InputShape

Inputs = Tensor | Mapping[str, Tensor]


class MeasurableSharing(Protocol):
    """The sharing architecture of a model, as far as planning reads it."""

    def __call__(self, inputs: Inputs, /) -> Mapping[str, Tensor]:
        """Returns the features of each task."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yields all parameters."""

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Yields the parameters that several tasks use."""

    def modules(self) -> Iterator[nn.Module]:
        """Yields all modules."""


class MeasurableHeads(Protocol):
    """The heads of a model, as far as planning reads them."""

    def __call__(self, features: Mapping[str, Tensor], /) -> list[Tensor]:
        """Returns the outputs of each group of heads."""

    def loss_sums(
        self, outputs: list[Tensor], targets: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Returns the sums of losses and the counts of labels, both (T,)."""


class MeasurableBalancer(Protocol):
    """The balancer of a model, as far as planning reads it."""

    @property
    def level(self) -> str | None:
        """Returns "features" or "parameters" where it takes gradients of tasks there, else None."""


class MeasurableModel(Protocol):
    """A multi-task model, as far as planning reads it."""

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
    def sharing(self) -> MeasurableSharing:
        """Maps inputs to features."""

    @property
    def heads(self) -> MeasurableHeads:
        """Maps features to outputs."""

    @property
    def balancer(self) -> MeasurableBalancer:
        """Turns the losses of tasks into one step."""

    def parts(self) -> dict[str, nn.Module]:
        """Returns the modules that a strategy can place, by path."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yields all parameters."""

    def buffers(self) -> Iterator[Tensor]:
        """Yields all buffers."""

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Yields all buffers with their names."""
