"""A small data module with everything that makes topologies disagree, and callbacks that break it.

It has a prime number of rows, labels missing unevenly, a task with no label in most batches, alike
tasks that are stacked, scalar and vector labels.
"""

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed as dist

from src.batch import InputShape
from src.data import MultiTaskDataModule, Rows, Split
from src.tasks import (
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Regression,
    Task,
)

# flags of a small run whose dropout makes the random numbers matter
DROPOUT = (
    *("--data", "tests.toy.Toy", "--model.encoder.width", 16),
    *("--model.encoder.dropout", 0.2),
)


class Toy(MultiTaskDataModule):
    """211 rows to train, 101 to validate, 97 to test: primes, which no number of ranks divides.

    Args:
        nan_row: A training row whose input is NaN, if any.
        batch_size: Rows per step over all devices together.
        eval_batch_size: Rows per evaluation step.
        num_workers: Processes that prepare batches.
        seed: Seed of the order of training batches.
    """

    sizes = {"train": 211, "val": 101, "test": 97}

    def __init__(
        self,
        nan_row: int | None = None,
        batch_size: int = 16,
        eval_batch_size: int = 24,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed)
        self.nan_row = nan_row

    @property
    def tasks(self) -> dict[str, Task]:
        return {
            "class": Classification(classes=(0, 1, 2), label_smoothing=0.1),
            "class2": Classification(classes=("a", "b", "c"), label_smoothing=0.1, weight=0.5),
            "binary": BinaryClassification(classes=("no", "yes"), pos_weight=2.0),
            "rare": BinaryClassification(classes=("no", "yes")),
            "labels": MultilabelClassification(labels=("x", "y", "z")),
            "number": Regression(mean=(3.0,), std=(2.0,)),
            "deep": Regression(mean=(0.0,), std=(1.0,), depth=1, width=8, loss="huber"),
            "vector": Regression(mean=(0.0, 1.0), std=(1.0, 3.0), names=("u", "v"), loss="mae"),
        }

    @property
    def input_shape(self) -> InputShape:
        return InputShape((5,))

    def split(self, name: Split) -> Rows:
        name = "test" if name == "predict" else name
        rng = np.random.default_rng({"train": 1, "val": 2, "test": 3}[name])
        n = self.sizes[name]
        x = rng.normal(size=(n, 5))
        score = x @ rng.normal(size=(5, 8)) + 0.3 * rng.normal(size=(n, 8))
        # the later the row, the more is missing
        missing = rng.random((n, 8)) < np.linspace(0.0, 0.6, n)[:, None]
        missing[:, 3] = np.arange(n) % 29 != 0  # rare: a label in one row of 29
        targets = {
            "class": np.where(missing[:, 0], -100, np.digitize(score[:, 0], [-1, 1])),
            "class2": np.where(missing[:, 1], -100, np.digitize(score[:, 1], [-1, 1])),
            "binary": np.where(missing[:, 2], np.nan, score[:, 2] > 0),
            "rare": np.where(missing[:, 3], np.nan, np.arange(n) // 29 % 2),
            "labels": np.where(rng.random((n, 3)) < 0.3, np.nan, score[:, 3:6] > 0),
            "number": np.where(missing[:, 5], np.nan, score[:, 5]),
            "deep": np.where(missing[:, 6], np.nan, score[:, 6]),
            "vector": np.where(rng.random((n, 2)) < 0.4, np.nan, score[:, 6:8]),
        }
        if self.nan_row is not None and name == "train":
            x[self.nan_row] = np.nan
        as_targets = {
            k: torch.tensor(v, dtype=torch.long if k.startswith("class") else torch.float32)
            for k, v in targets.items()
        }
        return Rows(torch.tensor(x, dtype=torch.float32), as_targets)


def bare_trainer(devices: int, epochs: int, **settings: Any) -> L.Trainer:
    """Makes a Trainer that only steps; global generators differ by rank: none may be used."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1000 + rank)
    return L.Trainer(
        accelerator="cpu",
        devices=devices,
        max_epochs=epochs,
        use_distributed_sampler=False,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


def mark(marker: Path | str) -> str:
    """Names a file outside of a run in a form that a run's configuration accepts."""
    return f"at {marker}"


class At(L.Callback):
    """Base of toys that do something once, after one training step on one rank.

    Args:
        step: The optimizer step.
        marker: File that says that it has been done, so that a resumed run is left alone, as
            :func:`mark` gives it.
        rank: The rank that does it.
    """

    def __init__(self, step: int, marker: str, rank: int = 0) -> None:
        self.step, self.marker, self.rank = step, Path(marker.removeprefix("at ")), rank

    @classmethod
    def flags(cls, step: int, marker: Path, rank: int = 0) -> tuple[object, ...]:
        """The command-line flags that put it into a run."""
        key = "--trainer.callbacks"
        return (
            key,
            f"tests.toy.{cls.__name__}",
            f"{key}.step",
            step,
            f"{key}.marker",
            mark(marker),
            f"{key}.rank",
            rank,
        )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        if (
            trainer.global_step == self.step
            and trainer.global_rank == self.rank
            and not self.marker.exists()
        ):
            self.marker.touch()
            self.act(pl_module)

    def act(self, module: L.LightningModule) -> None:
        raise NotImplementedError


class KillAt(At):
    """Ends the process as a power cut does."""

    def act(self, module: L.LightningModule) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class RaiseAt(At):
    """An error on one rank alone."""

    def act(self, module: L.LightningModule) -> None:
        raise RuntimeError("this rank broke")


class RaiseInTest(L.Callback):
    """An error once the test is over, before its results are written.

    Args:
        marker: File that says that it has been done.
    """

    def __init__(self, marker: str) -> None:
        self.marker = Path(marker.removeprefix("at "))

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.marker.exists():
            self.marker.touch()
            raise RuntimeError("this rank broke")


class SignalAt(At):
    """Asks the process to stop, as a person or a scheduler does."""

    def act(self, module: L.LightningModule) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


class SleepAt(At):
    """Goes to sleep, as a machine does whose disk hangs.

    Args:
        step: The optimizer step.
        marker: File that says that it sleeps.
        rank: The rank that sleeps.
        seconds: For how long.
    """

    def __init__(self, step: int, marker: str, rank: int = 0, seconds: float = 3600.0) -> None:
        super().__init__(step, marker, rank)
        self.seconds = seconds

    def act(self, module: L.LightningModule) -> None:
        time.sleep(self.seconds)


class RunAt(At):
    """Runs a command of the shell.

    Args:
        step: The optimizer step.
        marker: File that says that it has been run.
        rank: The rank that runs it.
        command: The command.
    """

    def __init__(self, step: int, marker: str, rank: int = 0, command: str = "") -> None:
        super().__init__(step, marker, rank)
        self.command = command

    def act(self, module: L.LightningModule) -> None:
        subprocess.run(self.command, shell=True, check=True)


class StopAt(At):
    """Stops the process for ever, without an end."""

    def act(self, module: L.LightningModule) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)
