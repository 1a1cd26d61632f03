"""The bytes that training takes on a device, by the parts of the model that it holds."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.optim import Optimizer

from src.planning.measure import Cost
from src.planning.tensors import count_bytes, list_tensors
from src.runner import ShardableModel


@dataclass(frozen=True)
class Load:
    """Bytes on one device, by what they are for."""

    parameters: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    activations: float = 0.0

    @property
    def state(self) -> float:
        """Bytes that stay between two steps, gradients included."""
        return self.parameters + self.gradients + self.optimizer

    @property
    def total(self) -> float:
        """All bytes of a step."""
        return self.state + self.activations


@dataclass(frozen=True)
class Footprint:
    """All that the load of a device follows from, whatever parts it holds.

    Attributes:
        costs: {part: what it takes for the rows of one replica}.
        optimizer_ratio: Bytes of optimizer state per byte of trained weights.
        task_gradients: {part: bytes of the gradients of all tasks}, where the balancer takes them.
        scale: Factor on all bytes, 2 where a run uses 64-bit numbers.
    """

    costs: Mapping[str, Cost]
    optimizer_ratio: float
    task_gradients: Mapping[str, float] = field(default_factory=dict)
    scale: float = 1.0

    def load(self, held: Mapping[str, float]) -> Load:
        """Adds up the bytes on a device.

        Args:
            held: {part: share of its weights on the device}. Above 1 it is a number of copies.
                Buffers and activations are not sharded: a device that has any share has them whole.
        """
        parameters = trained = of_tasks = activations = 0.0
        for part, share in held.items():
            cost = self.costs.get(part)
            if cost is None:
                continue
            # Where weights are sharded, each device still computes the part on rows of its own.
            copies = max(share, 1.0)
            parameters += cost.parameters * share + cost.buffers * copies
            trained += cost.gradients * share
            of_tasks += self.task_gradients.get(part, 0.0) * share
            activations += cost.activations * copies

        return Load(
            parameters=self.scale * parameters,
            gradients=self.scale * (trained + of_tasks),
            optimizer=self.scale * trained * self.optimizer_ratio,
            activations=self.scale * activations,
        )


def make_footprint(
    model: ShardableModel, costs: Mapping[str, Cost], scale: float = 1.0
) -> Footprint:
    """Combines the costs of a model's parts with its optimizer's state and its tasks' gradients.

    Args:
        model: The model, built.
        costs: {part: what it takes}.
        scale: Factor on all bytes.
    """
    ratio = measure_optimizer_ratio(model.make_optimizer)
    return Footprint(costs, ratio, count_task_gradients(model), scale)


def measure_optimizer_ratio(
    make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
) -> float:
    """Measures the bytes that an optimizer keeps per byte of weights, on a small matrix."""
    weight = nn.Parameter(torch.zeros(64, 64))
    optimizer = make_optimizer([weight])

    def closure() -> float:
        weight.grad = torch.ones_like(weight)
        return 0.0

    # Some optimizers, such as LBFGS, compute the gradients themselves.
    with torch.enable_grad():
        closure()
        optimizer.step(closure)

    # A single number, such as a count of steps, does not grow with the weights.
    kept = [tensor for tensor in list_tensors(optimizer.state) if tensor.numel() > 1]
    return count_bytes(kept) / count_bytes([weight])


def count_task_gradients(model: ShardableModel) -> dict[str, float]:
    """Counts for each part the bytes of all tasks' gradients with respect to its shared weights.

    Empty where the balancer does not take gradients of parameters.
    """
    if model.balancer.level != "parameters":
        return {}
    shared = {id(p): p for p in model.sharing.shared_parameters() if p.requires_grad}
    parameters = {part: module.parameters() for part, module in model.parts().items()}
    parameters["sharing"] = model.sharing.parameters()

    # A parameter counts for the first part that has it; the rest of sharing comes last.
    found: dict[str, float] = {}
    for part, of_part in parameters.items():
        own = [shared.pop(id(p)) for p in of_part if id(p) in shared]
        found[part] = float(len(model.tasks) * count_bytes(own))
    return found
