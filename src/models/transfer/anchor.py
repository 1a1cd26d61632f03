"""The contract of penalties that keep weights near their start."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from src.errors import UserError

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel


class Held(NamedTuple):
    """A parameter that stays near its start, as this process holds it.

    Attributes:
        parameter: The parameter.
        start: theta0, this process's shard.
        weight: c, this process's shard; None for 1.
        share: The part of the shard's penalty that this process counts.
    """

    parameter: nn.Parameter
    start: Tensor
    weight: Tensor | None
    share: float


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
        self.held: list[Held] = []

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
            # a shard that several processes hold counts once
            share = 1.0 if shards is None else 1.0 / shards.holders(p)
            self.held.append(Held(p, lay_out(start[name], p), weight, share))

    def penalty(self) -> Tensor:
        """Returns the penalty, 0 before a run has begun; frozen weights stand where they stood.

        Where weights are spread over processes, each process has the gradients of its shards, and
        all have the value of the whole.
        """
        model = self.model
        if model is None:
            return torch.zeros(())
        shards = model.runner.shards
        terms = []
        shares = []
        for held in self.held:
            if not held.parameter.requires_grad:
                continue
            own = held.parameter if shards is None else shards.local(held.parameter)
            square = (own - held.start).square()
            if held.weight is not None:
                square = square * held.weight
            terms.append(square.sum().to(model.device))
            shares.append(held.share)
        if not terms:
            return torch.zeros((), device=model.device)
        own_value = torch.stack(terms).sum() * (self.strength / 2)
        if shards is None:
            return own_value

        counted = torch.stack(terms).detach() * torch.tensor(shares, device=model.device)
        whole = shards.sum_over_processes(counted.sum()) * (self.strength / 2)
        return own_value + (whole - own_value.detach())
