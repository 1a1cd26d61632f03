"""Layers of K networks of one kind that run as one layer.

K small layers cost K launches of everything, one batched layer costs one. Wide layers hide their
launches, and a stacked layer runs them network by network.
"""

import copy
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.models.dropout import Dropout

# A layer with this many outputs or more runs network by network on CPUs. The tensors of all
# networks together leave the cache, and malloc may give them back to the system at every step. With
# 8 encoders, 256 rows and one thread, a step is 0.89 to 0.94 times as fast as a loop at width 512
# if such layers are batched, and 0.98 to 1.02 if they are not; at width 256 it is 0.95 to 1.06
# against 1.02 to 1.09. At width 64 the batch is 1.4 times as fast as a loop. On a GPU, where each
# launch costs, all layers are batched.
LOOP_FROM = 256

# each draws a mask of its own; the mask of :class:`~src.models.dropout.Dropout` belongs to the row
OTHER_DROPOUTS = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)


class CannotStack(Exception):
    """Some networks cannot run as one."""


class Trial:
    """The first run of stacked networks, in which each layer finds out what reaches it.

    Attributes:
        apart: Whether the tensors have a leading dimension K by now; before, one tensor serves all
            networks.
        over: Whether the trial is over; layers keep what they have found.
    """

    def __init__(self) -> None:
        self.apart = False
        self.over = False


class StackedLayers(nn.Module):
    """One layer of K networks, with parameters (K, ...).

    Args:
        layers: The layers.
        trial: The first run of the networks; None where all that reaches the layer has a leading
            dimension K.

    Attributes:
        adds_dimension: Whether it reads one tensor for all networks, and so is the first layer that
            puts out a tensor with a leading dimension K.
    """

    weight: Tensor

    def __init__(self, layers: Sequence[nn.Module], trial: Trial | None = None) -> None:
        super().__init__()
        self.trial = trial
        self.adds_dimension = False
        for name, _ in layers[0].named_parameters():
            each = [layer.get_parameter(name) for layer in layers]
            frozen = not any(p.requires_grad for p in each)
            stacked = nn.Parameter(torch.stack([p.detach() for p in each]), not frozen)
            self.register_parameter(name, stacked)
        self.bias: Tensor | None = getattr(self, "bias", None)

    def find_dimension(self) -> bool:
        """Returns whether it adds the dimension K; in the trial it finds that out."""
        if self.trial is not None and not self.trial.over:
            self.adds_dimension = not self.trial.apart
            self.trial.apart = True
        return self.adds_dimension

    def is_wide(self, x: Tensor) -> bool:
        """Returns whether the networks run one by one on the device of x."""
        return self.weight.shape[1] >= LOOP_FROM and x.device.type == "cpu"

    def run_each(
        self, layer: Callable[[Tensor, Tensor, Tensor | None], Tensor], x: Tensor, for_all: bool
    ) -> Tensor:
        """Runs the layer of each network.

        Args:
            layer: Computes an output from input, weight and bias.
            x: (K, ...), or one input.
            for_all: Whether x is one input for all networks.
        """
        K = len(self.weight)
        inputs = [x] * K if for_all else x.unbind()
        biases = [None] * K if self.bias is None else self.bias.unbind()
        each = zip(inputs, self.weight.unbind(), biases, strict=True)
        return torch.stack([layer(*tensors) for tensors in each])


class StackedLinear(StackedLayers):
    """K linear layers: (K, ..., C), or (..., C) for all, -> (K, ..., C')."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns W_k x_k + b_k for each of the K networks."""
        for_all = self.find_dimension()
        if self.is_wide(x):
            return self.run_each(F.linear, x, for_all)
        if for_all:
            # one wide product
            bias = None if self.bias is None else self.bias.flatten()
            y = F.linear(x, self.weight.flatten(0, 1), bias)
            return y.unflatten(-1, self.weight.shape[:2]).movedim(-2, 0)

        rows = x.flatten(1, -2)
        if self.bias is None:
            y = torch.bmm(rows, self.weight.mT)
        else:
            y = torch.baddbmm(self.bias.unsqueeze(1), rows, self.weight.mT)
        return y.unflatten(1, x.shape[1:-1])


class StackedNorm(StackedLayers):
    """K layer normalisations over the last dimension: (K, ..., C), or (..., C), -> (K, ..., C)."""

    def __init__(self, layers: Sequence[nn.LayerNorm], trial: Trial | None = None) -> None:
        super().__init__(layers, trial)
        self.shape = layers[0].normalized_shape
        self.eps = layers[0].eps

    def forward(self, x: Tensor) -> Tensor:
        """Returns w_k norm(x_k) + b_k for each of the K networks."""
        for_all = self.find_dimension()
        if self.is_wide(x):
            return self.run_each(self._normalise, x, for_all)

        # the normalisation is the same for all, scale and shift are each network's own
        y = F.layer_norm(x, self.shape, eps=self.eps)
        if for_all:
            y = y.unsqueeze(0)
        assert self.bias is not None
        weight, bias = (p.view(len(p), *[1] * (y.ndim - 2), -1) for p in (self.weight, self.bias))
        return torch.addcmul(bias, y, weight)

    def _normalise(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.layer_norm(x, self.shape, weight, bias, self.eps)


class StackedEmbedding(StackedLayers):
    """K embedding tables: positions (...), which are the same for all, -> (K, ..., C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns the rows of each table."""
        self.find_dimension()
        return self.weight[:, x]


class StackedDropout(Dropout):
    """Dropout whose mask belongs to the row of the global batch, the network and the unit.

    Args:
        p: Share of units to drop.
        trial: The first run of the networks; None where all that reaches the layer has a leading
            dimension K.
    """

    def __init__(self, p: float, trial: Trial | None = None) -> None:
        super().__init__(p)
        self.trial = trial
        self.apart = True

    def forward(self, input: Tensor) -> Tensor:
        """(K, B, ...), or (B, ...) for all, -> the same shape."""
        if self.trial is not None and not self.trial.over:
            self.apart = self.trial.apart
        if not self.apart:
            return super().forward(input)
        # the mask is drawn by rows, so these come first; the networks come last, since a token's
        # part of it must not depend on how far this device pads its sequences
        return super().forward(input.movedim(0, -2)).movedim(-2, 0)


def stack_modules(modules: Sequence[nn.Module], trial: Trial | None = None) -> nn.Module:
    """Makes one module of K modules of one kind: their own code, over layers that serve all K.

    That code may still take the leading dimension for another one: the caller compares results.

    Raises:
        CannotStack: A layer of another kind has parameters or buffers, or a module stands at two
            places.
    """
    first = modules[0]
    if type(first) is nn.Linear:
        return StackedLinear(modules, trial)
    if type(first) is nn.LayerNorm and len(first.normalized_shape) == 1 and first.bias is not None:
        return StackedNorm(cast(Sequence[nn.LayerNorm], modules), trial)
    if type(first) is nn.Embedding and first.max_norm is None and first.padding_idx is None:
        return StackedEmbedding(modules, trial)
    if type(first) is Dropout:
        return StackedDropout(first.p, trial)

    own = [*first.parameters(recurse=False), *first.buffers(recurse=False)]
    if own or isinstance(first, OTHER_DROPOUTS):
        raise CannotStack(f"{type(first).__name__} is no layer that can be stacked")
    if len([*first.modules()]) < len([*first.named_modules(remove_duplicate=False)]):
        raise CannotStack(f"{type(first).__name__} has one module at two places")

    children = {
        name: stack_modules([module.get_submodule(name) for module in modules], trial)
        for name, _ in first.named_children()
    }
    one = copy.deepcopy(first)
    for name, child in children.items():
        setattr(one, name, child)
    return one
