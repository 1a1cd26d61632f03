"""Cross-stitch networks: behind each stage, tasks mix their features by learned weights."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from src.models.sharing.feature_exchange import FeatureExchange, mostly_own
from src.models.sharing.gates import make_table
from src.models.sharing.sharing import EncoderFactory

if TYPE_CHECKING:
    from pandas import DataFrame


class Stitch(nn.Module):
    """One cross-stitch unit: x_t <- sum_s a_ts x_s.

    Args:
        start_TT: Initial weights a.
        channels: C, if each channel has weights of its own; None for one matrix for all.
    """

    def __init__(self, start_TT: Tensor, channels: int | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            start_TT if channels is None else start_TT.unsqueeze(-1).repeat(1, 1, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, ..., C) -> the same."""
        # one matrix for all channels is one product
        if self.weight.ndim == 2:
            return torch.tensordot(self.weight, x, 1)
        weight = self.weight.view(*self.weight.shape[:2], *[1] * (x.ndim - 2), -1)
        # for two tasks' vectors this takes a fifth of the time of one product per channel
        mixed = weight[:, 0] * x[0]
        for s in range(1, len(x)):
            mixed = torch.addcmul(mixed, weight[:, s], x[s])
        return mixed


class CrossStitch(FeatureExchange):
    """Cross-stitch networks: one encoder per task, and x_t <- sum_s a_ts x_s behind each stage.

    (Misra et al., "Cross-stitch networks for multi-task learning", CVPR 2016.) As in the paper,
    whose last unit stands behind the last layer before the outputs (fc7), the last stage is
    followed by a unit too. With the identity for a this is Separate. The paper trains a at a much
    higher learning rate than the encoders; here the rate is the same.

    Args:
        encoder: Makes an encoder.
        tasks: The tasks' names.
        own: Initial a_tt, in [0, 1]; the others have equal parts of the rest.
        per_channel: Whether every channel has its own a.
    """

    def __init__(
        self,
        encoder: EncoderFactory,
        tasks: Sequence[str],
        own: float = 0.9,
        per_channel: bool = False,
    ) -> None:
        super().__init__(
            encoder,
            tasks,
            own,
            lambda layout: Stitch(
                mostly_own(own, len(tasks)), layout.channels if per_channel else None
            ),
        )

    def figures(self, means: Mapping[str, Tensor]) -> "dict[str, DataFrame]":
        """Returns the weights behind each stage, mean over channels: a_ts in row t, column s."""
        return {
            f"stitches of stage {k + 1}": make_table(
                a.flatten(2).mean(2) if a.ndim > 2 else a, self.tasks, self.tasks
            )
            for k, a in enumerate(self.exchanges.parameters())
        }
