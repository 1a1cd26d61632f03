"""ANIL's inner loop on frozen features: the head takes a few steps of plain gradient descent."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from src.models.few_shot.examples import Examples, mean_loss
from src.models.meta.inner_loop import Parameters, descend
from src.tasks import Task
from src.tasks.head import Head

INNER_STEPS = 10  # where no meta-learning has set them


@dataclass(frozen=True)
class InnerLoop:
    """How the inner loop runs.

    Attributes:
        head: The state of the meta-learnt head where it starts; None: zeros.
        steps: Its steps.
        rate: Their rate; None: one that suits the features, see ``find_rate``.
    """

    head: Mapping[str, Tensor] | None = None
    steps: int = INNER_STEPS
    rate: float | None = None


def adapt_head(task: Task, head: Head, examples: Examples, loop: InnerLoop) -> float:
    """Takes the inner steps in place, with all examples in each.

    (Raghu et al., "Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness of
    MAML", ICLR 2020: at test time the features stay, and the head alone takes the inner steps.)

    Args:
        task: The task.
        head: Its head, whose own weights do not matter.
        examples: The examples.
        loop: How it runs.

    Returns:
        The rate.
    """
    rate = find_rate(examples) if loop.rate is None else loop.rate
    start = {}
    for name, parameter in head.named_parameters():
        zeros = torch.zeros_like(parameter)
        start[name] = zeros if loop.head is None else loop.head[name].to(zeros)

    def loss(parameters: Parameters) -> Tensor:
        outputs: Tensor = functional_call(head, parameters, (examples.features,))
        return mean_loss(task, outputs, examples)

    with torch.enable_grad():
        *_, end = descend(loss, start, dict.fromkeys(start, rate), loop.steps, first_order=True)
    head.load_state_dict({name: tensor.detach() for name, tensor in end.items()})
    return rate


def find_rate(examples: Examples) -> float:
    """Returns the inner rate for a head that no meta-learning has prepared.

    It is 1 / (2 m), with m the largest eigenvalue of the second moments of (z, 1) over the
    examples: steps of a linear head at this rate never raise squared errors or cross-entropy,
    whose second derivatives are at most 2 m.
    """
    z = examples.features.detach().double().flatten(0, -2)
    with_bias = torch.cat([z, z.new_ones(len(z), 1)], 1)
    largest = torch.linalg.matrix_norm(with_bias, 2) ** 2 / len(z)
    return float(1 / (2 * largest))
