"""A tiny network on episodes, in float64, and the same network as a formula."""

from typing import Any

import torch
from torch import Tensor, nn

from src.batch import Batch, InputShape
from src.models import MultiTaskModel
from src.models.encoders import Encoder
from src.models.meta import Meta
from src.tasks import Classification, Regression, Task
from src.tasks.labels import get_missing

E, S, Q, F = 3, 4, 5, 2
REGRESSION: dict[str, Task] = {"y": Regression(mean=(0.0,), std=(1.0,))}
CLASSES: dict[str, Task] = {"c": Classification(classes=(1, 2))}


class Tanh(Encoder):
    """tanh(W x + b), of size 3."""

    def __init__(self, shape: InputShape) -> None:
        super().__init__(shape)
        self.stages = nn.Sequential(nn.Sequential(nn.Linear(F, 3), nn.Tanh()))
        self.features = 3


def make_model(
    tasks: dict[str, Task], kind: type[Meta], encoder: type[Encoder] = Tanh, **settings: Any
) -> MultiTaskModel:
    """Builds a model of a way to learn from episodes."""
    model = MultiTaskModel(
        tasks,
        InputShape((F,)),
        encoder=encoder,
        meta=lambda known: kind(known, **settings),
    )
    model.configure_model()
    return model.double()


def make_batch(tasks: dict[str, Task], missing: bool = True, seed: int = 0) -> Batch:
    """Makes a batch of E episodes; some labels are missing, and all of the last episode's."""
    generator = torch.Generator().manual_seed(seed)
    rows = E * (S + Q)
    x = torch.randn(rows, F, generator=generator, dtype=torch.float64)
    (name,) = tasks
    if isinstance(tasks[name], Classification):
        labels = torch.randint(2, (rows,), generator=generator)
    else:
        labels = torch.randn(rows, generator=generator, dtype=torch.float64)
    support = (torch.arange(S + Q) < S).repeat(E)
    if missing:
        labels[1] = get_missing(labels)
        labels[S + 2] = get_missing(labels)
        labels[(E - 1) * (S + Q) :] = get_missing(labels)
    extras = {
        "episode": torch.arange(E).repeat_interleave(S + Q),
        "support": support,
        "label": labels.masked_fill(~support, get_missing(labels)),
    }
    targets = {name: labels.masked_fill(support, get_missing(labels))}
    return Batch(x, targets, torch.arange(rows), extras)


def weights_of(model):
    """The weights W, b of the encoder and V, c of the head, as leaves of their own."""
    linear = model.sharing.encoder.stages[0][0]
    head = model.heads[next(iter(model.tasks))].linears[0]
    found = (linear.weight, linear.bias, head.weight, head.bias)
    return [p.detach().clone().requires_grad_() for p in found]


def gradients_of(model):
    """The gradients of the same weights."""
    linear = model.sharing.encoder.stages[0][0]
    head = model.heads[next(iter(model.tasks))].linears[0]
    return [p.grad for p in (linear.weight, linear.bias, head.weight, head.bias)]


def predict(weights: list[Tensor], x: Tensor) -> Tensor:
    """V tanh(W x + b) + c."""
    W, b, V, c = weights
    return torch.tanh(x @ W.T + b) @ V.T + c


def squared_error(weights: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """The mean squared error of known labels; 0 where there is none."""
    known = ~y.isnan()
    errors = (predict(weights, x)[:, 0][known] - y[known]) ** 2
    return errors.sum() / max(1, int(known.sum()))


def episodes_of(batch):
    """The support inputs, support labels, query inputs and query labels of each episode."""
    (targets,) = batch.targets.values()
    found = []
    for e in range(E):
        first = e * (S + Q)
        support = slice(first, first + S)
        query = slice(first + S, first + S + Q)
        found.append(
            (
                batch.inputs[support],
                batch.extras["label"][support],
                batch.inputs[query],
                targets[query],
            )
        )
    return found


def outer_loss(model: MultiTaskModel, batch: Batch) -> Tensor:
    """The loss of the query rows of all episodes."""
    sums, counts = model.heads.loss_sums(model.run(batch), batch.targets)
    return (sums / counts).sum()
