"""The worst case: inputs moved within a bound so that the loss of a task rises most."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from src.analysis.robustness.parts import Inputs, Part
from src.errors import UserError
from src.tasks import Task

if TYPE_CHECKING:
    from captum.robust import PGD

STEPS = 10
STEP = 2.5 / STEPS  # of the radius, so that the steps can go from one side of the ball to the other


def find_attackable(parts: Sequence[Part]) -> list[Part]:
    """Returns the parts whose numbers or pixels can be moved a little."""
    return [part for part in parts if part.number_places or part.kind in ("image", "sequence")]


def attack_inputs(
    run: Callable[[Inputs], Mapping[str, Tensor]],
    name: str,
    task: Task,
    parts: Sequence[Part],
    inputs: Inputs,
    targets: Tensor,
    radius: float,
) -> Inputs:
    """Moves inputs by projected gradient ascent on the loss of a task.

    (Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018.) Each
    number moves by at most ``radius`` standard deviations of the training rows. Categories, missing
    values and their indicators stay; pixels stay within those of the training rows. A row without a
    label stays as it is.

    Args:
        run: Returns {task: outputs (B, ..., O)} of inputs, with gradients.
        name: The task.
        task: The same task, whose loss rises.
        parts: The parts of a sample.
        inputs: The inputs of B rows.
        targets: (B, ...) The labels of the task.
        radius: The bound, in standard deviations.

    Returns:
        The inputs, moved.

    Raises:
        UserError: captum is not installed.
    """
    moved = find_attackable(parts)
    starts = [part.read(inputs)["dense"] for part in moved]
    scales = [part.learnt.std.to(x.dtype) for part, x in zip(moved, starts, strict=True)]
    masks = tuple(mask_movable(part, x) for part, x in zip(moved, starts, strict=True))

    def assemble(*offsets: Tensor) -> Inputs:
        """Returns inputs moved by offsets in standard deviations."""
        changed = inputs
        for part, x, scale, offset in zip(moved, starts, scales, offsets, strict=True):
            dense = x + offset * scale
            if part.kind == "image":
                low = torch.minimum(x, part.learnt.low.to(x.dtype))
                high = torch.maximum(x, part.learnt.high.to(x.dtype))
                dense = dense.clamp(low, high)
            changed = part.write(changed, {"dense": dense})
        return changed

    def forward(*offsets: Tensor) -> Tensor:
        return run(assemble(*offsets))[name]

    def sum_losses(outputs: Tensor, labels: Tensor) -> Tensor:
        # a loss for each row: rows have an attack of their own. In single precision the gradient
        # of a prediction that is sure and right would be 0
        labels = labels.double() if labels.is_floating_point() else labels
        losses = task.losses(outputs.double(), labels)
        return losses.flatten(1).sum(1) if losses.ndim > 1 else losses

    attack = import_attacks()(forward, sum_losses)
    # the gradient of a loss that is nearly 0 has a direction, too
    attack.fgsm.zero_thresh = 0.0
    zeros = tuple(torch.zeros_like(x) for x in starts)
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Input Tensor .* did not already require")
        offsets = attack.perturb(zeros, radius, STEP * radius, STEPS, targets, mask=masks)
    with torch.no_grad():
        return assemble(*offsets)


def mask_movable(part: Part, dense: Tensor) -> Tensor:
    """Returns 1 where a number may move, and 0 where it is missing, an indicator, or constant."""
    mask = torch.ones_like(dense)
    if part.kind == "table":
        mask.zero_()
        mask[:, part.number_places] = 1
        mask = mask.masked_fill(part.find_missing(dense), 0)
    return mask * (part.learnt.std > 0).to(dense.dtype)


def import_attacks() -> "type[PGD]":
    """Imports the attack of captum.

    Raises:
        UserError: It is not installed.
    """
    try:
        from captum.robust import PGD
    except ModuleNotFoundError:
        raise UserError("attacks need the captum package: pip install captum") from None
    return PGD
