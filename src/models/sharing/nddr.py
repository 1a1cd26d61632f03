"""NDDR: behind each stage, each task reduces all tasks' features to its number of channels."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.models.encoders.encoder import Layout
from src.models.sharing.feature_exchange import FeatureExchange, mostly_own
from src.models.sharing.gates import make_table
from src.models.sharing.sharing import EncoderFactory
from src.models.sharing.stacked_layers import StackedNorm

if TYPE_CHECKING:
    from pandas import DataFrame


class Reduction(nn.Module):
    """x_t <- LayerNorm_t(W_t [x_1; ...; x_T]), at each place by itself.

    Args:
        layout: The layout of the stage's output.
        start_TT: Initial weights of the diagonals.
    """

    def __init__(self, layout: Layout, start_TT: Tensor) -> None:
        super().__init__()
        if layout.channels == 1:
            raise UserError(
                "NDDR: a stage puts out 1 channel, and LayerNorm leaves nothing of it: widen the "
                "encoder"
            )
        # weights of the tasks on the diagonals: channels start unmixed
        self.weight = nn.Parameter(
            torch.einsum("ts,cd->tcsd", start_TT, torch.eye(layout.channels))
        )
        self.norm = StackedNorm([nn.LayerNorm(layout.channels) for _ in start_TT])

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, ..., C) -> the same."""
        return self.norm(torch.einsum("tcsd,s...d->t...c", self.weight, x))


class NDDR(FeatureExchange):
    """NDDR-CNN: x_t <- Norm_t(W_t [x_1; ...; x_T]) behind each stage.

    Each task reduces all tasks' features to its number of channels; W_t (C, T C) is a 1x1
    convolution (Gao et al., "NDDR-CNN: Layerwise feature fusing in multi-task CNNs by neural
    discriminative dimensionality reduction", CVPR 2019). W_t starts with ``own`` on the diagonal of
    the task's own block and equal parts of the rest on the diagonals of the others. Norm_t is a
    LayerNorm over the channels of each place. The paper's BatchNorm would make a sample's features
    depend on the others in its batch, and so on the number of devices.

    Args:
        encoder: Makes an encoder.
        tasks: The tasks' names.
        own: Initial weight of a task's own features, in [0, 1].
    """

    def __init__(self, encoder: EncoderFactory, tasks: Sequence[str], own: float = 0.9) -> None:
        super().__init__(
            encoder, tasks, own, lambda layout: Reduction(layout, mostly_own(own, len(tasks)))
        )

    def figures(self, means: Mapping[str, Tensor]) -> "dict[str, DataFrame]":
        """Returns the mean absolute weight of each block: row t reads column s."""
        return {
            f"weights of stage {k + 1}": make_table(
                exchange.get_parameter("weight").abs().mean((1, 3)), self.tasks, self.tasks
            )
            for k, exchange in enumerate(self.exchanges)
        }
