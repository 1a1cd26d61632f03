"""Cross-stitch networks: between stages each task's features become a learned mixture of all tasks' features."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from src.models.sharing.feature_exchange import FeatureExchange, mostly_own
from src.models.sharing.gates import table
from src.models.sharing.sharing import EncoderFactory

if TYPE_CHECKING:
    from pandas import DataFrame


class Stitch(nn.Module):
    """x_t <- sum_s a_ts x_s.

    Args:
        start_TT: Initial weights.
        channels: C, for weights of each channel's own; None for one matrix for all.
    """

    def __init__(self, start_TT: Tensor, channels: int | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            start_TT if channels is None else start_TT.unsqueeze(-1).repeat(1, 1, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, ..., C) -> the same."""
        if self.weight.ndim == 2:
            return torch.tensordot(self.weight, x, 1)
        weight = self.weight.view(*self.weight.shape[:2], *[1] * (x.ndim - 2), -1)
        mixed = weight[:, 0] * x[0]
        for s in range(
            1, len(x)
        ):  # of two tasks' vectors this takes a fifth of the time of a product for each channel
            mixed = torch.addcmul(mixed, weight[:, s], x[s])
        return mixed


class CrossStitch(FeatureExchange):
    """x_t <- sum_s a_ts x_s behind each stage, with one encoder for each task (Misra et al., "Cross-stitch networks", CVPR 2016).

    As in the paper, whose last unit is behind the last layer before the outputs (fc7), the last
    stage is followed by one too. With the identity for a this is Separate. The paper trains a with
    a much higher learning rate than the encoders; here it is theirs.

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
        """The weights behind each stage, averaged over channels: row t takes so much of column s."""
        return {
            f"stitches of stage {k + 1}": table(
                a.flatten(2).mean(2) if a.ndim > 2 else a, self.tasks, self.tasks
            )
            for k, a in enumerate(self.exchanges.parameters())
        }
