"""Examples of a task as a head sees them: features, labels, and the loss over them."""

from dataclasses import dataclass

from torch import Tensor

from src.tasks import Task
from src.tasks.labels import is_labelled


@dataclass(frozen=True)
class Examples:
    """Rows of one task behind a frozen encoder.

    Attributes:
        features: (B, ..., D).
        targets: (B, ...) as the task encodes them.
        weights: (B,) weights of the rows; None weighs all alike.
    """

    features: Tensor
    targets: Tensor
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, rows: Tensor) -> "Examples":
        """Returns some of the rows."""
        weights = None if self.weights is None else self.weights[rows]
        return Examples(self.features[rows], self.targets[rows], weights)

    def double(self) -> "Examples":
        """Returns the rows in float64; labels that are classes stay integers."""
        targets = self.targets.double() if self.targets.is_floating_point() else self.targets
        weights = None if self.weights is None else self.weights.double()
        return Examples(self.features.double(), targets, weights)

    def label_weights(self) -> Tensor:
        """Returns the weight of each label, 0 where it is missing: the shape of the targets."""
        known = is_labelled(self.targets).to(self.features)
        if self.weights is None:
            return known
        return known * self.weights.to(known).view(-1, *[1] * (known.ndim - 1))


def sum_losses(task: Task, outputs: Tensor, examples: Examples) -> tuple[Tensor, Tensor]:
    """Returns the weighted sum of a task's losses, and the sum of the weights of known labels.

    Args:
        task: The task.
        outputs: (B, ..., O).
        examples: The rows.
    """
    weights = examples.label_weights()
    losses = task.losses(outputs, examples.targets)
    return (losses * weights).sum(), weights.sum()


def mean_loss(task: Task, outputs: Tensor, examples: Examples) -> Tensor:
    """Returns the mean of a task's losses over the known labels of some rows, as a scalar."""
    total, count = sum_losses(task, outputs, examples)
    return total / count.clamp(min=1e-12)
