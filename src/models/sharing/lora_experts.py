"""A mixture of low-rank experts: each task weighs the same small changes of one encoder."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from src.models.sharing.gates import make_table
from src.models.sharing.low_rank import LowRankSharing
from src.models.sharing.sharing import EncoderFactory, Owned

if TYPE_CHECKING:
    from pandas import DataFrame


class LoRAExperts(LowRankSharing):
    """A mixture of LoRA experts: each layer is y_t = W x + s sum_e g_tke B_e A_e x for task t.

    At stage k the gate of task t is g_tk = softmax of learned numbers, and does not depend on the
    sample (MOELoRA, Liu et al., "When MOE meets LLMs: parameter efficient fine-tuning for
    multi-task medical applications", SIGIR 2024, with a gate for each stage). B_e starts at 0, and
    training with it at hard sharing. All tasks run side by side, in one pass; W trains as well,
    unless it is frozen.

    Args:
        encoder: Makes an encoder.
        tasks: The tasks' names.
        experts: E.
        rank: r of A_e (r, in) and B_e (out, r).
        scale: s.
    """

    def __init__(
        self,
        encoder: EncoderFactory,
        tasks: Sequence[str],
        experts: int = 4,
        rank: int = 4,
        scale: float = 1.0,
    ) -> None:
        super().__init__(encoder, tasks, len(tasks), experts, rank, scale)
        self.logits = nn.Parameter(torch.zeros(len(tasks), len(self.encoder.stages), experts))

    def gates(self, key: str, x: Tensor) -> Tensor:
        """Returns the gates of each row's task, (K N, E)."""
        gates_TE = self.logits[:, self.stages[key]].softmax(-1)
        return gates_TE[:, None].expand(-1, x.shape[0] // self.copies, -1).flatten(0, 1)

    def owners(self) -> Iterator[Owned]:
        """Yields the encoder and the experts for all tasks, a row of gates for its task."""
        yield from super().owners()
        yield Owned(self.tasks, [self.logits], slices=True)

    def figures(self, means: Mapping[str, Tensor]) -> "dict[str, DataFrame]":
        """Returns the gates of each stage: g_tke in row t, column e."""
        gates = self.logits.softmax(-1).unbind(1)
        names = [f"expert {e + 1}" for e in range(self.logits.shape[-1])]
        return {
            f"gates of stage {k + 1}": make_table(gates[k], self.tasks, names)
            for k in sorted(set(self.stages.values()))
        }
