"""The toy problem of the papers on CAGrad, Nash-MTL and FAMO: two losses in two parameters.

It runs through the same path as any network: an encoder whose only parameters are the point
(x1, x2), two tasks whose losses are functions of it, and the model, its step and the optimizer
under a Trainer, in float64. Liu et al., "Conflict-averse gradient descent for multi-task learning",
NeurIPS 2021, appendix; the starts and the scale are those of Liu et al., "FAMO", NeurIPS 2023.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any, ClassVar

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Adam

from src.balancing import Balancer
from src.batch import Batch, InputShape
from src.models import MultiTaskModel
from src.models.encoders import Encoder
from src.overhead import NoProfiler
from src.tasks import Regression, Task, is_labelled
from src.tasks.head import Head
from tests.toy import bare_trainer

STARTS = ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0))
SCALE = 0.1  # of the first loss
LR = 1e-3
# subtracted from both losses where they must be positive, as in FAMO's own experiment: a little
# less than -20, which no loss goes below
LEAST = -21.0


def make_surface(which: int, x1: Tensor, x2: Tensor) -> Tensor:
    """Returns one of the two losses at points, before it is scaled.

    With u = max(tanh(x2 / 2), 0) and l = max(tanh(-x2 / 2), 0), L_i = u f_i + l g_i:

        f_1 = log(max(|(-x1 - 7) / 2 - tanh(-x2)|, 5e-6)) + 6
        f_2 = log(max(|(-x1 + 3) / 2 + tanh(-x2) + 2|, 5e-6)) + 6
        g_1 = ((-x1 + 7)^2 + (-x2 - 8)^2 / 10) / 10 - 20
        g_2 = ((-x1 - 7)^2 + (-x2 - 8)^2 / 10) / 10 - 20

    Args:
        which: 0 for L_1, 1 for L_2.
        x1: First coordinates.
        x2: Second coordinates.
    """
    upper = torch.tanh(x2 / 2).clamp(min=0)
    lower = torch.tanh(-x2 / 2).clamp(min=0)
    valley = (-x1 - 7) / 2 - torch.tanh(-x2) if which == 0 else (-x1 + 7) / 2 + torch.tanh(-x2)
    bottom = 7 if which == 0 else -7
    steep = valley.abs().clamp(min=5e-6).log() + 6
    bowl = ((bottom - x1) ** 2 + (-x2 - 8) ** 2 / 10) / 10 - 20
    return upper * steep + lower * bowl


class Coordinates(nn.Module):
    """A point in the plane, the same for every row.

    Args:
        start: Where it begins.
    """

    def __init__(self, start: tuple[float, float]) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.tensor(start))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.point.expand(len(inputs), 2)


class Point(Encoder):
    """An encoder whose features are its parameters."""

    def __init__(self, shape: InputShape, start: tuple[float, float]) -> None:
        super().__init__(shape)
        self.features = 2
        self.stages = nn.Sequential(Coordinates(start))


class NoHead(Head):
    """A head that puts out the features."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def forward(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True, kw_only=True)
class Surface(Regression):
    """A task whose loss is one of the two, whatever the label says.

    Attributes:
        which: 0 or 1.
        scale: Factor on the loss.
        least: Subtracted before.
    """

    not_in_loss: ClassVar[tuple[str, ...]] = ()
    which: int
    scale: float = 1.0
    least: float = 0.0

    @property
    def out_features(self) -> int:
        return 2

    def head(self, features: int) -> Head:
        return NoHead()

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss = make_surface(self.which, *outputs.unbind(-1))
        return self.scale * (loss - self.least) * is_labelled(targets)


class Track(L.Callback):
    """Keeps the points on the way, and ends the training once the point is at rest.

    Args:
        every: Steps between two points that are kept.
        rest: Steps between two looks whether the point has moved by more than 1e-6 in any
            coordinate; two looks without a move in between end the training. None: it goes on.

    Attributes:
        points: The points, the start and the end among them.
    """

    def __init__(self, every: int, rest: int | None) -> None:
        self.every = every
        self.rest = rest
        self.points: list[Tensor] = []
        self.seen: list[Tensor] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        step = trainer.global_step
        if step % self.every == 0:
            self.points.append(read_point(pl_module))
        if self.rest and step % self.rest == 0:
            self.seen = [*self.seen[-2:], read_point(pl_module)]
            moves = [float((p - self.seen[-1]).abs().max()) for p in self.seen]
            trainer.should_stop = len(moves) == 3 and max(moves) < 1e-6

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.points.append(read_point(pl_module))


def read_point(model: MultiTaskModel) -> Tensor:
    """Returns a copy of the model's point (2,)."""
    [point] = model.sharing.parameters()
    return point.detach().clone()


class Repeated:
    """A loader of one batch, over and over.

    Args:
        batch: The batch.
        times: How often.
    """

    def __init__(self, batch: Batch, times: int) -> None:
        self.batch = batch
        self.times = times

    def __len__(self) -> int:
        return self.times

    def __iter__(self) -> Iterator[Batch]:
        return repeat(self.batch, self.times)


def make_model(
    balancer: Callable[[Mapping[str, str]], Balancer],
    start: tuple[float, float],
    least: float = 0.0,
    lr: float = LR,
) -> MultiTaskModel:
    """Makes the model of one start.

    Args:
        balancer: Makes the balancer.
        start: Where the point begins.
        least: Subtracted from both losses, before the first is scaled.
        lr: Adam's learning rate.
    """
    tasks: dict[str, Task] = {
        "first": Surface(which=0, scale=SCALE, least=least),
        "second": Surface(which=1, least=least),
    }
    return MultiTaskModel(
        tasks,
        InputShape((1,)),
        encoder=partial(Point, start=start),
        balancer=balancer,
        optimizer=partial(Adam, lr=lr),
        scheduler=None,
    )


def descend(
    model: MultiTaskModel, steps: int, every: int = 10**9, rest: int | None = None, **settings: Any
) -> Tensor:
    """Trains for a number of steps; returns the points on the way (k, 2), the end as the last.

    Args:
        model: The model.
        steps: The largest number of steps.
        every: Steps between two points.
        rest: See :class:`Track`.
        settings: More settings of the Trainer.
    """
    rows = torch.zeros(1, dtype=torch.float64)
    batch = Batch(rows[:, None], {"first": rows, "second": rows}, torch.zeros(1, dtype=torch.long))
    track = Track(every, rest)
    trainer = bare_trainer(
        1, 1, callbacks=[track], precision="64-true", profiler=NoProfiler(), **settings
    )
    trainer.fit(model, Repeated(batch, steps))
    return torch.stack(track.points)
