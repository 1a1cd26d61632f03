"""The contract of penalties that keep weights near their start."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from src.errors import UserError

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel


class Anchor(ABC):
    """Adds s/2 sum_i c_i (theta_i - theta0_i)^2 to what each step minimises.

    theta0 are the weights that the run started from, s the strength, and c_i says how much a weight
    matters. The penalty is of the weights that came from the source; fresh ones are free.

    Args:
        strength: s, at least 0.

    Attributes:
        reads_fisher: Whether c are read from the Fisher information of the source.
    """

    reads_fisher: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, strength: float) -> None:
        if not 0 <= strength < float("inf"):
            name = type(self).__name__
            raise UserError(f"{name}: strength is {strength}; it must be a number of at least 0")
        self.strength = strength
        self.model: MultiTaskModel | None = None
        # shards of this process: name, theta0, c
        self.held: list[tuple[str, Tensor, Tensor | None]] = []

    def hold(
        self,
        model: "MultiTaskModel",
        names: Collection[str],
        start: Mapping[str, Tensor],
        fisher: Mapping[str, Tensor],
    ) -> None:
        """Notes the weights to stay near, in the layout of the strategy.

        Args:
            model: The model, on its devices.
            names: The parameters that came from the source.
            start: theta0 of all parameters, whole tensors.
            fisher: The diagonal of the Fisher information by parameter; empty unless it is read.
        """
        self.model = model
        self.held = []
        shards = model.runner.shards

        def lay_out(tensor: Tensor, p: Tensor) -> Tensor:
            if shards is None:
                return tensor.to(p)
            return shards.local(shards.shard_like(tensor.to(p.dtype), p))

        parameters = dict(model.named_parameters())
        for name in names:
            p = parameters[name]
            weight = lay_out(fisher[name], p) if self.reads_fisher else None
            self.held.append((name, lay_out(start[name], p), weight))

    def penalty(self) -> Tensor:
        """Returns the penalty, 0 before a run has begun; frozen weights stand where they stood.

        Where weights are spread over processes, each process has the gradients of its shards, and
        all have the value of the whole.
        """
        model = self.model
        if model is None:
            return torch.zeros(())
        shards = model.runner.shards
        parameters = dict(model.named_parameters())
        terms = []
        shares = []
        for name, start, weight in self.held:
            p = parameters[name]
            if not p.requires_grad:
                continue
            own = p if shards is None else shards.local(p)
            square = (own - start).square()
            term = (square if weight is None else square * weight).sum().to(model.device)
            terms.append(term)
            shares.append(1.0 if shards is None else 1.0 / shards.holders(p))
        if not terms:
            return torch.zeros((), device=model.device)
        own_value = torch.stack(terms).sum() * (self.strength / 2)
        if shards is None:
            return own_value

        # a shard that several processes hold counts once
        counted = torch.stack(terms).detach() * torch.tensor(shares, device=model.device)
        whole = shards.sum_over_processes(counted.sum()) * (self.strength / 2)
        return own_value + (whole - own_value.detach())
