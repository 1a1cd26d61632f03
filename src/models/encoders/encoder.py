"""The contract of every encoder: a sequence of stages, and the size of the features.

A tensor x travels from stage to stage, or a tuple (x, ...) whose other tensors ride along: masks of
padding, skips. Between stages an image is (B, C, H, W), anything else (B, ..., C). The features of
the last stage are (B, ..., D), for images too, so that one head serves vectors, tokens and pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from src.batch import InputShape
from src.errors import UserError

Inputs = Tensor | dict[str, Tensor]
State = Tensor | tuple[Tensor, ...]


def top(state: State) -> Tensor:
    """Returns the tensor x that travels from stage to stage."""
    return state if isinstance(state, Tensor) else state[0]


def with_top(state: State, x: Tensor) -> State:
    """Returns a state with another x; its other tensors stay."""
    return x if isinstance(state, Tensor) else (x, *state[1:])


def map_state(function: Callable[..., Tensor], *states: State) -> State:
    """Applies a function to each tensor of a state, or to the tensors at one place of several."""
    if isinstance(states[0], Tensor):
        return function(*states)
    return tuple(function(*tensors) for tensors in zip(*states, strict=True))


def recompute_stage(stage: Callable[[Inputs | State], State], state: Inputs | State) -> State:
    """Runs a stage so that only its input is kept; the backward pass computes the stage once more.

    (Chen et al., "Training deep nets with sublinear memory cost", arXiv 1604.06174.)
    """
    # without gradients nothing is kept anyway
    if not torch.is_grad_enabled():
        return stage(state)
    found: State = checkpoint(stage, state, use_reentrant=False)
    return found


@dataclass(frozen=True)
class Layout:
    """The form of a stage's output.

    Attributes:
        channels: C.
        image: Whether the output is (B, C, H, W); otherwise it is (B, ..., C).
        dims: Number of dimensions, the batch included.
    """

    channels: int
    image: bool
    dims: int

    def to_channels_last(self, x: Tensor) -> Tensor:
        """Moves the channels of x to the end; x is of one encoder, or of K encoders (K, B, ...)."""
        return x.movedim(-3, -1) if self.image else x

    def from_channels_last(self, x: Tensor) -> Tensor:
        """Moves the channels of x from the end to where this layout has them."""
        return x.movedim(-1, -3) if self.image else x


class Encoder(nn.Module, ABC):
    """Inputs -> features (B, ..., D), through a stem and a sequence of stages.

    Stages are the one seam that everything uses: architectures that share between layers act
    between stages, placement and FSDP cut at stages, activation checkpointing wraps stages. An
    encoder draws its initial weights from torch's global generator and from nothing else.

    Attributes:
        stages: nn.Sequential; the first one reads the inputs as the batch holds them.
        features: Size D of the last stage's output.
        recompute: Whether only the inputs of stages are kept, and the backward pass computes each
            stage once more.
        schedule: Runs all stages in another order, on slices of the rows, where a strategy has put
            it there.
    """

    stages: nn.Sequential
    features: int
    recompute: bool = False
    schedule: Callable[[Inputs], Tensor] | None = None

    @abstractmethod
    def __init__(self, shape: InputShape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Tensor:
        """Returns the features of the last stage."""
        if self.schedule is not None:
            return self.schedule(inputs)
        # one call of the sequence: hooks and compilation see it whole
        if not self.recompute:
            return self.stages(inputs)

        state: Inputs | State = inputs
        for stage in self.stages:
            state = self.run(stage, state)
        return cast(Tensor, state)

    def run(self, stage: nn.Module, state: Inputs | State) -> State:
        """Runs one of the stages, for architectures that act between them."""
        if self.recompute:
            return recompute_stage(stage, state)
        found: State = stage(state)
        return found

    def tensor_parallel_plan(self) -> dict[str, tuple[str, int]]:
        """States how devices can compute layers of this encoder together.

        Encoders of this package leave it to :mod:`src.models.encoders.tensor_parallel`, which knows
        their blocks. A new encoder names its own layers here.

        Returns:
            {path of a layer: (split, pieces)}, such as ``{"stages.1.linear1": ("columns", 64),
            "stages.1.linear2": ("rows", 64)}``. The split is ``columns`` (outputs of a linear
            layer), ``rows`` (its inputs) or ``units`` (a dropout layer between two of these); the
            number of devices must divide the pieces.
        """
        return {}

    @torch.no_grad()
    def layouts(self) -> list[Layout]:
        """Finds the layout of each stage's output, by running two samples."""
        training = self.training
        self.eval()
        found = []
        with torch.random.fork_rng(devices=[]), torch.compiler.set_stance("force_eager"):
            state = self.shape.example()
            for k, stage in enumerate(self.stages):
                state = stage(state)
                x = top(state)
                # the features of the last stage have their channels last, images too
                image = x.ndim == 4 and k < len(self.stages) - 1
                found.append(Layout(x.shape[1 if image else -1], image, x.ndim))
        self.train(training)
        return found

    def cut(self, first: int, last: int | None = None) -> Self:
        """Keeps only the stages first ... last - 1, under their names, and returns itself."""
        self.stages = self.stages[first:last]  # type: ignore[assignment]
        return self

    @torch.no_grad()
    def check(self, shape: InputShape) -> None:
        """Tries the encoder on two samples.

        Args:
            shape: The shape of one sample.

        Raises:
            UserError: The encoder lacks a part of the contract, or its features have another size
                than it says.
        """
        name = type(self).__name__
        # a compiled sequence is no nn.Sequential
        if not isinstance(getattr(self, "stages", None), nn.Module):
            raise UserError(f"{name} sets no self.stages: an encoder is an nn.Sequential of stages")
        if not isinstance(getattr(self, "features", None), int):
            raise UserError(
                f"{name} sets no self.features: the size of its last stage's output, a whole number"
            )

        training = self.training
        self.eval()
        with torch.random.fork_rng(devices=[]), torch.compiler.set_stance("force_eager"):
            z = top(self.stages(shape.example()))
        self.train(training)
        if z.shape[-1] == self.features:
            return
        order = ""
        if z.ndim > 3 and z.shape[1] == self.features:
            order = "; channels come last in features, for images too"
        raise UserError(
            f"{name} says that its features have size {self.features}, but its last stage puts out "
            f"{z.shape[-1]} {tuple(z.shape)}: set self.features = {z.shape[-1]}, or mend the last "
            f"stage{order}"
        )


def check_each(make: Callable[[InputShape], Encoder]) -> Callable[[InputShape], Encoder]:
    """Returns a factory that checks each encoder it makes, so that an error names its cause."""
    # a function defined here could not be sent to a process that is spawned
    return partial(make_and_check, make)


def make_and_check(make: Callable[[InputShape], Encoder], shape: InputShape) -> Encoder:
    """Makes an encoder and checks it."""
    encoder = make(shape)
    encoder.check(shape)
    return encoder
