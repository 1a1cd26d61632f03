"""The diagonal of the Fisher information: how sharply each weight decides the labels of rows."""

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from src.batch import Batch

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel


class ReadableRows(Protocol):
    """Rows of a data set."""

    def __len__(self) -> int:
        """Returns the number of rows."""

    def __getitem__(self, ids: Tensor, /) -> Batch:
        """Returns some rows."""


def measure_fisher(model: "MultiTaskModel", rows: ReadableRows, count: int) -> dict[str, Tensor]:
    """Measures F_i = mean over rows of sum over tasks of (d loss / d theta_i)^2.

    The loss of a task is that of all its labels in a row, a negative log-likelihood up to a scale.
    Labels are those of the rows, so that this is the empirical Fisher (Kunstner, Balles and Hennig,
    "Limitations of the empirical Fisher approximation", NeurIPS 2019).

    Args:
        model: The model, whole, on one device; it is left in evaluation mode.
        rows: The rows.
        count: Rows to measure on, spread evenly over all.

    Returns:
        {parameter's name: F, of the parameter's shape}.
    """
    model.configure_model()
    model.eval()
    named = {name: p for name, p in model.named_parameters() if not name.startswith("balancer.")}
    found = {name: torch.zeros_like(p) for name, p in named.items()}
    places = torch.linspace(0, len(rows) - 1, min(count, len(rows))).round().long()
    frozen = [p for p in named.values() if not p.requires_grad]
    for p in frozen:
        p.requires_grad_(True)

    # a row at a time: the square of a mean of gradients is not the mean of their squares
    for place in places:
        batch = rows[place[None]].to(model.device)
        with torch.enable_grad():
            outputs = model.heads(model.sharing(batch.inputs))
            sums_T, counts_T = model.heads.loss_sums(outputs, batch.targets)
        for k in counts_T.nonzero()[:, 0].tolist():
            gradients = torch.autograd.grad(
                sums_T[k], list(named.values()), retain_graph=True, materialize_grads=True
            )
            for name, gradient in zip(named, gradients, strict=True):
                found[name].add_(gradient.square())

    for p in frozen:
        p.requires_grad_(False)
    return {name: sums / len(places) for name, sums in found.items()}
