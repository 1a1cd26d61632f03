"""All heads of a model, alike ones run as one product.

A loop over T small heads costs T launches of everything; T alike heads on one feature cost one matrix product, with their weights
put side by side. Each head stays a module of its own with its own parameters (``heads.<task>``), so that checkpoints, learning
rates, placement and sharding see heads, and only the arithmetic is batched.
"""

from collections import defaultdict
from collections.abc import Container, Hashable, Mapping
from dataclasses import dataclass
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.tasks import Task
from src.tasks.head import Head


@dataclass(frozen=True)
class Group:
    """K alike tasks: their names, and one of them for all."""

    names: tuple[str, ...]
    task: Task

    def stack(self, targets: Mapping[str, Tensor]) -> Tensor:
        """The K targets side by side: (B, ..., K) for scalar labels, (B, ..., K, L) for vectors."""
        dim = -1 - self.task.event_dims
        if len(self.names) == 1:
            return targets[self.names[0]].unsqueeze(dim)
        return torch.stack([targets[name] for name in self.names], dim)

    def per_task(self, elements: Tensor) -> Tensor:
        """Sums elements of the targets' shape to (K,)."""
        k = elements.ndim - 1 - self.task.event_dims
        return elements.sum([d for d in range(elements.ndim) if d != k])


class Heads(nn.Module):
    """One head per task.

    Args:
        tasks: {name: task}.
        feature_sizes: {name: size of the features its head reads}.

    Attributes:
        groups: Alike tasks; their names, one group after the other, are the order of T throughout the model.
    """

    def __init__(self, tasks: Mapping[str, Task], feature_sizes: Mapping[str, int]) -> None:
        super().__init__()
        heads = {name: task.head(feature_sizes[name]) for name, task in tasks.items()}
        taken = {*dir(self), *dir(nn.ModuleDict()), "paths", "groups"}  # names of attributes, which no module can have
        self.paths = {name: free(name, taken, tasks) for name in heads}
        for name, head in heads.items():
            self.add_module(self.paths[name], head)

        alike: dict[Hashable, list[str]] = defaultdict(list)
        for name, head in heads.items():
            batched = type(head) is Head  # a head of another make runs by itself
            alike[(tasks[name].alike(), feature_sizes[name]) if batched else name].append(name)
        self.groups = tuple(Group(tuple(names), tasks[names[0]]) for names in alike.values())

    def __getitem__(self, name: str) -> Head:
        head = self._modules[self.paths[name]]
        assert isinstance(head, Head)
        return head

    def forward(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Returns per group the outputs (B, ..., K, O), in fp32 where the features have less."""
        outputs = [self._outputs(group, [features[name] for name in group.names]) for group in self.groups]
        return [out.float() if out.dtype in (torch.half, torch.bfloat16) else out for out in outputs]

    def _outputs(self, group: Group, features: list[Tensor]) -> Tensor:
        heads = [self[name] for name in group.names]
        if len(heads) == 1:
            return heads[0](features[0]).unsqueeze(-2)
        layers = list(zip(*(head.linears for head in heads), strict=True))
        shared = all(z is features[0] for z in features)
        x = first_product(features[0], layers[0]) if shared else products(torch.stack(features, -2), layers[0])
        for layer in layers[1:]:
            x = products(F.gelu(x), layer)
        return x

    def split(self, outputs: list[Tensor]) -> dict[str, Tensor]:
        """Group outputs as {task: (B, ..., O)}."""
        pairs = zip(self.groups, outputs, strict=True)
        return {name: out[..., k, :] for group, out in pairs for k, name in enumerate(group.names)}


def free(name: str, taken: Container[str], others: Container[str]) -> str:
    """The name, with underscores behind it if it is taken."""
    if name not in taken:
        return name
    return next(path for n in count(1) if (path := name + "_" * n) not in taken and path not in others)


def first_product(z: Tensor, layers: tuple[nn.Linear, ...]) -> Tensor:
    """K linear layers on the same features: (..., D) -> (..., K, O), one product with the weights side by side."""
    weight = torch.cat([layer.weight for layer in layers])
    bias = torch.cat([layer.bias for layer in layers])
    return F.linear(z, weight, bias).unflatten(-1, (len(layers), -1))


def products(x: Tensor, layers: tuple[nn.Linear, ...]) -> Tensor:
    """K linear layers, each on its own features: (..., K, I) -> (..., K, O), one batched product."""
    weight = torch.stack([layer.weight for layer in layers])
    bias = torch.stack([layer.bias for layer in layers])
    return torch.einsum("...ki,koi->...ko", x, weight) + bias
