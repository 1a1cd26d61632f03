"""The stages of one process of a pipeline, and what travels between these processes."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.microbatch import run_on_slice, slice_of_rows
from src.planning.measure import preserve_state
from src.runner import Inputs, ShardableModel, State, count_rows


@dataclass(frozen=True)
class StageInterface:
    """The form of what travels from one process to the next.

    It is a tensor x, or several that ride together. A tuple (x, masks ...) travels as one floating
    tensor (B, N) that has a gradient, its tensors side by side, since PipelineStage sees one
    tensor: masks as 0 and 1, integers as what they are, up to 2^24.

    Attributes:
        shapes: The shape of each tensor, without the rows.
        types: The type of each tensor.
        bare: Whether it is x itself, no tuple.
    """

    shapes: tuple[tuple[int, ...], ...]
    types: tuple[torch.dtype, ...]
    bare: bool

    @classmethod
    def of(cls, state: State) -> "StageInterface":
        """Returns the interface over which a state travels."""
        tensors = (state,) if isinstance(state, Tensor) else state
        shapes = tuple(tuple(t.shape[1:]) for t in tensors)
        types = tuple(t.dtype for t in tensors)
        return cls(shapes, types, isinstance(state, Tensor))

    @property
    def type(self) -> torch.dtype:
        """The type of the tensor that travels."""
        numbers = [kind for kind in self.types if kind != torch.bool]
        floats = [kind if kind.is_floating_point else torch.float32 for kind in numbers]
        return reduce(torch.promote_types, floats) if floats else torch.float32

    def empty(self, rows: int, device: torch.device | str) -> Tensor:
        """Returns a tensor for what travels, not yet filled."""
        shape = self.shapes[0] if self.bare else (sum(map(prod, self.shapes)),)
        return torch.empty(rows, *shape, dtype=self.type, device=device)

    def pack(self, state: State) -> Tensor:
        """Returns the tensor that travels for a state."""
        if isinstance(state, Tensor):
            return state.to(self.type).contiguous()
        flat = [t.reshape(len(t), prod(t.shape[1:])).to(self.type) for t in state]
        return torch.cat(flat, 1)

    def unpack(self, x: Tensor) -> State:
        """Returns the state that has travelled as a tensor."""
        if self.bare:
            return x.to(self.types[0])
        columns = x.split([prod(shape) for shape in self.shapes], 1)
        tensors = []
        for column, shape, kind in zip(columns, self.shapes, self.types, strict=True):
            value = column if kind.is_floating_point else column.round()
            tensors.append(value.reshape(len(x), *shape).to(kind))
        return tuple(tensors)


class Chunk(nn.Module):
    """The stages of one process.

    Args:
        stages: The stages, in running order.
        recompute: Whether each keeps its inputs alone, and is computed once more in the backward
            pass.
        below: Makes the input of the first stage from the tensors that arrive.
        above: The interface to the next process.
        precision: Gives the context in which they run.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        recompute: bool,
        below: Callable[..., Inputs | State],
        above: StageInterface,
        precision: Callable[[], AbstractContextManager[object]],
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.recompute = recompute
        self.below = below
        self.above = above
        self.precision = precision
        self.begin_step(0)

    def begin_step(self, rows: int) -> None:
        """Begins a step on a number of rows: random numbers are drawn anew."""
        self.rows = rows
        self.done = 0
        self.keys: list[list[int]] = [[] for _ in self.stages]

    def forward(self, *arrived: Tensor) -> Tensor:
        """Runs the next slice of the rows, from what arrives to what leaves."""
        first = self.done
        self.done += len(arrived[0])
        with self.precision():
            state: object = self.below(*arrived)
            for stage, keys in zip(self.stages, self.keys, strict=True):
                state = run_on_slice(stage, state, first, self.rows, keys, self.recompute)
        x = self.above.pack(cast(State, state))
        # where nothing below trains, the next process still sends a gradient back
        if x.requires_grad or not torch.is_grad_enabled():
            return x
        return x.detach().requires_grad_()


class DeferredWeights(torch.autograd.Function):
    """The losses of a slice, whose weights are known only when the backward pass runs."""

    @staticmethod
    def forward(ctx: Any, sums_T: Tensor, weights: Callable[[], Tensor]) -> Tensor:
        """Returns a scalar without meaning, from which a backward pass can start.

        Args:
            ctx: The context that torch hands from the forward to the backward pass.
            sums_T: (T,) The sums of the losses of the slice.
            weights: Returns (T,) the derivative of what the step minimises in the sums.
        """
        ctx.weights = weights
        return sums_T.sum()

    @staticmethod
    def backward(ctx: Any, *scale: Tensor) -> tuple[Tensor, None]:
        """Returns the weights as the gradient of the sums."""
        return ctx.weights(), None


def list_inputs(inputs: Inputs) -> list[Tensor]:
    """Returns a batch's inputs as a list of tensors."""
    return [inputs] if isinstance(inputs, Tensor) else [inputs[name] for name in sorted(inputs)]


def make_input_builder(inputs: Inputs) -> Callable[..., Inputs]:
    """Returns a function that makes inputs like these of the tensors of ``list_inputs``."""
    if isinstance(inputs, Tensor):
        return lambda x: x
    names = sorted(inputs)
    return lambda *tensors: dict(zip(names, tensors, strict=True))


def probe_stages(
    model: ShardableModel, stages: Sequence[nn.Module]
) -> tuple[list[int], list[StageInterface]]:
    """Runs the stages on an example, on the CPU, and leaves them as they were.

    Returns:
        The number of keys of random layers that each stage draws from torch's generator, and the
        interface behind each.

    Raises:
        UserError: The stages, one after the other, are not what the model runs, or one draws
            something else.
    """
    inputs = model.input_shape.example()
    with preserve_state(model), torch.no_grad():
        torch.manual_seed(0)
        features = next(iter(model.sharing(inputs).values()))

    state: object = inputs
    counts: list[int] = []
    interfaces: list[StageInterface] = []
    with preserve_state(model), torch.no_grad():
        torch.manual_seed(0)
        for k, stage in enumerate(stages):
            keys: list[int] = []
            with slice_of_rows(0, count_rows(inputs), keys):
                state = stage(state)
            counts.append(len(keys))
            interfaces.append(StageInterface.of(cast(State, state)))

            # the generator must be where the keys of all stages so far leave it
            drawn = torch.get_rng_state()
            torch.manual_seed(0)
            for _ in range(sum(counts)):
                torch.randint(2**62, ())
            if not torch.equal(torch.get_rng_state(), drawn):
                raise UserError(
                    f"--strategy pipeline: stage {k} of the encoder draws random numbers that "
                    "differ with the rows it gets; use src.models.dropout.Dropout there, or "
                    "--strategy ddp or fsdp"
                )
    if not isinstance(state, Tensor) or not torch.equal(state, features):
        raise UserError(
            "--strategy pipeline runs the stages of an encoder one after the other, but "
            f"{type(model.sharing).__name__} with this encoder does something else: use --strategy "
            "ddp or fsdp"
        )
    return counts, interfaces
