"""Each task's parameters are a learned weighted mean of all tasks' own."""

from collections.abc import Iterator, Mapping, Sequence
from math import log
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.models.encoders.encoder import Inputs, State, top
from src.models.sharing.gates import make_table
from src.models.sharing.sharing import EncoderFactory, Owned, Sharing
from src.models.sharing.stacked_encoders import StackedEncoders

if TYPE_CHECKING:
    from pandas import DataFrame


class WeightedSharing(Sharing):
    """Each task runs with a learned mean of all parameters: z_t = f(x; sum_i w_tki theta_ik).

    At stage k the weights of task t are w_tk = softmax of learned numbers, one row per task and
    stage. Equal weights are hard sharing, one-hot weights separate networks, and the data say where
    between them each stage belongs (parameters shared by soft combination: Savarese and Maire,
    "Learning implicitly recurrent CNNs through parameter sharing", ICLR 2019, over layers; here
    over tasks).

    Args:
        encoder: Makes an encoder.
        tasks: The tasks' names.
        own: Initial weight of a task's own parameters, in (0, 1); the others have equal parts of
            the rest.
    """

    def __init__(self, encoder: EncoderFactory, tasks: Sequence[str], own: float = 0.5) -> None:
        super().__init__(encoder, tasks)
        if not 0 < own < 1:
            raise UserError(
                f"WeightedSharing: own {own} is outside (0, 1); for 1, which shares nothing, use "
                "Separate"
            )
        self.encoders = StackedEncoders(encoder, len(tasks))
        T = len(tasks)
        # logits whose softmax is ``own`` on the diagonal
        start = torch.full((T, len(self.encoders.names), T), log((1 - own) / max(T - 1, 1)))
        start.diagonal(dim1=0, dim2=2).fill_(log(own))
        self.logits = nn.Parameter(start)
        self.reads_weights = True
        self.feature_sizes = dict.fromkeys(tasks, self.encoders.features)

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns the features that each task's mean of the parameters makes."""
        state: Inputs | State = inputs
        for k, weights_TT in enumerate(self.logits.softmax(-1).unbind(1)):
            # T sets of parameters, each a mean of the T encoders' own
            mixed = {
                name: torch.tensordot(weights_TT, p, 1)
                for name, p in self.encoders.stack_parameters(k).items()
            }
            state = self.encoders.run_stage_with(k, mixed, state, k > 0, len(self.tasks))
        return dict(zip(self.tasks, top(cast(State, state)).unbind(), strict=True))

    def owners(self) -> Iterator[Owned]:
        """Yields the encoders for all tasks, a row of weights for its task."""
        yield from self.encoders.owners([self.tasks] * len(self.tasks))
        yield Owned(self.tasks, [self.logits], slices=True)

    def figures(self, means: Mapping[str, Tensor]) -> "dict[str, DataFrame]":
        """Returns the weights of each stage: w_tki in row t, column i."""
        weights = self.logits.softmax(-1).unbind(1)
        return {
            f"weights of stage {k + 1}": make_table(w, self.tasks, self.tasks)
            for k, w in enumerate(weights)
        }
