"""A chain of stages over several processes: what each of them runs, and what travels over the borders between them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, reduce
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.microbatch import on_slice, slice_of_rows
from src.planning.measure import preserve_state

State = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class StageInterface:
    """What travels from one stage to the next: a tensor x, or several that ride together, of which PipelineStage sees one.

    A tuple (x, masks ...) travels as one floating tensor (B, N) that has a gradient, its parts side
    by side: masks as 0 and 1, integers as what they are, up to 2^24.

    Attributes:
        shapes: Of each tensor, without the rows.
        types: Of each tensor.
        bare: Whether it is x itself, no tuple.
    """

    shapes: tuple[tuple[int, ...], ...]
    types: tuple[torch.dtype, ...]
    bare: bool

    @classmethod
    def of(cls, state: State) -> "StageInterface":
        """What such a state needs."""
        parts = (state,) if isinstance(state, Tensor) else state
        return cls(
            tuple(tuple(t.shape[1:]) for t in parts),
            tuple(t.dtype for t in parts),
            isinstance(state, Tensor),
        )

    @property
    def type(self) -> torch.dtype:
        """Of what travels."""
        floats = [
            kind if kind.is_floating_point else torch.float32
            for kind in self.types
            if kind != torch.bool
        ]
        return reduce(torch.promote_types, floats) if floats else torch.float32

    def empty(self, rows: int, device: torch.device | str) -> Tensor:
        """Room for what travels."""
        shape = self.shapes[0] if self.bare else (sum(map(prod, self.shapes)),)
        return torch.empty(rows, *shape, dtype=self.type, device=device)

    def pack(self, state: State) -> Tensor:
        """A state as what travels."""
        if isinstance(state, Tensor):
            return state.to(self.type).contiguous()
        return torch.cat(
            [part.reshape(len(part), prod(part.shape[1:])).to(self.type) for part in state], 1
        )

    def unpack(self, x: Tensor) -> State:
        """What has travelled as a state."""
        if self.bare:
            return x.to(self.types[0])
        parts = zip(
            x.split([prod(shape) for shape in self.shapes], 1), self.shapes, self.types, strict=True
        )
        return tuple(
            (part if kind.is_floating_point else part.round()).reshape(len(x), *s).to(kind)
            for part, s, kind in parts
        )


class Chunk(nn.Module):
    """The stages of one process.

    Args:
        stages: They, in running order.
        recompute: Whether each keeps its inputs alone, and is computed once more in the backward
            pass.
        below: Makes a state of what comes over the border below.
        above: What goes over the border above.
        precision: In which context they run.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        recompute: bool,
        below: Callable[..., Any],
        above: StageInterface,
        precision: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.recompute, self.below, self.above, self.precision = recompute, below, above, precision
        self.begin(0)

    def begin(self, rows: int) -> None:
        """A new step, on so many rows in all: what is drawn at random is drawn anew."""
        self.rows, self.done = rows, 0
        self.keys: list[list[int]] = [[] for _ in self.stages]

    def forward(self, *arrived: Tensor) -> Tensor:
        """The next slice of the rows, over both borders."""
        first, self.done = self.done, self.done + len(arrived[0])
        with self.precision():
            state = self.below(*arrived)
            for stage, keys in zip(self.stages, self.keys, strict=True):
                state = on_slice(stage, state, first, self.rows, keys, self.recompute)
        x = self.above.pack(state)
        # where nothing that trains is below, the border above still has a gradient
        return x if x.requires_grad or not torch.is_grad_enabled() else x.detach().requires_grad_()


class Weighed(torch.autograd.Function):
    """The losses of a slice, whose backward pass follows weights that are known only when it runs."""

    @staticmethod
    def forward(ctx: Any, sums_T: Tensor, weights: Callable[[], Tensor]) -> Tensor:
        """Returns a scalar of no meaning."""
        ctx.weights = weights
        return sums_T.sum()

    @staticmethod
    def backward(ctx: Any, *scale: Tensor) -> Any:
        """Returns d total / d sums."""
        return ctx.weights(), None


def balanced(sizes: Sequence[float], ranks: int) -> list[int]:
    """How many stages each rank has, so that the largest sum of their sizes is smallest; each has at least one."""

    @cache
    def best(first: int, ranks: int) -> tuple[float, tuple[int, ...]]:
        if ranks == 1:
            return sum(sizes[first:]), (len(sizes) - first,)
        found = []
        for k in range(first + 1, len(sizes) - ranks + 2):
            largest, cut = best(k, ranks - 1)
            found.append((max(sum(sizes[first:k]), largest), (k - first, *cut)))
        return min(found)

    return list(best(0, ranks)[1])


def rows_of(inputs: Tensor | Mapping[str, Tensor]) -> int:
    """The number of rows of a batch's inputs."""
    return len(inputs if isinstance(inputs, Tensor) else next(iter(inputs.values())))


def flat(inputs: Tensor | Mapping[str, Tensor]) -> list[Tensor]:
    """A batch's inputs as a list of tensors."""
    return [inputs] if isinstance(inputs, Tensor) else [inputs[name] for name in sorted(inputs)]


def unflat(inputs: Tensor | Mapping[str, Tensor]) -> Callable[..., Any]:
    """Makes inputs of such a list again, of the same form as these."""
    if isinstance(inputs, Tensor):
        return lambda x: x
    names = sorted(inputs)
    return lambda *tensors: dict(zip(names, tensors, strict=True))


def tried(model: Any, stages: Sequence[nn.Module]) -> tuple[list[int], list[StageInterface]]:
    """Runs the stages on an example, on the CPU, and leaves them as they were.

    Returns:
        How many keys of random layers each draws from torch's generator, and the border above each.

    Raises:
        UserError: The stages, one after the other, are not what the model runs, or one draws
            something else.
    """
    inputs = model.input_shape.example()
    with preserve_state(model), torch.no_grad():
        torch.manual_seed(0)
        features = next(iter(model.sharing(inputs).values()))
    state, counts, borders = inputs, [], []
    with preserve_state(model), torch.no_grad():
        torch.manual_seed(0)
        for k, stage in enumerate(stages):
            keys: list[int] = []
            with slice_of_rows(0, rows_of(inputs), keys):
                state = stage(state)
            counts.append(len(keys))
            borders.append(StageInterface.of(state))
            drawn = torch.get_rng_state()
            torch.manual_seed(0)
            for _ in range(sum(counts)):
                torch.randint(2**62, ())
            if not torch.equal(torch.get_rng_state(), drawn):
                raise UserError(
                    f"--strategy pipeline: stage {k} of the encoder draws random numbers that differ with the rows it gets; "
                    "use src.models.dropout.Dropout there, or --strategy ddp or fsdp"
                )
    if not isinstance(state, Tensor) or not torch.equal(state, features):
        raise UserError(
            f"--strategy pipeline runs the stages of an encoder one after the other, but {type(model.sharing).__name__} with this "
            "encoder does something else: use --strategy ddp or fsdp"
        )
    return counts, borders
