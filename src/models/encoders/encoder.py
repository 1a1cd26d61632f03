"""The contract of every encoder: a sequence of stages and the size of what comes out.

What travels from stage to stage is a tensor x, or a tuple (x, ...) whose other tensors ride along:
masks of padding, skips. FeatureExchange stages an image is (B, C, H, W), anything else (B, ..., C);
the features that the last stage puts out are (B, ..., D), for images too, so that one head serves
vectors, tokens and pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from src.batch import InputShape
from src.errors import UserError

State = Tensor | tuple[Tensor, ...]


def top(state: State) -> Tensor:
    """The tensor x that travels from stage to stage."""
    return state if isinstance(state, Tensor) else state[0]


def with_top(state: State, x: Tensor) -> State:
    """The same with another x; what rides along stays."""
    return x if isinstance(state, Tensor) else (x, *state[1:])


def recomputed(function: Callable[[Any], Any], state: Any) -> Any:
    """Calls a function of which nothing but its input is kept for the backward pass (Chen et al., arXiv 1604.06174)."""
    return (
        checkpoint(function, state, use_reentrant=False)
        if torch.is_grad_enabled()
        else function(state)
    )


@dataclass(frozen=True)
class Layout:
    """What a stage puts out.

    Attributes:
        channels: C.
        image: Whether it is (B, C, H, W); otherwise (B, ..., C).
        dims: Number of dimensions, the batch included.
    """

    channels: int
    image: bool
    dims: int

    def last(self, x: Tensor) -> Tensor:
        """Returns x, of one encoder or of K (K, B, ...), with its channels last."""
        return x.movedim(-3, -1) if self.image else x

    def back(self, x: Tensor) -> Tensor:
        """Returns x, which has its channels last, in this layout."""
        return x.movedim(-1, -3) if self.image else x


class Encoder(nn.Module, ABC):
    """Inputs -> features (B, ..., D), through a stem and a sequence of stages.

    Stages are the one seam that everything uses: architectures that share between layers act
    between stages, placement and FSDP cut at stages, activation checkpointing wraps stages. An
    encoder draws its initial weights from torch's global generator and from nothing else.

    Attributes:
        stages: nn.Sequential; the first one reads the inputs as the batch holds them.
        features: Size D of the last stage's output.
        recompute: Whether each stage keeps its inputs alone, and is computed once more in a
            backward pass.
    """

    stages: nn.Sequential
    features: int
    recompute: bool = False
    schedule: Callable[[Any], Any] | None = None

    @abstractmethod
    def __init__(self, shape: InputShape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Tensor:
        """Returns the features of the last stage."""
        if self.schedule is not None:
            features: Tensor = self.schedule(inputs)
            return features
        if not self.recompute:
            return self.stages(inputs)
        state: Any = inputs
        for stage in self.stages:
            state = self.run(stage, state)
        return state

    def run(self, stage: nn.Module, state: Any) -> Any:
        """Runs one of its stages, for architectures that act between them."""
        return recomputed(stage, state) if self.recompute else stage(state)

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
        """What each stage puts out, found out by trying."""
        training = self.training
        self.eval()
        found = []
        with torch.random.fork_rng(devices=[]), torch.compiler.set_stance("force_eager"):
            state = self.shape.example()
            for k, stage in enumerate(self.stages):
                state = stage(state)
                x = top(state)
                image = x.ndim == 4 and k < len(self.stages) - 1
                found.append(Layout(x.shape[1 if image else -1], image, x.ndim))
        self.train(training)
        return found

    def cut(self, first: int, last: int | None = None) -> Self:
        """Keeps the stages first ... last - 1 alone, under the names that they had; returns itself."""
        self.stages = self.stages[first:last]  # type: ignore[assignment]
        return self

    @torch.no_grad()
    def check(self, shape: InputShape) -> None:
        """Tries the encoder on two samples.

        Args:
            shape: What one sample looks like.

        Raises:
            UserError: It lacks a part of the contract, or its features have another size than it
                says.
        """
        name = type(self).__name__
        if not isinstance(
            getattr(self, "stages", None), nn.Module
        ):  # a compiled one is no nn.Sequential
            raise UserError(f"{name} sets no self.stages: an encoder is an nn.Sequential of stages")
        if not isinstance(getattr(self, "features", None), int):
            raise UserError(
                f"{name} sets no self.features: the size of what its last stage puts out, a whole number"
            )
        training = self.training
        self.eval()
        with torch.random.fork_rng(devices=[]), torch.compiler.set_stance("force_eager"):
            z = top(self.stages(shape.example()))
        self.train(training)
        if z.shape[-1] != self.features:
            order = (
                "; channels come last in features, for images too"
                if z.ndim > 3 and z.shape[1] == self.features
                else ""
            )
            raise UserError(
                f"{name} says that its features have size {self.features}, but its last stage puts out {z.shape[-1]} "
                f"{tuple(z.shape)}: set self.features = {z.shape[-1]}, or mend the last stage{order}"
            )


def checked(make: Callable[[InputShape], Encoder]) -> Callable[[InputShape], Encoder]:
    """Returns a factory that tries each encoder it makes, so that a wrong size is said where it arises."""
    return partial(
        made, make
    )  # a function of its own could not be sent to a process that is spawned


def made(make: Callable[[InputShape], Encoder], shape: InputShape) -> Encoder:
    """Makes an encoder and tries it."""
    encoder = make(shape)
    encoder.check(shape)
    return encoder
