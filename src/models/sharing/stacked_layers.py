"""Alike layers of several networks as one: K small products cost K launches of everything, one batched product costs one."""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from src.models.dropout import Dropout


class CannotStack(Exception):
    """These networks cannot run as one."""


class Trial:
    """A first run, in which layers find out what reaches them.

    Attributes:
        apart: Whether what flows has a leading dimension K by now; before it is one tensor for all
            networks.
        over: Layers stay as they are.
    """

    apart = over = False


class StackedLayers(nn.Module):
    """The same layer of K networks, with parameters (K, ...).

    Args:
        layers: The layers.
        trial: The first run of the networks that they belong to; None: what reaches them has a
            leading dimension K.

    Attributes:
        lifts: Whether it reads one tensor for all networks, and puts out the first with a dimension
            K.
    """

    weight: Tensor
    lifts = False

    def __init__(self, layers: Sequence[nn.Module], trial: Trial | None = None) -> None:
        super().__init__()
        self.trial = trial
        for name, _ in layers[0].named_parameters():
            self.register_parameter(
                name,
                nn.Parameter(torch.stack([layer.get_parameter(name).detach() for layer in layers])),
            )
        self.bias: Tensor | None = getattr(self, "bias", None)

    def look(self) -> bool:
        """Notes whether it lifts, and returns that."""
        if self.trial is not None and not self.trial.over:
            self.lifts, self.trial.apart = not self.trial.apart, True
        return self.lifts


class StackedLinear(StackedLayers):
    """K linear layers: (K, ..., C), or (..., C) for all, -> (K, ..., C')."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns K products: one wide product where all read the same."""
        if self.look():
            y = F.linear(
                x, self.weight.flatten(0, 1), None if self.bias is None else self.bias.flatten()
            )
            return y.unflatten(-1, self.weight.shape[:2]).movedim(-2, 0)
        rows = x.flatten(1, -2)
        y = (
            torch.bmm(rows, self.weight.mT)
            if self.bias is None
            else torch.baddbmm(self.bias.unsqueeze(1), rows, self.weight.mT)
        )
        return y.unflatten(1, x.shape[1:-1])


class StackedNorm(StackedLayers):
    """K layer normalisations over the last dimension."""

    def __init__(self, layers: Sequence[nn.LayerNorm], trial: Trial | None = None) -> None:
        super().__init__(layers, trial)
        self.shape, self.eps = layers[0].normalized_shape, layers[0].eps

    def forward(self, x: Tensor) -> Tensor:
        """(K, ..., C), or (..., C) for all, -> (K, ..., C)."""
        y = F.layer_norm(x, self.shape, eps=self.eps)
        y = y.unsqueeze(0) if self.look() else y
        assert self.bias is not None
        weight, bias = (p.view(len(p), *[1] * (y.ndim - 2), -1) for p in (self.weight, self.bias))
        return torch.addcmul(bias, y, weight)


class StackedEmbedding(StackedLayers):
    """K tables: positions (...), which are the same for all, -> (K, ..., C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns the rows."""
        self.look()
        return self.weight[:, x]


class StackedDropout(Dropout):
    """Dropout whose mask belongs to the row of the global batch, the network and the unit.

    Args:
        p: Share of units to drop.
        trial: The first run of the networks that it belongs to.
    """

    def __init__(self, p: float, trial: Trial | None = None) -> None:
        super().__init__(p)
        self.trial, self.apart = trial, True

    def forward(self, x: Tensor) -> Tensor:
        """(K, B, ...), or (B, ...) for all, -> the same."""
        if self.trial is not None and not self.trial.over:
            self.apart = self.trial.apart
        return super().forward(x.movedim(0, 1)).movedim(1, 0) if self.apart else super().forward(x)


def group(modules: Sequence[nn.Module], trial: Trial | None = None) -> nn.Module:
    """One module for K of one make: their own code, over layers that work on all K at once.

    That code may still take the leading dimension for another one: whoever calls this compares the
    results.

    Raises:
        CannotStack: It has parameters or buffers in a layer of another kind.
    """
    first = modules[0]
    if type(first) is nn.Linear:
        return StackedLinear(modules, trial)
    if type(first) is nn.LayerNorm and len(first.normalized_shape) == 1 and first.bias is not None:
        return StackedNorm(modules, trial)  # type: ignore[arg-type]
    if type(first) is nn.Embedding and first.max_norm is None and first.padding_idx is None:
        return StackedEmbedding(modules, trial)
    if type(first) is Dropout:
        return StackedDropout(first.p, trial)
    if first._parameters or first._buffers or isinstance(first, _DropoutNd):
        raise CannotStack(type(first).__name__)
    whole = copy.copy(first)
    whole._modules = {
        name: group([m.get_submodule(name) for m in modules], trial)
        for name, _ in first.named_children()
    }
    return whole
