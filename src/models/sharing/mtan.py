"""Multi-task attention network: one encoder, and attention of each task to each stage's output."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.models.encoders.encoder import Inputs, State, top
from src.models.padding import find_real
from src.models.sharing.gates import average_places, make_table
from src.models.sharing.sharing import EncoderFactory, Owned, Sharing
from src.models.sharing.stacked_layers import stack_modules

if TYPE_CHECKING:
    from pandas import DataFrame


class MTAN(Sharing):
    """Multi-task attention network: z_t = a_tK * p_K, masks of attention on one encoder.

    p_k is the output of stage k of the shared encoder, and the mask of task t is a_tk =
    sigmoid(h_tk(g_tk([p_k; f_k(a_tk-1 * p_k-1)]))), for k = 1 without the second half (Liu, Johns
    and Davison, "End-to-end multi-task learning with attention", CVPR 2019).

    As in the paper g and h are 1x1 convolutions that each task has for itself, and all tasks share
    f. The paper has BatchNorm behind f and g, which would make a sample's features depend on the
    others in its batch: here it is LayerNorm, and none behind h, where it would forbid a mask that
    opens or shuts all channels of a place. f is 1x1 instead of 3x3, so that any encoder will do. It
    works on features that were resized to stage k before: images by adaptive mean pooling; where
    the number of dimensions changes, by the mean over all places (of a sequence or a graph,
    over its real ones). The paper's p inside the brackets is an earlier layer of the stage; stages
    have no inside here.

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
            stack_modules([make_attention(2 * C if k else C, C) for _ in tasks])
            for k, C in enumerate(channels)
        )
        self.feature_sizes = dict.fromkeys(tasks, self.encoder.features)
        self._observed: dict[str, Tensor] = {}

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns each task's attended features."""
        state: Inputs | State = inputs
        real = find_real(inputs)
        self._observed = {}
        attended: Tensor | None = None
        for k, (stage, layout) in enumerate(zip(self.encoder.stages, self.layouts, strict=True)):
            state = self.encoder.run(stage, state)
            p = layout.to_channels_last(top(state))
            x = p.expand(len(self.tasks), *p.shape)
            # what this task attended to in the stage before goes on, by layers that all tasks share
            if attended is not None:
                carried = self.carry[k - 1](resize_places(attended, p.shape[1:-1], real))
                x = torch.cat([x, carried], -1)
            a = self.attend[k](x)
            attended = a * p
            # the dashboards show validation rows alone
            if not self.training:
                means = average_places(a.detach(), real).unbind()
                self._observed |= {
                    f"attention.{task}.{k + 1}": mean
                    for task, mean in zip(self.tasks, means, strict=True)
                }
        assert attended is not None
        return dict(zip(self.tasks, attended.unbind(), strict=True))

    def owners(self) -> Iterator[Owned]:
        """Yields attention for its task, all else for all tasks."""
        yield Owned(self.tasks, [*self.encoder.parameters(), *self.carry.parameters()])
        yield Owned(self.tasks, list(self.attend.parameters()), slices=True)

    def observe(self) -> dict[str, Tensor]:
        """Returns each task's attention to each channel of each stage, averaged over places.

        It is known in evaluation alone.
        """
        return self._observed

    def figures(self, means: Mapping[str, Tensor]) -> "dict[str, DataFrame]":
        """Returns the mean attention of tasks (rows) to the channels of each stage (columns)."""
        return {
            f"attention of stage {k + 1}": make_table(
                torch.stack([means[f"attention.{task}.{k + 1}"] for task in self.tasks]),
                self.tasks,
                [str(c) for c in range(layout.channels)],
            )
            for k, layout in enumerate(self.layouts if means else [])
        }


def make_attention(channels_in: int, channels: int) -> nn.Sequential:
    """Makes sigmoid(h(g(x))): (..., channels_in) -> (..., channels), each in (0, 1)."""
    g = nn.Sequential(nn.Linear(channels_in, channels), nn.LayerNorm(channels), nn.ReLU())
    return nn.Sequential(g, nn.Linear(channels, channels), nn.Sigmoid())


def resize_places(x: Tensor, places: torch.Size, real: Tensor | None) -> Tensor:
    """Resizes features to the places of a later stage.

    Args:
        x: The features (T, B, ..., C).
        places: (H, W), (S,) or ().
        real: The real tokens or nodes (B, S) of the inputs; None: all places.

    Returns:
        (T, B, *places, C).
    """
    if x.shape[2:-1] == places:
        return x
    if x.ndim != len(places) + 3:
        # from an image or a sequence to vectors, or the other way
        mean = average_places(x, real)
        return mean.view(*mean.shape[:2], *[1] * len(places), -1).expand(-1, -1, *places, -1)
    maps = x.flatten(0, 1).movedim(-1, 1)
    if len(places) == 1:
        pooled = F.adaptive_avg_pool1d(maps, places[0])
    else:
        pooled = F.adaptive_avg_pool2d(maps, (places[0], places[1]))
    return pooled.movedim(1, -1).unflatten(0, x.shape[:2])
