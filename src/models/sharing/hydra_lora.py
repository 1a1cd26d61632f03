"""HydraLoRA: one A and several B for each layer, mixed by a gate that reads the layer's input."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from src.models.padding import find_real
from src.models.sharing.gates import average_places, describe_load, make_table
from src.models.sharing.low_rank import LowRankSharing, LowRankTerm
from src.models.sharing.sharing import EncoderFactory, Owned

if TYPE_CHECKING:
    from pandas import DataFrame


class RoutedTerm(LowRankTerm):
    """A low-rank term with a router for each task.

    Args:
        tasks: T.
        layer: The layer that it stands beside.
        experts: E.
        rank: r.
        scale: s.
        one_down: Whether all experts have one A.
    """

    def __init__(
        self,
        tasks: int,
        layer: nn.Module,
        experts: int,
        rank: int,
        scale: float,
        one_down: bool,
    ) -> None:
        super().__init__(layer, experts, rank, scale, one_down)
        # gates that differ at first, since equal ones would keep all B alike
        self.router = nn.Parameter(
            torch.randn(tasks, self.features, experts) * 0.5 / self.features**0.5
        )


class HydraLoRA(LowRankSharing):
    """HydraLoRA: each layer is y_t = W x + s sum_e g_te(x) B_e A x for task t.

    A is the same for all experts, and the gate g_t = softmax(V_t x) reads the input of the layer:
    each row, token or node has gates of its own, and an image those of its mean over pixels (Tian
    et al., "HydraLoRA: an asymmetric LoRA architecture for efficient fine-tuning", NeurIPS 2024,
    with a router V_t for each task). B_e starts at 0, and training with it at hard sharing. All
    tasks run side by side, in one pass; W trains as well, unless it is frozen.

    Args:
        encoder: Makes an encoder.
        tasks: The tasks' names.
        experts: Number of B.
        rank: r of A (r, in) and B_e (out, r).
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
        super().__init__(encoder, tasks, len(tasks), experts, rank, scale, one_down=True)
        self.seen: dict[int, list[Tensor]] = {}
        self.latest: dict[str, Tensor] = {}

    def make_term(
        self, layer: nn.Module, experts: int, rank: int, scale: float, one_down: bool
    ) -> LowRankTerm:
        """Makes the term of a layer, with a router for each task."""
        return RoutedTerm(len(self.tasks), layer, experts, rank, scale, one_down)

    def gates(self, key: str, x: Tensor) -> Tensor:
        """Returns the gates of each row or place, (K N, ..., E)."""
        term = cast(RoutedTerm, self.terms[key])
        if term.window is not None:
            x = x.mean((-2, -1))
        own = x.unflatten(0, (self.copies, -1))
        logits = torch.bmm(own.flatten(1, -2), term.router.to(x.dtype))
        gates = logits.softmax(-1).view(*own.shape[:-1], -1)
        if not self.training:
            self.seen.setdefault(self.stages[key], []).append(gates.detach())
        return gates.flatten(0, 1)

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns each task's own features."""
        self.seen = {}
        features = super().forward(inputs)
        self.latest = {}
        rows = next(iter(features.values())).shape[0]
        real = find_real(inputs)
        for stage, gates in sorted(self.seen.items()):
            # nodes of all graphs in a row belong to no row of the batch
            means = [average_places(g, real) for g in gates if g.shape[1] == rows]
            if means:
                name = f"gates of stage {stage + 1}"
                self.latest[name] = torch.stack(means).mean(0).transpose(0, 1)
        self.seen = {}
        return features

    def owners(self) -> Iterator[Owned]:
        """Yields the encoder, A and B for all tasks, a router for its task."""
        yield from super().owners()
        routers = [cast(RoutedTerm, term).router for term in self.terms.values()]
        yield Owned(self.tasks, routers, slices=True)

    def observe(self) -> dict[str, Tensor]:
        """Returns the mean gates (B, T, E) of each stage in the latest evaluation batch."""
        return self.latest

    def figures(self, means: Mapping[str, Tensor]) -> "dict[str, DataFrame]":
        """Returns the mean gates of each stage: task t in row t, expert e in column e."""
        return {
            name: make_table(gates, self.tasks, [f"expert {e + 1}" for e in range(gates.shape[1])])
            for name, gates in means.items()
            if name.startswith("gates of stage")
        }

    def summary(self, means: Mapping[str, Tensor]) -> list[str]:
        """Returns a line for each stage that says how evenly its experts are used."""
        return [
            f"{name.removeprefix('gates of ')}: {describe_load(gates)}"
            for name, gates in means.items()
            if name.startswith("gates of stage")
        ]
