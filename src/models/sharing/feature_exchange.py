"""The base of architectures in which tasks exchange features between stages."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.models.encoders.encoder import Inputs, Layout, State, top, with_top
from src.models.sharing.sharing import EncoderFactory, Owned, Sharing, keep_padding
from src.models.sharing.stacked_encoders import StackedEncoders

if TYPE_CHECKING:
    from pandas import DataFrame


class FeatureExchange(Sharing):
    """T encoders side by side, and a unit e_k behind each stage k that mixes their outputs.

    The last stage is followed by a unit too. Only the features themselves are mixed; each task
    keeps its own masks and skips.

    Args:
        encoder: Makes an encoder.
        tasks: The tasks' names.
        own: Initial weight of a task's own features, in [0, 1]; the others have equal parts of the
            rest.
        exchange: Makes e_k, (T, B, ..., C) -> the same shape, from the layout of stage k. The first
            dimension of each of its parameters is that of the tasks whose features they make.

    Attributes:
        encoders: The encoders.
        exchanges: e_k of each stage.
    """

    def __init__(
        self,
        encoder: EncoderFactory,
        tasks: Sequence[str],
        own: float,
        exchange: Callable[[Layout], nn.Module],
    ) -> None:
        super().__init__(encoder, tasks)
        if not 0 <= own <= 1:
            raise UserError(f"{type(self).__name__}: own {own} is outside [0, 1]")
        self.encoders = StackedEncoders(encoder, len(tasks))
        self.exchanges = nn.ModuleList(exchange(layout) for layout in self.encoders.layouts)
        self.feature_sizes = dict.fromkeys(tasks, self.encoders.features)

    def outputs(self, inputs: Tensor | dict[str, Tensor]) -> list[Tensor]:
        """Returns the mixed output of each stage, (T, B, ..., C)."""
        state: Inputs | State = inputs
        mixed = []
        for k, (layout, exchange) in enumerate(
            zip(self.encoders.layouts, self.exchanges, strict=True)
        ):
            # every stage behind the first reads each task's own state
            output: State = self.encoders(state, apart=k > 0, first=k, last=k + 1)
            x = layout.to_channels_last(top(output))
            mixed.append(keep_padding(exchange(x), x))
            state = with_top(output, layout.from_channels_last(mixed[-1]))
        return mixed

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns each task's features."""
        return dict(zip(self.tasks, self.outputs(inputs)[-1].unbind(), strict=True))

    def owners(self) -> Iterator[Owned]:
        """Yields encoders and units for all tasks; in the last unit each task has its own slice."""
        # all tasks read the earlier units; of the last one each task reads its own slice
        *earlier, last = self.exchanges
        yield from self.encoders.owners([self.tasks] * len(self.tasks))
        yield Owned(self.tasks, [p for exchange in earlier for p in exchange.parameters()])
        yield Owned(self.tasks, list(last.parameters()), slices=True)

    @abstractmethod
    def figures(self, means: Mapping[str, Tensor]) -> "dict[str, DataFrame]":
        """Returns how much each task takes of each other one, {title: table}."""


def mostly_own(own: float, count: int) -> Tensor:
    """Returns (count, count) weights: ``own`` on the diagonal, equal elsewhere, rows sum to 1."""
    if count == 1:
        return torch.ones(1, 1)
    others = (1 - own) / (count - 1)
    return torch.full((count, count), others).fill_diagonal_(own)
