"""Data whose labels read known columns, beside decoys that correlate with them, and noise."""

from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.optim import AdamW

from src.batch import InputShape
from src.data import MultiTaskDataModule, Rows, Split
from src.models import MultiTaskModel
from src.models.encoders import MLP
from src.tasks import Regression, Task

COLUMNS = 20
# the columns that each task reads; one of them is read by both
TRUE = {"a": {0, 1, 2}, "b": {2, 3, 4}}
# decoy: the column that it correlates with, at 0.8
DECOYS = {10: 0, 11: 1, 12: 3, 13: 4}


class Planted(MultiTaskDataModule):
    """Two regressions with products, squares and sines of three columns each, of twenty.

    Args:
        seed: Seed of the draw, and of the order of batches.
        rows: Rows of both splits.
        noise: Whether labels are noise alone.
    """

    def __init__(self, seed: int, rows: int = 2000, noise: bool = False) -> None:
        super().__init__(128, 1024, 0, seed)
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((rows, COLUMNS))
        for decoy, column in DECOYS.items():
            x[:, decoy] = 0.8 * x[:, column] + 0.6 * x[:, decoy]
        a = x[:, 0] + 1.4 * np.sin(2 * x[:, 1]) + 0.7 * (x[:, 2] ** 2 - 1)
        b = x[:, 2] + x[:, 3] * x[:, 4] + 0.7 * x[:, 3]
        y = np.stack([a / a.std(), b / b.std()], 1) + 0.3 * rng.standard_normal((rows, 2))
        if noise:
            y = rng.standard_normal((rows, 2))
        self.x = torch.from_numpy(x).float()
        self.y = torch.from_numpy(y / y.std(0)).float()

    @property
    def tasks(self) -> dict[str, Task]:
        """Two regressions."""
        return {name: Regression(mean=(0.0,), std=(1.0,)) for name in TRUE}

    @property
    def input_shape(self) -> InputShape:
        """A vector."""
        return InputShape((COLUMNS,))

    def split(self, name: Split) -> Rows:
        """Four of five rows train."""
        cut = len(self.x) * 4 // 5
        rows = slice(0, cut) if name == "train" else slice(cut, None)
        return Rows(self.x[rows], {"a": self.y[rows, 0], "b": self.y[rows, 1]})


def find_columns(data: Planted, select: Any, sharing: Any, epochs: int = 40) -> dict[str, set[int]]:
    """Trains, and returns {task: the columns that are left}."""
    model = MultiTaskModel(
        data.tasks,
        data.input_shape,
        encoder=partial(MLP, width=64, depth=1),
        sharing=sharing,
        select=select,
        optimizer=partial(AdamW, lr=3e-3),
        seed=data.seed,
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(model, data)
    assert model.selection is not None
    found = model.selection.list_open()
    return {task: {int(name.split()[1]) - 1 for name in names} for task, names in found.items()}
