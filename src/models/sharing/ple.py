"""Customised gate control (CGC) and progressive layered extraction (PLE)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.models.encoders.encoder import Inputs, State, map_state, top
from src.models.sharing.gates import (
    GateInput,
    Gates,
    make_example,
    make_table,
    mix,
    mix_tensors,
    pool_states,
)
from src.models.sharing.sharing import EncoderFactory, Owned, Sharing
from src.models.sharing.stacked_encoders import StackedEncoders, select_state

if TYPE_CHECKING:
    from pandas import DataFrame


class Level(nn.Module):
    """The experts of one level, and the gates that mix their outputs.

    An expert is a run of stages of an encoder.

    Args:
        encoder: Makes an encoder.
        count: T.
        shared: Shared experts.
        own: Experts of each task.
        stages: The first stage of the run, and the one behind its last.
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
        self, state: Inputs | State, shared: Inputs | State, read: Tensor, read_shared: Tensor
    ) -> tuple[State, State | None, Tensor]:
        """Runs the experts and mixes their outputs.

        Args:
            state: Inputs; behind the first level the state that each of the tasks' own experts
                reads, (T x own, B, ...).
            shared: The state that all shared experts read.
            read: The vectors that the tasks' gates read.
            read_shared: The vectors that the shared gate reads.

        Returns:
            The tasks' mixtures (T, B, ...); the mixture for the next shared experts (1, B, ...), or
            None at the end; and the tasks' gates.
        """
        own_outputs = self.own(state, self.own.apart)
        shared_outputs = self.shared(shared)
        gates = self.gates(read).softmax(-1)
        mixed = map_state(partial(mix_own_and_shared, gates), own_outputs, shared_outputs)
        if self.shared_gate is None:
            return mixed, None, gates

        # the next shared experts read all experts of this level
        everyone = map_state(lambda *each: torch.cat(each), own_outputs, shared_outputs)
        return mixed, mix(self.shared_gate(read_shared).softmax(-1), everyone), gates


class PLE(Sharing):
    """Progressive layered extraction: in each level tasks mix their own experts with shared ones.

    The encoder's stages are cut into L runs, one for each level. With K own experts f_tk of task t
    and shared experts f_sk, h_t <- sum_k g_tk f_tk(h_t) + sum_k g_t,K+k f_sk(h_s) for each task,
    and h_s <- the like sum over all tasks' experts and the shared ones, with gates g =
    softmax(W v + b) (Tang et al., "Progressive layered extraction (PLE): A novel multi-task
    learning (MTL) model for personalized recommendations", RecSys 2020). h_t and h_s start as the
    inputs, and z_t is the last h_t. v is the sample as a vector in the first level (rows as they
    are, images at 8 x 8, of sequences the mean of small embeddings), then the mean of h_t, or of
    h_s, over places.

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
        kind = type(self).__name__
        one = make_example(encoder)
        stages = len(one.stages)
        layouts = one.layouts()
        if shared < 1 or own < 1:
            raise UserError(f"{kind}: shared {shared} and own {own} must be at least 1")
        if not 1 <= levels <= stages:
            raise UserError(
                f"{kind}: levels {levels} is outside 1 ... {stages}, the stages of "
                f"{type(one).__name__}"
            )
        self.feature_sizes = dict.fromkeys(tasks, one.features)

        # the stages in L runs of about one length
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
        # the experts that a task sees, in the order of its gate
        self.experts = [
            f"{kind} {k + 1}"
            for kind, count in (("own", own), ("shared", shared))
            for k in range(count)
        ]
        self.latest: dict[str, Tensor] = {}

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns each task's mixture of the last level."""
        read = read_shared = self.read(inputs)
        state: Inputs | State = inputs
        shared: Inputs | State = inputs
        latest = {}
        for k, level in enumerate(self.levels):
            if k:
                # the mixtures of the level before are what gates and experts read
                mixed, mixed_shared = cast(State, state), cast(State, shared)
                image = self.ends[k - 1].image
                read = pool_states(top(mixed), image, inputs)
                read_shared = pool_states(top(mixed_shared), image, inputs)[0]
                state = map_state(lambda x: x.repeat_interleave(self.own, 0), mixed)
                shared = select_state(mixed_shared, 0)
            state, shared, gates = level(state, shared, read, read_shared)
            latest[f"gates of level {k + 1}"] = gates.detach()
        self.latest = {} if self.training else latest
        return dict(zip(self.tasks, top(cast(State, state)), strict=True))

    def owners(self) -> Iterator[Owned]:
        """Yields shared experts and all that shared gates read for all tasks, the rest by task."""
        yield Owned(self.tasks, list(self.read.parameters()))
        each = [(task,) for task in self.tasks for _ in range(self.own)]
        last = len(self.levels) - 1
        for k, level in enumerate(cast(Iterable[Level], self.levels)):
            yield from level.own.owners(each if k == last else [self.tasks] * len(each))
            yield from level.shared.owners([self.tasks] * len(level.shared))
            # a task's gate feeds its own experts of the next level, and in the last level no other
            # task reads these
            yield Owned(self.tasks, list(level.gates.parameters()), slices=k >= last - 1)
            if level.shared_gate is not None:
                yield Owned(self.tasks, list(level.shared_gate.parameters()))

    def observe(self) -> dict[str, Tensor]:
        """Returns the tasks' gates of each level, (B, T, experts that a task sees)."""
        return self.latest

    def figures(self, means: Mapping[str, Tensor]) -> "dict[str, DataFrame]":
        """Returns the mean gate of each task in each level."""
        return {
            title: make_table(gates, self.tasks, self.experts) for title, gates in means.items()
        }

    def summary(self, means: Mapping[str, Tensor]) -> list[str]:
        """Returns a line per level that says how much of each task comes from shared experts."""
        lines = []
        for title, gates in means.items():
            shares = zip(self.tasks, gates[:, self.own :].sum(-1).tolist(), strict=True)
            lines.append(
                f"{title}: share of the shared experts "
                + ", ".join(f"{task} {part:.2f}" for task, part in shares)
            )
        return lines


class CGC(PLE):
    """Customised gate control: each task mixes experts of its own with shared ones.

    z_t = sum_k g_tk(x) f_tk(x) + sum_k g_t,K+k(x) f_sk(x) with g_t(x) = softmax(W_t x + b_t): PLE
    with one level (Tang et al., "Progressive layered extraction (PLE)", RecSys 2020).

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


def mix_own_and_shared(gates: Tensor, own: Tensor, shared: Tensor) -> Tensor:
    """Mixes the outputs of the tasks' own experts and of the shared ones.

    Args:
        gates: (B, T, experts of a task + shared ones).
        own: (T x experts of a task, B, ...).
        shared: (shared experts, B, ...).

    Returns:
        (T, B, ...).
    """
    T = gates.shape[1]
    count = len(own) // T
    mixed = mix_tensors(gates[..., count:], shared)
    if not own.is_floating_point():
        return mixed
    weights = gates[..., :count].permute(1, 2, 0)
    weights = weights.view(*weights.shape, *[1] * (own.ndim - 2))
    return mixed + (weights * own.unflatten(0, (T, count))).sum(1)
