"""Alike layers of several networks as one: K small products cost K launches of everything, one batched product costs one."""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from src.models.dropout import Dropout


class CannotGroup(Exception):
    """These networks cannot run as one."""


class Flow:
    """Whether what flows through grouped layers is one tensor for all networks, or has a leading dimension K already."""

    apart = False


class Grouped(nn.Module):
    """The same layer of K networks, with parameters (K, ...).

    Args:
        layers: The layers.
        flow: Of the networks that they belong to.
    """

    def __init__(self, layers: Sequence[nn.Module], flow: Flow) -> None:
        super().__init__()
        self.flow = flow
        for name, _ in layers[0].named_parameters():
            self.register_parameter(name, nn.Parameter(torch.stack([layer.get_parameter(name).detach() for layer in layers])))

    weight: Tensor
    bias: Tensor

    def bias_over(self, x: Tensor) -> Tensor:
        """The bias (K, C) as one that is added to (K, ..., C)."""
        return self.bias.view(len(self.bias), *[1] * (x.ndim - 2), -1)


class GroupedLinear(Grouped):
    """K linear layers: (K, ..., I), or (..., I) for all, -> (K, ..., O)."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns K products: one wide product where all read the same."""
        K, O, I = self.weight.shape
        bias = getattr(self, "bias", None)
        if not self.flow.apart:
            self.flow.apart = True
            return (
                F.linear(x, self.weight.view(K * O, I), bias if bias is None else bias.view(-1))
                .unflatten(-1, (K, O))
                .movedim(-2, 0)
            )
        rows = x.flatten(1, -2)
        y = torch.bmm(rows, self.weight.mT) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, self.weight.mT)
        return y.view(*x.shape[:-1], O)


class GroupedNorm(Grouped):
    """K layer normalisations over the last dimension."""

    def __init__(self, layers: Sequence[nn.LayerNorm], flow: Flow) -> None:
        super().__init__(layers, flow)
        self.shape, self.eps = layers[0].normalized_shape, layers[0].eps

    def forward(self, x: Tensor) -> Tensor:
        """(K, ..., C), or (..., C) for all, -> (K, ..., C)."""
        y = F.layer_norm(x, self.shape, eps=self.eps)
        if not self.flow.apart:
            self.flow.apart, y = True, y.unsqueeze(0)
        weight = self.weight.view(len(self.weight), *[1] * (y.ndim - 2), -1)
        return torch.addcmul(self.bias_over(y), y, weight)


class GroupedEmbedding(Grouped):
    """K tables: positions (...), which are the same for all, -> (K, ..., C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns the rows."""
        self.flow.apart = True
        return self.weight[:, x]


class GroupedDropout(Dropout):
    """Dropout whose mask belongs to the row of the global batch, the network and the unit."""

    def __init__(self, p: float, flow: Flow) -> None:
        super().__init__(p)
        self.flow = flow

    def forward(self, x: Tensor) -> Tensor:
        """(K, B, ...), or (B, ...) for all, -> the same."""
        return super().forward(x.movedim(0, 1)).movedim(1, 0) if self.flow.apart else super().forward(x)


def group(modules: Sequence[nn.Module], flow: Flow) -> nn.Module:
    """One module for K of one make: their own code, over layers that work on all K at once.

    That code may still take the leading dimension for another one: whoever calls this compares the results.

    Raises:
        CannotGroup: It has parameters or buffers in a layer of another kind.
    """
    first = modules[0]
    if type(first) is nn.Linear:
        return GroupedLinear(modules, flow)
    if type(first) is nn.LayerNorm and len(first.normalized_shape) == 1 and first.bias is not None:
        return GroupedNorm(modules, flow)  # type: ignore[arg-type]
    if type(first) is nn.Embedding and first.max_norm is None and first.padding_idx is None:
        return GroupedEmbedding(modules, flow)
    if type(first) is Dropout:
        return GroupedDropout(first.p, flow)
    if first._parameters or first._buffers or isinstance(first, _DropoutNd):
        raise CannotGroup(type(first).__name__)
    whole = copy.copy(first)
    whole._modules = {name: group([m.get_submodule(name) for m in modules], flow) for name, _ in first.named_children()}
    return whole
