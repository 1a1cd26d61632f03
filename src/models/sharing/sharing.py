"""The contract of every sharing architecture: from one input to the features of each task."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from src.models.encoders import Encoder

EncoderFactory = Callable[[], Encoder]


class Sharing(nn.Module, ABC):
    """Inputs -> {task: features}. Built from a factory, so that an architecture makes as many encoders as it needs.

    Attributes:
        feature_sizes: {task: size D of its features}, filled by the subclass.
        one_feature: Whether all tasks read the same features.

    Args:
        encoder: Makes a fresh encoder at each call.
        tasks: The tasks' names, in the order of T.
    """

    feature_sizes: dict[str, int]
    one_feature: ClassVar[bool] = False

    def __init__(self, encoder: EncoderFactory, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)

    @abstractmethod
    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns {task: features (B, ..., D)}; tasks that see the same features get the same tensor object."""

    @abstractmethod
    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Yields the parameters that two tasks or more reach."""

    def penalty(self) -> Tensor | None:
        """Returns a scalar that the step minimises besides the losses, or None."""
        return None
