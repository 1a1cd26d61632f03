"""What an evaluation of one task gives, from batches of outputs and targets."""

import torch
from torch import Tensor

from src.tasks import Task


def measure(
    task: Task,
    outputs: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    size: int = 7,
) -> dict[str, float]:
    """Returns {metric: value} over batches of a size, on one process."""
    metrics = task.assemble_metrics()
    for start in range(0, len(outputs), size):
        rows = slice(start, start + size)
        own = None if weights is None else weights[rows]
        task.update_metrics(metrics, outputs[rows], targets[rows], own)
    return {name: float(value) for name, value in task.compute(metrics).items()}


def check_gradient(task: Task, outputs: Tensor, targets: Tensor) -> None:
    """Checks the gradient of a task's losses by differences, in float64."""
    outputs = outputs.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda o: task.losses(o, targets.double()), (outputs,))


def check_missing(task: Task, outputs: Tensor, targets: Tensor, missing: Tensor) -> None:
    """Checks that missing labels have neither a loss nor a gradient, and change no metric."""
    outputs = outputs.clone().requires_grad_()
    gaps = targets.clone()
    gaps[missing] = float("nan") if targets.is_floating_point() else -100
    losses = task.losses(outputs, gaps)
    losses.sum().backward()
    assert losses.shape == targets.shape
    assert not losses[missing].any()
    assert outputs.grad is not None
    assert not outputs.grad[missing].any()
    torch.testing.assert_close(losses[~missing], task.losses(outputs, targets)[~missing])
    kept = measure(task, outputs.detach()[~missing], targets[~missing])
    assert measure(task, outputs.detach(), gaps) == _approx(kept)


def check_batched(task: Task, other: Task, outputs: Tensor, targets: Tensor) -> None:
    """Checks that two alike tasks share one call, with the losses that each has by itself.

    Args:
        task: A task.
        other: Another one, whose label space differs.
        outputs: (B, 2, O).
        targets: (B, 2) or (B, 2, L).
    """
    assert task.loss_key() == other.loss_key()
    together = task.losses(outputs, targets)
    assert together.shape == targets.shape
    for k, alone in enumerate((task, other)):
        torch.testing.assert_close(together[:, k], alone.losses(outputs[:, k], targets[:, k]))


def _approx(values: dict[str, float]) -> object:
    import pytest

    return pytest.approx(values, rel=1e-9, nan_ok=True)
