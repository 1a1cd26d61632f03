"""Mixtures of experts: every task weighs the same encoders in its own way."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from src.errors import UserError
from src.models.encoders.encoder import top
from src.models.sharing.gates import GateInput, Gates, describe_load, make_table, mix
from src.models.sharing.sharing import EncoderFactory, Owned, Sharing
from src.models.sharing.stacked_encoders import StackedEncoders

if TYPE_CHECKING:
    from pandas import DataFrame


class Mixture(Sharing):
    """A mixture of experts: z_t = sum_e g_te f_e(x), with E encoders f_e and a gate g_t per task.

    Args:
        encoder: Makes an encoder.
        tasks: The tasks' names.
        experts: E.
    """

    def __init__(self, encoder: EncoderFactory, tasks: Sequence[str], experts: int) -> None:
        super().__init__(encoder, tasks)
        if experts < 1:
            raise UserError(f"{type(self).__name__}: experts {experts} must be at least 1")
        self.experts = StackedEncoders(encoder, experts)
        self.feature_sizes = dict.fromkeys(tasks, self.experts.features)
        self.latest: dict[str, Tensor] = {}

    @abstractmethod
    def gates(self, inputs: Tensor | dict[str, Tensor]) -> Tensor:
        """Returns g, (B, T, E), or (T, E) where gates are the same for all samples."""

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns each task's mixture."""
        gates = self.gates(inputs)
        z = top(mix(gates, self.experts(inputs)))
        # the dashboards show gates of validation rows alone
        shown = gates.detach().expand(z[0].shape[0], -1, -1)
        self.latest = {} if self.training else {"gates": shown}
        return dict(zip(self.tasks, z, strict=True))

    def owners(self) -> Iterator[Owned]:
        """Yields the experts for all tasks."""
        yield from self.experts.owners([self.tasks] * len(self.experts))

    def observe(self) -> dict[str, Tensor]:
        """Returns the gates (B, T, E) of the latest evaluation batch."""
        return self.latest

    def figures(self, means: Mapping[str, Tensor]) -> "dict[str, DataFrame]":
        """Returns the mean gate of each task, and the load of each expert: its mean over tasks."""
        if "gates" not in means:
            return {}
        load_E = means["gates"].mean(0)
        names = [f"expert {e + 1}" for e in range(len(self.experts))]
        return {
            "gates": make_table(means["gates"], self.tasks, names),
            "load": make_table(load_E[None], ["all tasks"], names),
        }

    def summary(self, means: Mapping[str, Tensor]) -> list[str]:
        """Returns a line that says how evenly the experts are used."""
        if "gates" not in means:
            return []
        return [f"experts: {describe_load(means['gates'])}"]


class MMoE(Mixture):
    """Multi-gate mixture of experts: z_t = sum_e g_te(x) f_e(x) with g_t(x) = softmax(W_t x + b_t).

    Each task weighs E encoders anew for every sample (Ma et al., "Modeling task relationships in
    multi-task learning with multi-gate mixture-of-experts", KDD 2018). The gates read the sample as
    a vector: rows as they are, images at 8 x 8, of sequences the mean of small embeddings. With one
    expert this is hard sharing.

    Args:
        encoder: Makes an encoder.
        tasks: The tasks' names.
        experts: E.
    """

    def __init__(self, encoder: EncoderFactory, tasks: Sequence[str], experts: int = 4) -> None:
        super().__init__(encoder, tasks, experts)
        self.read = GateInput(self.experts.shape)
        self.gate = Gates(len(tasks), experts, self.read.features)

    def gates(self, inputs: Tensor | dict[str, Tensor]) -> Tensor:
        """Returns (B, T, E)."""
        return self.gate(self.read(inputs)).softmax(-1)

    def owners(self) -> Iterator[Owned]:
        """Yields experts and gate inputs for all tasks, a gate for its task."""
        yield from super().owners()
        yield Owned(self.tasks, list(self.read.parameters()))
        yield Owned(self.tasks, list(self.gate.parameters()), slices=True)
