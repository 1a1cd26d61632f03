"""Customised gate control and progressive layered extraction: experts of each task beside shared ones."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from src.errors import UserError
from src.models.encoders.encoder import top
from src.models.sharing.gates import GateInput, Gates, mix, one_more, pooled, table
from src.models.sharing.sharing import EncoderFactory, Owned, Sharing
from src.models.sharing.stacked_encoders import StackedEncoders, select_state

if TYPE_CHECKING:
    from pandas import DataFrame


class Level(nn.Module):
    """The experts of one level, and the gates that mix what they put out.

    Args:
        encoder: Makes an encoder, of which the experts are a part.
        count: T.
        shared: Shared experts.
        own: Experts of each task.
        stages: The first stage of the part, and the one behind its last.
        features: Size of what the gates read.
        last: Whether there is no next level, and so no gate for its shared experts.
    """

    def __init__(
        self,
        encoder: EncoderFactory,
        count: int,
        shared: int,
        own: int,
        stages: tuple[int, int],
        features: int,
        last: bool,
    ) -> None:
        super().__init__()
        self.own = StackedEncoders(encoder, count * own, *stages, apart=stages[0] > 0)
        self.shared = StackedEncoders(encoder, shared, *stages)
        self.gates = Gates(count, own + shared, features)
        self.shared_gate = None if last else Gates(1, count * own + shared, features)

    def forward(
        self, state: Any, shared: Any, read: Tensor, read_shared: Tensor
    ) -> tuple[Any, Any, Tensor]:
        """One level up.

        Args:
            state: Inputs, or behind the first level what each of the tasks' own experts reads, (T x
                own, B, ...).
            shared: What all shared experts read.
            read: What the tasks' gates read.
            read_shared: What the shared gate reads.

        Returns:
            The tasks' mixtures (T, B, ...), that for the next shared experts (1, B, ...), None at
            the end, and the gates.
        """
        own, shared = self.own(state, self.own.apart), self.shared(shared)
        gates = self.gates(read).softmax(-1)
        mixed = tree_map(partial(own_and_shared, gates), own, shared)
        if self.shared_gate is None:
            return mixed, None, gates
        of_all = tree_map(lambda *parts: torch.cat(parts), own, shared)
        return mixed, mix(self.shared_gate(read_shared).softmax(-1), of_all), gates


class PLE(Sharing):
    """Progressive layered extraction: each task mixes experts of its own with shared ones, again and again.

    The encoder's stages are cut into L parts, one for each level. With K own experts f_tk of task t
    and the shared ones f_sk, h_t <- sum_k g_tk f_tk(h_t) + sum_k g_t,K+k f_sk(h_s) for each task,
    and h_s <- such a sum over the experts of all tasks and the shared ones, with gates g =
    softmax(W v + b) (Tang et al., "Progressive layered extraction", RecSys 2020). h_t and h_s start
    as the inputs, and z_t is the last h_t. v is the sample as a vector in the first level, see
    :class:`GateInput`, and then the mean of h_t, or of h_s, over places.

    Args:
        encoder: Makes an encoder.
        tasks: The tasks' names.
        shared: Shared experts of each level.
        own: Experts of each task in each level.
        levels: L, at most the number of stages.
    """

    def __init__(
        self,
        encoder: EncoderFactory,
        tasks: Sequence[str],
        shared: int = 2,
        own: int = 2,
        levels: int = 2,
    ) -> None:
        super().__init__(encoder, tasks)
        kind, one = type(self).__name__, one_more(encoder)
        stages, layouts = len(one.stages), one.layouts()
        if shared < 1 or own < 1:
            raise UserError(f"{kind}: shared {shared} and own {own} must be at least 1")
        if not 1 <= levels <= stages:
            raise UserError(
                f"{kind}: levels {levels} is outside 1 ... {stages}, the stages of {type(one).__name__}"
            )
        self.feature_sizes = dict.fromkeys(tasks, one.features)
        cuts = [k * stages // levels for k in range(levels + 1)]
        self.ends = [layouts[cut - 1] for cut in cuts[1:]]
        self.read = GateInput(one.shape)
        sizes = [self.read.features, *(end.channels for end in self.ends)]
        self.levels = nn.ModuleList(
            Level(
                encoder,
                len(tasks),
                shared,
                own,
                (cuts[k], cuts[k + 1]),
                sizes[k],
                last=k == levels - 1,
            )
            for k in range(levels)
        )
        self.own = own
        self.experts = [
            f"{kind} {k + 1}"
            for kind, count in (("own", own), ("shared", shared))
            for k in range(count)
        ]
        self.latest: dict[str, Tensor] = {}

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns each task's mixture of the last level."""
        read = read_shared = self.read(inputs)
        state: Any = inputs
        shared: Any = inputs
        latest = {}
        for k, level in enumerate(self.levels):
            if k:
                image = self.ends[k - 1].image
                read, read_shared = (
                    pooled(top(state), image, inputs),
                    pooled(top(shared), image, inputs)[0],
                )
                state, shared = (
                    tree_map(lambda x: x.repeat_interleave(self.own, 0), state),
                    select_state(shared, 0),
                )
            state, shared, gates = level(state, shared, read, read_shared)
            latest[f"gates of level {k + 1}"] = gates.detach()
        self.latest = {} if self.training else latest
        return dict(zip(self.tasks, state, strict=True))

    def owners(self) -> Iterator[Owned]:
        """Whose loss reaches what: the shared experts, and all that the shared gates read, are everyone's."""
        yield Owned(self.tasks, list(self.read.parameters()))
        each, last = [(task,) for task in self.tasks for _ in range(self.own)], len(self.levels) - 1
        for k, level in enumerate(cast(Iterable[Level], self.levels)):
            yield from level.own.owners(each if k == last else [self.tasks] * len(each))
            yield from level.shared.owners([self.tasks] * len(level.shared))
            # a task's gate feeds its own experts of the next level: the last ones no other task
            # sees
            yield Owned(self.tasks, list(level.gates.parameters()), slices=k >= last - 1)
            if level.shared_gate is not None:
                yield Owned(self.tasks, list(level.shared_gate.parameters()))

    def observe(self) -> dict[str, Tensor]:
        """The tasks' gates of each level, (B, T, experts that a task sees)."""
        return self.latest

    def figures(self, means: Mapping[str, Tensor]) -> "dict[str, DataFrame]":
        """The mean gate of each task in each level."""
        return {title: table(gates, self.tasks, self.experts) for title, gates in means.items()}

    def summary(self, means: Mapping[str, Tensor]) -> list[str]:
        """How much of each task comes from shared experts."""
        lines = []
        for title, gates in means.items():
            shares = zip(self.tasks, gates[:, self.own :].sum(-1).tolist(), strict=True)
            lines.append(
                f"{title}: share of the shared experts "
                + ", ".join(f"{task} {part:.2f}" for task, part in shares)
            )
        return lines


class CGC(PLE):
    """Customised gate control: z_t = sum_k g_tk(x) f_tk(x) + sum_k g_t,K+k(x) f_sk(x) with g_t(x) = softmax(W_t x + b_t).

    Each task mixes experts of its own with shared ones: PLE of one level (Tang et al., RecSys
    2020).

    Args:
        encoder: Makes an encoder.
        tasks: The tasks' names.
        shared: Shared experts.
        own: Experts of each task.
    """

    def __init__(
        self, encoder: EncoderFactory, tasks: Sequence[str], shared: int = 2, own: int = 2
    ) -> None:
        super().__init__(encoder, tasks, shared, own, levels=1)


def own_and_shared(gates: Tensor, own: Tensor, shared: Tensor) -> Tensor:
    """Mixes what the tasks' own experts and the shared ones put out.

    Args:
        gates: (B, T, experts of a task + shared ones).
        own: (T x experts of a task, B, ...).
        shared: (shared experts, B, ...).

    Returns:
        (T, B, ...).
    """
    T = gates.shape[1]
    count = len(own) // T
    mixed = mix(gates[..., count:], shared)
    assert isinstance(mixed, Tensor)
    if not own.is_floating_point():
        return mixed
    weights = gates[..., :count].permute(1, 2, 0)
    return mixed + (
        weights.view(*weights.shape, *[1] * (own.ndim - 2)) * own.unflatten(0, (T, count))
    ).sum(1)
