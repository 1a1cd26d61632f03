"""Small data modules of other forms and kinds: words, pixels, graphs, ranks, counts, bounds ...

They are for what must hold on any topology: sequences of different lengths, missing labels, labels
of whole samples beside labels of their places, primes of rows.
"""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.batch import PADDING, InputShape
from src.data import MultiTaskDataModule, Rows, Split
from src.data.rows import Values
from src.tasks import (
    BinaryClassification,
    CensoredRegression,
    Classification,
    Counts,
    DenseRegression,
    Ordinal,
    Quantiles,
    Regression,
    Segmentation,
    SequenceLabelling,
    SurfaceNormals,
    Survival,
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


class Numbers(Toys):
    """Vectors with labels of the kinds that read numbers in other ways than a regression."""

    @cached_property
    def tasks(self) -> dict[str, Task]:
        kinds: dict[str, Task] = {
            "grade": Ordinal(classes=(1, 2, 3, 4)),
            "stage": Ordinal(classes=(1, 2, 3, 4), method="cumulative"),
            "claims": Counts(offset="exposure"),
            "visits": Counts(distribution="negative_binomial"),
            "wage": Quantiles(),
            "assay": CensoredRegression(),
            "death": Survival(intervals=4),
        }
        _, labels = self.draw_labels("train")
        return {name: kind.fit(labels[name], ["y", "z"]) for name, kind in kinds.items()}

    @property
    def input_shape(self) -> InputShape:
        return InputShape((4,))

    def draw_labels(self, name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Draws the inputs and the labels as people write them."""
        rng = np.random.default_rng(SEEDS[name])
        rows = SIZES[name]
        x = rng.normal(size=(rows, 4)).astype(np.float32)
        score = x @ np.array([[1.0, 0.5, 0, 0], [0, 1, 0.5, 0], [0, 0, 1, 1]]).T
        exposure = rng.uniform(0.5, 2, rows)
        times = rng.exponential(np.exp(-score[:, 0]))
        limits = rng.exponential(1.5, rows)
        bounds = np.array([f"{value:.3f}" for value in score[:, 2]], dtype=object)
        bounds[score[:, 2] > 1.5] = ">1.5"
        bounds[score[:, 2] < -1] = "<-1"
        labels: dict[str, Any] = {
            "grade": np.digitize(score[:, 0], [-1, 0, 1]) + 1.0,
            "stage": np.digitize(score[:, 1], [-1, 0, 1]) + 1.0,
            "claims": np.stack([rng.poisson(exposure * np.exp(score[:, 1] / 2)), exposure], 1),
            "visits": rng.negative_binomial(3, 1 / (1 + np.exp(score[:, 2] / 2))).astype(float),
            "wage": score[:, 2] + rng.normal(size=rows),
            "assay": bounds,
            "death": np.stack([np.minimum(times, limits), times <= limits], 1).astype(float),
        }
        for values in labels.values():
            values[rng.random(rows) < 0.3] = np.nan
        return x, labels

    def split(self, name: Split) -> Rows:
        x, labels = self.draw_labels("test" if name == "predict" else name)
        targets = {task: self.tasks[task].encode(labels[task]) for task in self.tasks}
        return Rows(torch.from_numpy(x), targets)


class Weights(Toys):
    """Rows with weights, 0 among them; a task that counts where another is positive; a chain."""

    @property
    def tasks(self) -> dict[str, Task]:
        classes = ("no", "yes")
        bought = BinaryClassification(classes=classes, depends_on="clicked", entire_space=True)
        return {
            "clicked": BinaryClassification(classes=classes),
            "bought": bought,
            "price": Regression(mean=(0.0,), std=(1.0,), where="clicked"),
            "kind": Classification(classes=("a", "b", "c")),
        }

    @property
    def input_shape(self) -> InputShape:
        return InputShape((4,))

    def draw(self, rng: np.random.Generator, rows: int) -> Rows:
        x = rng.normal(size=(rows, 4)).astype(np.float32)
        clicked = x[:, 0] + 0.5 * rng.normal(size=rows) > 0
        bought = clicked & (x[:, 1] > 0)
        targets = {
            "clicked": torch.from_numpy(clicked).float(),
            "bought": torch.from_numpy(bought).float(),
            "price": torch.from_numpy(np.where(rng.random(rows) < 0.2, np.nan, x[:, 2])).float(),
            "kind": torch.from_numpy(np.where(rng.random(rows) < 0.2, -100, np.arange(rows) % 3)),
        }
        drawn = rng.exponential(size=(2, rows)) * (rng.random((2, rows)) < 0.8)
        weights = {
            "clicked": torch.from_numpy(drawn[0]).float(),
            # most global batches have a sum far below 1
            "kind": torch.from_numpy(0.01 * drawn[1]).float(),
        }
        return Rows(torch.from_numpy(x), targets, weights=weights)


class Graphs(Toys):
    """Rings of 2 to 6 nodes with chords; a number a graph, and a class a node."""

    @property
    def tasks(self) -> dict[str, Task]:
        return {
            "energy": Regression(mean=(0.0,), std=(1.0,), pooled=True),
            "node": SequenceLabelling(classes=("low", "high")),
        }

    @property
    def input_shape(self) -> InputShape:
        return InputShape(nodes=3, edges=2)

    def draw(self, rng: np.random.Generator, rows: int) -> Rows:
        sizes = rng.integers(2, 7, rows)
        mask = np.arange(6) < sizes[:, None]
        nodes = rng.normal(size=(rows, 6, 3)) * mask[..., None]
        edges = np.full((rows, 12, 2), PADDING)
        for graph, size in zip(edges, sizes, strict=True):
            ring = np.stack([np.arange(size), (np.arange(size) + 1) % size], -1)
            graph[: 2 * size] = np.concatenate([ring, ring[:, ::-1]])
        features = rng.normal(size=(rows, 12, 2)) * (edges[..., :1] != PADDING)
        inputs: dict[str, Values] = {
            "nodes": torch.from_numpy(nodes).float(),
            "node_mask": torch.from_numpy(mask),
            "edges": torch.from_numpy(edges),
            "edge_features": torch.from_numpy(features).float(),
        }
        energy = np.where(rng.random(rows) < 0.3, np.nan, nodes.sum((1, 2)) / 3)
        known = mask & (rng.random(mask.shape) < 0.8)
        targets: dict[str, Tensor] = {
            "energy": torch.from_numpy(energy).float(),
            "node": torch.from_numpy(np.where(known, nodes[..., 0] > 0, -100)),
        }
        return Rows(inputs, targets)


class Mixed(Toys):
    """A row of a table, a text and an image in each sample."""

    @property
    def tasks(self) -> dict[str, Task]:
        return {
            "sum": Regression(mean=(0.0,), std=(1.0,)),
            "bright": BinaryClassification(classes=("no", "yes")),
        }

    @property
    def input_shape(self) -> InputShape:
        table = InputShape((3,), (4,))
        return InputShape(
            members=(
                ("table", table),
                ("comment", InputShape(tokens=9)),
                ("photo", InputShape((1, 6, 6))),
            )
        )

    def draw(self, rng: np.random.Generator, rows: int) -> Rows:
        dense = rng.normal(size=(rows, 3))
        tokens = rng.integers(1, 9, (rows, 5)) * (np.arange(5) < rng.integers(1, 6, rows)[:, None])
        photos = rng.normal(size=(rows, 1, 6, 6))
        inputs: dict[str, Values] = {
            "table/dense": torch.from_numpy(dense).float(),
            "table/categorical": torch.from_numpy(rng.integers(0, 4, (rows, 1))),
            "comment/tokens": torch.from_numpy(tokens),
            "photo/dense": torch.from_numpy(photos).float(),
        }
        total = dense[:, 0] + (tokens == 3).sum(1) + photos.mean((1, 2, 3))
        targets = {
            "sum": torch.from_numpy(np.where(rng.random(rows) < 0.3, np.nan, total)).float(),
            "bright": torch.from_numpy(photos.mean((1, 2, 3)) > 0).float(),
        }
        return Rows(inputs, targets)
