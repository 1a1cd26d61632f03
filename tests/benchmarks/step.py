"""The whole training step against a hand-written loop, on the same model and batches.

Ours runs under Lightning with everything that a run has: every task's loss logged to TensorBoard,
the guards, the checkpoint callbacks. The hand-written loop has nothing but the step. Both take CPU
time, in turn, many rounds; the median ratio counts.
"""

import itertools
import statistics
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.balancing import StaticWeights
from src.batch import InputShape
from src.data import MultiTaskDataModule, Rows, Split
from src.models import MultiTaskModel
from src.models.encoders import Encoder
from src.models.encoders.convnet import Pool
from src.models.sharing import HardSharing
from src.models.transfer.finetune import Finetune
from src.monitoring import Watch
from src.monitoring.dashboard import Board
from src.overhead import NoProfiler
from src.tasks import Classification, Regression, Task

CLASSES = 5


class PlainMLP(Encoder):
    """64-256-256 with ReLU."""

    def __init__(self, shape: InputShape) -> None:
        super().__init__(shape)
        first, second = nn.Linear(shape.dense[0], 256), nn.Linear(256, 256)
        self.stages = nn.Sequential(
            nn.Sequential(first, nn.ReLU()), nn.Sequential(second, nn.ReLU())
        )
        self.features = 256


class PlainConvNet(Encoder):
    """0.9 million parameters on images of 3 x 32 x 32."""

    def __init__(self, shape: InputShape) -> None:
        super().__init__(shape)
        sizes = [3, 64, 128, 256, 230]
        stages = [
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.ReLU())
            for a, b in itertools.pairwise(sizes)
        ]
        stages[-1].append(Pool())
        self.stages = nn.Sequential(*stages)
        self.features = sizes[-1]


@dataclass
class Job:
    """One comparison.

    Attributes:
        tasks: Number of tasks, half of them classification, half regression.
        encoder: The encoder of both.
        shape: What one sample looks like.
        batch: Rows per step.
        steps: Steps per round.
        depth: Hidden layers of each head.
    """

    tasks: int
    encoder: type[Encoder]
    shape: tuple[int, ...]
    batch: int
    steps: int
    depth: int = 0

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        classes = (self.tasks + 1) // 2
        self.kinds: dict[str, Task] = {
            f"class{i}": Classification(classes=tuple(range(CLASSES)), depth=self.depth)
            for i in range(classes)
        }
        self.kinds |= {
            f"number{i}": Regression(mean=(0.0,), std=(1.0,), depth=self.depth)
            for i in range(self.tasks - classes)
        }
        rows = self.batch * self.steps
        self.inputs = torch.randn(rows, *self.shape, generator=generator)
        self.targets = {
            name: torch.randint(0, CLASSES, (rows,), generator=generator)
            if isinstance(task, Classification)
            else torch.randn(rows, generator=generator)
            for name, task in self.kinds.items()
        }

    optimizer = staticmethod(partial(torch.optim.AdamW, lr=1e-3))

    def by_hand(self) -> float:
        """CPU seconds per step of the loop that a tutorial writes."""
        encoder = self.encoder(InputShape(self.shape))
        heads = nn.ModuleDict(
            {
                n: nn.Linear(encoder.features, CLASSES if isinstance(t, Classification) else 1)
                for n, t in self.kinds.items()
            }
        )
        optimizer = self.optimizer([*encoder.parameters(), *heads.parameters()])
        order = torch.randperm(len(self.inputs)).split(self.batch)
        start = time.process_time()
        for rows in order:
            x, y = self.inputs[rows], {name: target[rows] for name, target in self.targets.items()}
            z = encoder(x)
            losses: list[Tensor] = []
            for name, head in heads.items():
                output = head(z)
                if isinstance(self.kinds[name], Classification):
                    losses.append(F.cross_entropy(output, y[name]))
                else:
                    losses.append(F.mse_loss(output[:, 0], y[name]))
            loss = sum(losses[1:], losses[0])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return (time.process_time() - start) / self.steps

    def ours(
        self,
        folder: Path,
        balancer: Any = StaticWeights,
        sharing: Any = HardSharing,
        finetune: Finetune | None = None,
    ) -> float:
        """CPU seconds per step of a run with all that a run has."""
        return self.train(folder, balancer, sharing, finetune).seconds / self.steps

    def train(
        self,
        folder: Path,
        balancer: Any = StaticWeights,
        sharing: Any = HardSharing,
        finetune: Finetune | None = None,
        **settings: Any,
    ) -> "Timed":
        """Trains for an epoch with all that a run has; returns the model."""
        job = self

        class Data(MultiTaskDataModule):
            tasks = property(lambda _: job.kinds)
            input_shape = property(lambda _: InputShape(job.shape))

            def split(self, name: Split) -> Rows:
                return Rows(job.inputs, job.targets)

        parts: dict[str, Any] = {
            "sharing": sharing,
            "balancer": balancer,
            "optimizer": self.optimizer,
            "scheduler": None,
        }
        model = Timed(self.kinds, InputShape(self.shape), self.encoder, **parts)
        model.finetune = finetune or Finetune()
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=1,
            **{"devices": 1} | settings,
            logger=Board(folder),
            profiler=NoProfiler(),
            callbacks=Watch(checkpoint_every=10**9).callbacks(folder, "", bar=False),
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        trainer.fit(model, Data(batch_size=self.batch))
        return model

    def ratio(self, rounds: int) -> tuple[float, float, float]:
        """Medians: milliseconds by hand, milliseconds of ours, ratio."""
        with tempfile.TemporaryDirectory() as folder:
            pairs = [(self.by_hand(), self.ours(Path(folder))) for _ in range(rounds + 1)][
                1:
            ]  # the first one warms up
        hand, ours = (statistics.median(times) * 1e3 for times in zip(*pairs, strict=True))
        return hand, ours, statistics.median(b / a for a, b in pairs)


class Timed(MultiTaskModel):
    """Notes CPU time from the first step to the last, and the bytes of the optimizer's state."""

    def on_train_epoch_start(self) -> None:
        self.start = time.process_time()

    def on_train_epoch_end(self) -> None:
        self.seconds = time.process_time() - self.start
        states = self.trainer.optimizers[0].state.values()
        kept = [x for state in states for x in state.values() if isinstance(x, Tensor)]
        self.state_bytes = sum(x.nbytes for x in kept if x.numel() > 1)


JOBS = {
    "MLP 64-256-256, batch 256, 2 tasks": (Job(2, PlainMLP, (64,), 256, 200), 1.3),
    "MLP 64-256-256, batch 256, 8 tasks": (Job(8, PlainMLP, (64,), 256, 200), 1.2),
    "MLP 64-256-256, batch 256, 32 tasks": (Job(32, PlainMLP, (64,), 256, 100), 0.7),
    "MLP 64-256-256, batch 256, 100 tasks": (Job(100, PlainMLP, (64,), 256, 50), 0.5),
    "conv net, 0.9 M parameters, batch 64, 2 tasks": (
        Job(2, PlainConvNet, (3, 32, 32), 64, 40),
        1.03,
    ),
}


def table(quick: bool) -> str:
    """The comparison as a Markdown table."""
    lines = [
        "| whole step, all tasks logged | by hand, ms | ours, ms | ratio | goal |",
        "|---|---|---|---|---|",
    ]
    for name, (job, goal) in JOBS.items():
        hand, ours, ratio = job.ratio(rounds=1 if quick else 9)
        lines.append(f"| {name} | {hand:.2f} | {ours:.2f} | {ratio:.2f} | {goal} |")
    return "\n".join(lines)
