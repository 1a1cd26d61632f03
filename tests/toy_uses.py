"""Small data modules of other forms than a table: words, pixels. Rows and labels are uneven.

They are for what must hold on any topology: sequences of different lengths, missing labels, labels
of whole samples beside labels of their places, primes of rows.
"""

import numpy as np
import torch

from src.batch import InputShape
from src.data import MultiTaskDataModule, Rows, Split
from src.data.rows import Values
from src.tasks import (
    BinaryClassification,
    Classification,
    DenseRegression,
    Regression,
    Segmentation,
    SequenceLabelling,
    SurfaceNormals,
    Task,
)

SIZES = {"train": 61, "val": 31, "test": 29}
SEEDS = {"train": 1, "val": 2, "test": 3}
TAGS = ("O", "B-X", "I-X", "B-Y", "I-Y")


class Toys(MultiTaskDataModule):
    """Base of the toys: a few rows, drawn by numpy.

    Args:
        batch_size: Rows per step over all devices together.
        eval_batch_size: Rows per evaluation step.
        num_workers: Processes that prepare batches.
        seed: Seed of the order of training batches.
    """

    def __init__(
        self, batch_size: int = 8, eval_batch_size: int = 12, num_workers: int = 0, seed: int = 0
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed)

    def split(self, name: Split) -> Rows:
        name = "test" if name == "predict" else name
        return self.draw(np.random.default_rng(SEEDS[name]), SIZES[name])

    def draw(self, rng: np.random.Generator, rows: int) -> Rows:
        """Draws the rows of a split."""
        raise NotImplementedError


class Words(Toys):
    """Sentences of 1 to 7 words in pieces; tags with and without CRF, and a label a sentence."""

    @property
    def tasks(self) -> dict[str, Task]:
        return {
            "upos": SequenceLabelling(classes=("a", "b", "c")),
            "xpos": SequenceLabelling(classes=("d", "e", "f")),
            "spans": SequenceLabelling(classes=TAGS, crf=True),
            "genre": Classification(classes=("news", "mail"), pooled=True),
        }

    @property
    def input_shape(self) -> InputShape:
        return InputShape(tokens=20, parts=9)

    def draw(self, rng: np.random.Generator, rows: int) -> Rows:
        lengths = rng.integers(1, 8, rows)
        real = np.arange(7) < lengths[:, None]
        tokens = np.where(real, rng.integers(1, 20, (rows, 7)), 0)
        parts = rng.integers(0, 9, (rows, 7, 3)) * real[..., None]

        # tags follow from the words; a quarter of them is missing, and two thirds of the spans
        spans = np.where(rng.random((rows, 1)) < 0.3, tokens % 5, -100)
        targets = {
            "upos": np.where(rng.random((rows, 7)) < 0.75, tokens % 3, -100),
            "xpos": np.where(rng.random((rows, 7)) < 0.75, (tokens // 3) % 3, -100),
            "spans": np.where(rng.random((rows, 7)) < 0.9, spans, -100),
        }
        targets = {name: np.where(real, values, -100) for name, values in targets.items()}
        targets["genre"] = np.where(rng.random(rows) < 0.8, lengths > 3, -100)
        inputs: dict[str, Values] = {
            "tokens": torch.from_numpy(tokens),
            "parts": torch.from_numpy(parts),
        }
        labels = {name: torch.from_numpy(values).long() for name, values in targets.items()}
        return Rows(inputs, labels, row_info={"id": [f"s{k}" for k in range(rows)]})


class Pixels(Toys):
    """Images of 6 x 5 pixels: classes, heights and normals a pixel, and labels of the image."""

    @property
    def tasks(self) -> dict[str, Task]:
        return {
            "mask": Segmentation(classes=("dark", "grey", "light")),
            "height": DenseRegression(mean=(0.0,), std=(1.0,)),
            "normal": SurfaceNormals(),
            "sum": Regression(mean=(0.0,), std=(1.0,), pooled=True),
            "bright": BinaryClassification(classes=("no", "yes"), pooled=True),
        }

    @property
    def input_shape(self) -> InputShape:
        return InputShape((1, 6, 5))

    def draw(self, rng: np.random.Generator, rows: int) -> Rows:
        images = rng.normal(size=(rows, 1, 6, 5)).astype(np.float32)
        x = images[:, 0]
        slopes = np.stack([np.roll(x, 1, 1) - x, np.roll(x, 1, 2) - x, np.ones_like(x)], -1)
        normals = slopes / np.linalg.norm(slopes, axis=-1, keepdims=True)
        gone = rng.random((4, *x.shape)) < 0.3
        means = x.mean((1, 2))
        targets = {
            "mask": torch.from_numpy(np.where(gone[0], -100, np.digitize(x, [-0.5, 0.5]))).long(),
            "height": torch.from_numpy(np.where(gone[1], np.nan, x)).float(),
            "normal": torch.from_numpy(np.where(gone[2][..., None], np.nan, normals)).float(),
            "sum": torch.from_numpy(np.where(gone[3][:, 0, 0], np.nan, 5 * means)).float(),
            "bright": torch.from_numpy(np.where(gone[3][:, 1, 1], np.nan, means > 0)).float(),
        }
        names = [f"photo {k}" for k in range(rows)]
        return Rows(torch.from_numpy(images), targets, row_info={"id": names})
