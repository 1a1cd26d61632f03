"""Feeding: 100,000 rows of 64 numbers against PyTorch's collation, and images against Pillow."""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from src.data import Rows
from src.data.images.image_files import ImageFiles
from src.data.images.image_table import ImageRows
from src.data.images.images import ImageDecoder, find_centre
from src.data.images.lazy_images import ImageSet, LazyImages
from src.data.stream import Batches, GlobalBatches

ROWS, FEATURES, BATCH = 100_000, 64, 256
IMAGES, SIDE, WORKERS = 2000, 64, 2  # photos of CelebA's size, to 64 x 64 pixels


class OneByOne(Dataset[Any]):
    """A data set as tutorials write it: one sample at a time."""

    def __init__(self, inputs: Tensor, targets: dict[str, Tensor]) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, row: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.inputs[row], {name: target[row] for name, target in self.targets.items()}


def seconds(batches: Iterable[Any]) -> float:
    """CPU seconds to go through all batches."""
    start = time.process_time()
    count = sum(1 for _ in batches)
    assert count == -(-ROWS // BATCH)
    return time.process_time() - start


def write_photos(folder: Path, count: int) -> list[str]:
    """Writes photos of 178 x 218 pixels, smooth with some noise; returns their paths."""
    rng = np.random.default_rng(0)
    paths = []
    for k in range(count):
        pixels = np.add.outer(np.arange(218) * rng.random(), np.arange(178) * rng.random())
        photo = (pixels[..., None] / 2 + rng.integers(0, 30, (218, 178, 3))).astype(np.uint8)
        paths.append(str(folder / f"{k:06}.jpg"))
        Image.fromarray(photo).save(paths[-1])
    return paths


def decode_all(paths: Sequence[str]) -> int:
    """Decodes images in a bare loop, as a worker of its own does."""
    count = 0
    for path in paths:
        with Image.open(path) as image:
            box = find_centre(image.width, image.height, 1.0)
            pixels = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR, box)
            count += len(np.asarray(pixels)) > 0
    return count


def compare_images(quick: bool) -> tuple[float, float, float]:
    """Returns images per second of bare loops and of ours, with as many workers, and their ratio.

    The ratio is the median over rounds, in which both are measured one after the other.
    """
    count = IMAGES // 4 if quick else IMAGES
    with tempfile.TemporaryDirectory() as name:
        paths = write_photos(Path(name), count)
        names = [Path(path).name for path in paths]
        images = ImageSet(ImageFiles(name), names, ImageDecoder(SIDE, SIDE), name)
        lazy = LazyImages.of_all(images, [0.5] * 3, [0.25] * 3)
        rows = ImageRows(lazy, {"a": torch.zeros(count)})
        ours = Batches(rows, GlobalBatches(count, 50, shuffle=True), num_workers=WORKERS)
        speeds: list[tuple[float, float]] = []
        with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
            for _ in range(3 if quick else 8):
                start = time.perf_counter()
                done = sum(pool.map(decode_all, [paths[k::WORKERS] for k in range(WORKERS)], 1))
                middle = time.perf_counter()
                assert done == sum(len(batch) for batch in ours) == count
                end = time.perf_counter()
                speeds.append((count / (middle - start), count / (end - middle)))
        assert ours._iterator is not None
        ours._iterator._shutdown_workers()  # type: ignore[attr-defined]

    # the first round starts the workers
    bare, fed = (statistics.median(values) for values in zip(*speeds[1:], strict=True))
    return bare, fed, statistics.median(b / a for a, b in speeds[1:])


def table(quick: bool) -> str:
    """The comparisons as Markdown tables."""
    inputs = torch.randn(ROWS, FEATURES)
    targets = {"a": torch.randn(ROWS), "b": torch.randint(0, 3, (ROWS,))}
    default = DataLoader(OneByOne(inputs, targets), BATCH, shuffle=True)
    ours = Batches(Rows(inputs, targets), GlobalBatches(ROWS, BATCH, shuffle=True))
    pairs = [(seconds(default), seconds(ours)) for _ in range(2 if quick else 8)][1:]
    slow, fast = (statistics.median(times) * 1e3 for times in zip(*pairs, strict=True))
    times = statistics.median(a / b for a, b in pairs)
    bare, fed, ratio = compare_images(quick)
    return (
        "| feeding 100k x 64, batch 256 | default collate, ms per epoch | ours, ms per epoch "
        "| times as fast | goal |\n"
        "|---|---|---|---|---|\n"
        f"| dict targets, one process | {slow:.0f} | {fast:.0f} | {times:.1f} | 8 |\n\n"
        "| photos of 178 x 218 to 64 x 64 pixels | bare loops of Pillow, images per s "
        "| ours, images per s | times as fast | goal |\n"
        "|---|---|---|---|---|\n"
        f"| {WORKERS} workers | {bare:.0f} | {fed:.0f} | {ratio:.2f} | 0.9 |"
    )
