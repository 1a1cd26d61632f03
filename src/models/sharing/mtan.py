"""Multi-task attention network: one encoder, and for each task a mask of attention on what each of its stages puts out."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.models.encoders.encoder import top
from src.models.sharing.gates import over_places, table
from src.models.sharing.sharing import EncoderFactory, Owned, Sharing
from src.models.sharing.stacked_layers import stack_modules

if TYPE_CHECKING:
    from pandas import DataFrame


class MTAN(Sharing):
    """a_tk = sigmoid(h_tk(g_tk([p_k; f_k(a_tk-1 * p_k-1)]))), z_t = a_tK * p_K.

    p_k is what stage k of the one shared encoder puts out; without the second half for k = 1 (Liu
    et al., "End-to-end multi-task learning with attention", CVPR 2019).

    g and h are 1x1 convolutions of each task's own, f one that all tasks share, as in the paper.
    Where it has BatchNorm behind f and g, which would make a sample's features depend on the others
    in its batch, there is LayerNorm; behind h there is none, as it would forbid to open or to shut
    all channels of a place. f is 1x1 instead of 3x3, so that any encoder will do, and works on
    features that were brought to the size of stage k before: images by adaptive mean pooling; where
    the number of dimensions changes, by the mean over all places (of a sequence, over its tokens
    without what fills it up). The paper's p inside the brackets is an earlier layer of the stage;
    stages have no inside here.

    Args:
        encoder: Makes an encoder.
        tasks: The tasks' names.
    """

    def __init__(self, encoder: EncoderFactory, tasks: Sequence[str]) -> None:
        super().__init__(encoder, tasks)
        self.encoder = encoder()
        self.layouts = self.encoder.layouts()
        channels = [layout.channels for layout in self.layouts]
        self.carry = nn.ModuleList(
            nn.Sequential(nn.Linear(before, C), nn.LayerNorm(C), nn.ReLU())
            for before, C in pairwise(channels)
        )
        self.attend = nn.ModuleList(
            stack_modules([attention(2 * C if k else C, C) for _ in tasks])
            for k, C in enumerate(channels)
        )
        self.feature_sizes = dict.fromkeys(tasks, self.encoder.features)
        self._observed: dict[str, Tensor] = {}

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns each task's attended features."""
        state: Any = inputs
        tokens = inputs.get("tokens") if isinstance(inputs, dict) else None
        self._observed = {}
        attended: Tensor | None = None
        for k, (stage, layout) in enumerate(zip(self.encoder.stages, self.layouts, strict=True)):
            state = self.encoder.run(stage, state)
            p = layout.to_channels_last(top(state))
            x = p.expand(len(self.tasks), *p.shape)
            if attended is not None:
                carried = self.carry[k - 1](brought(attended, p.shape[1:-1], tokens))
                x = torch.cat([x, carried], -1)
            a = self.attend[k](x)
            attended = a * p
            if not self.training:
                means = over_places(a.detach(), tokens).unbind()
                self._observed |= {
                    f"attention.{task}.{k + 1}": mean
                    for task, mean in zip(self.tasks, means, strict=True)
                }
        assert attended is not None
        return dict(zip(self.tasks, attended.unbind(), strict=True))

    def owners(self) -> Iterator[Owned]:
        """Attention belongs to its task, all else to all."""
        yield Owned(self.tasks, [*self.encoder.parameters(), *self.carry.parameters()])
        yield Owned(self.tasks, list(self.attend.parameters()), slices=True)

    def observe(self) -> dict[str, Tensor]:
        """Each task's attention to each channel of each stage, averaged over places; in evaluation alone."""
        return self._observed

    def figures(self, means: Mapping[str, Tensor]) -> "dict[str, DataFrame]":
        """The average attention of tasks (rows) to the channels of each stage (columns)."""
        return {
            f"attention of stage {k + 1}": table(
                torch.stack([means[f"attention.{task}.{k + 1}"] for task in self.tasks]),
                self.tasks,
                [str(c) for c in range(layout.channels)],
            )
            for k, layout in enumerate(self.layouts if means else [])
        }


def attention(channels_in: int, channels: int) -> nn.Sequential:
    """sigmoid(h(g(x))): (..., channels_in) -> (..., channels), each in (0, 1)."""
    g = nn.Sequential(nn.Linear(channels_in, channels), nn.LayerNorm(channels), nn.ReLU())
    return nn.Sequential(g, nn.Linear(channels, channels), nn.Sigmoid())


def brought(x: Tensor, places: torch.Size, tokens: Tensor | None) -> Tensor:
    """Features (T, B, ..., C) at other places, (T, B, *places, C).

    Args:
        x: The features.
        places: (H, W), (S,) or nothing.
        tokens: The tokens (B, S) of the inputs, if there are any.
    """
    if x.shape[2:-1] == places:
        return x
    if x.ndim != len(places) + 3:
        mean = over_places(x, tokens)
        return mean.view(*mean.shape[:2], *[1] * len(places), -1).expand(-1, -1, *places, -1)
    maps = x.flatten(0, 1).movedim(-1, 1)
    pooled = (
        F.adaptive_avg_pool1d(maps, places[0])
        if len(places) == 1
        else F.adaptive_avg_pool2d(maps, (places[0], places[1]))
    )
    return pooled.movedim(1, -1).unflatten(0, x.shape[:2])
