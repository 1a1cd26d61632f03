"""AdaMerging: a coefficient for each run and layer, learnt from the certainty of predictions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from src.analysis.merging.weights import State, add, subtract
from src.tasks import BinaryClassification, Classification, MultilabelClassification, Task

START = 0.3  # of each coefficient, as in the paper


@dataclass(frozen=True)
class Coefficients:
    """The learnt coefficients.

    Attributes:
        names: The tensors, in the order of L.
        values: (N, L) for N runs, from 0 to 1.
        entropies: The entropy at each step.
    """

    names: tuple[str, ...]
    values: Tensor
    entropies: list[float]


def learn_coefficients(
    states: Sequence[State],
    start: State,
    entropy: Callable[[Mapping[str, Tensor], int], Tensor],
    steps: int,
    rate: float,
) -> Coefficients:
    """Learns lambda of theta_l = theta_0,l + sum_i lambda_il tau_il, for each run i and tensor l.

    (Yang et al., "AdaMerging: adaptive model merging for multi-task learning", ICLR 2024.) Adam
    minimises the entropy of the predictions for rows without labels; coefficients stay in [0, 1].

    Args:
        states: The networks theta_i.
        start: The network theta_0 that each of them started from.
        entropy: Returns the entropy of the predictions of a network, given its tensors and the
            number of the step, by which it chooses rows.
        steps: Number of steps.
        rate: Learning rate.
    """
    vectors = [subtract(state, start) for state in states]
    names = tuple(vectors[0])
    values = torch.full((len(states), len(names)), START, requires_grad=True)
    optimizer = torch.optim.Adam([values], lr=rate)
    moved = [{name: vector[name].to(start[name].dtype) for name in names} for vector in vectors]
    entropies = []
    for step in range(steps):
        tensors = dict(start)
        for column, name in enumerate(names):
            for row, vector in enumerate(moved):
                tensors[name] = tensors[name] + values[row, column] * vector[name]
        found = entropy(tensors, step)
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        with torch.no_grad():
            values.clamp_(0, 1)
        entropies.append(found.item())
    return Coefficients(names, values.detach(), entropies)


def merge_by_coefficients(
    states: Sequence[State], start: State, learnt: Coefficients
) -> dict[str, Tensor]:
    """Returns theta_l = theta_0,l + sum_i lambda_il tau_il.

    Args:
        states: The networks theta_i.
        start: The network theta_0.
        learnt: The coefficients.
    """
    total: dict[str, Tensor] = {}
    for row, state in enumerate(states):
        for name, tensor in subtract(state, start).items():
            part = learnt.values[row, learnt.names.index(name)].double() * tensor
            total[name] = total[name] + part if name in total else part
    return add(start, total)


def has_entropy(task: Task) -> bool:
    """Returns whether a task predicts probabilities of classes or labels."""
    return isinstance(task, BinaryClassification | Classification | MultilabelClassification)


def compute_entropy(task: Task, outputs: Tensor) -> Tensor:
    """Returns the mean entropy of predictions, a scalar.

    Args:
        task: One for which :func:`has_entropy` is true.
        outputs: (B, ..., O) logits.
    """
    if isinstance(task, Classification):
        logs = outputs.log_softmax(-1)
        return -(logs.exp() * logs).sum(-1).mean()
    # of several labels each is an event of its own
    return binary_cross_entropy_with_logits(outputs, outputs.sigmoid())
