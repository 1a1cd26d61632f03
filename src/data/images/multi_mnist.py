"""MultiMNIST: two digits in one image, the smallest benchmark of the multi-task literature."""

from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from src.batch import InputShape
from src.data.datamodule import MultiTaskDataModule, Rows, Split
from src.data.download import PublicFile, find_public_file
from src.data.images.idx import read_idx
from src.data.tables.record import fingerprint_file
from src.errors import UserError
from src.rng import make_generator
from src.tasks import Classification, Task

SOURCE = "http://yann.lecun.com/exdb/mnist"
MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"

# the files with their hashes at the mirror: images and labels, of training and of test
MD5 = {
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}
VALIDATION = 1 / 6  # of the training file: 10,000 of MNIST's 60,000
SIDE = 28  # of an image in pixels
OFFSET = 6  # of the second digit from the first, in both directions
CANVAS = 36
CHUNK = 5_000  # pairs that are made at a time


class MultiMNIST(MultiTaskDataModule):
    """Two MNIST digits in one image: ``top_left`` and ``bottom_right``, each one of ten classes.

    The images are those of Sener and Koltun ("Multi-task learning as multi-objective optimization",
    NeurIPS 2018; after Sabour et al. 2017): on a canvas of 36 x 36 pixels the second digit lies 6
    pixels below and to the right of the first, the lighter pixel counts, and the canvas is
    resized to 28 x 28. Pixels are numbers from -1 to 1.

    The first 50,000 training digits of MNIST train and the last 10,000 validate, each once in
    either place; so do the 10,000 test digits. No digit of one split is in another.

    Args:
        root: Folder with the four files of MNIST (train-images-idx3-ubyte, ...), gzipped or not.
        download: Whether files that are not there are fetched, from the mirror of PyTorch.
        pair_seed: Seed of the pairs. It is not the run's seed, so that runs with several seeds see
            the same images.
        depth: Hidden layers of each head.
        width: Their size; 50 belongs to LeNet.
        batch_size: Rows per step over all devices together.
        eval_batch_size: Rows per evaluation step over all devices together.
        num_workers: Processes that prepare batches; 0 is fastest for data in memory.
        seed: Seed of the order of training batches.
    """

    def __init__(
        self,
        root: str,
        download: bool = False,
        pair_seed: int = 0,
        depth: int = 1,
        width: int = 50,
        batch_size: int = 256,
        eval_batch_size: int = 1000,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed)
        self.pair_seed = pair_seed
        self.depth = depth
        self.width = width
        self.paths = {
            name: find_public_file(
                root, PublicFile(name, f"{MIRROR}{name}.gz", md5=md5), SOURCE, download
            )
            for name, md5 in MD5.items()
        }

    @property
    def tasks(self) -> dict[str, Task]:
        """The digit in each of the two places."""
        digits = Classification(classes=tuple(range(10)), depth=self.depth, width=self.width)
        return {"top_left": digits, "bottom_right": digits}

    @property
    def input_shape(self) -> InputShape:
        """One grey image."""
        return InputShape((1, SIDE, SIDE))

    def split(self, name: Split) -> Rows:
        """Returns a split; prediction takes the test images."""
        return self._splits["test" if name == "predict" else name]

    @cached_property
    def _splits(self) -> dict[str, Rows]:
        digits, labels = self._read("train")
        count = round(len(digits) * (1 - VALIDATION))
        pools = {
            "train": (digits[:count], labels[:count]),
            "val": (digits[count:], labels[count:]),
            "test": self._read("t10k"),
        }
        splits = {}
        for number, (name, (digits, labels)) in enumerate(pools.items()):
            # each digit is once on the top left, and once on the bottom right
            generator = make_generator(self.pair_seed, number)
            other = torch.randperm(len(digits), generator=generator)
            targets = {"top_left": labels, "bottom_right": labels[other]}
            info = {"id": list(range(1, len(digits) + 1))}
            splits[name] = Rows(overlay(digits, digits[other]), targets, row_info=info)
        return splits

    def _read(self, part: str) -> tuple[Tensor, Tensor]:
        """Reads the images (N, 28, 28) and labels (N,) of a part of MNIST.

        Raises:
            UserError: The files do not hold that.
        """
        images_path = self.paths[f"{part}-images-idx3-ubyte"]
        labels_path = self.paths[f"{part}-labels-idx1-ubyte"]
        images = read_idx(images_path)
        labels = read_idx(labels_path)
        if images.shape[1:] != (SIDE, SIDE) or not len(images):
            raise UserError(f"{images_path}: holds {images.shape}, no images of 28 x 28 pixels")
        if labels.shape != images.shape[:1]:
            raise UserError(
                f"{labels_path}: holds {labels.shape} labels for the {len(images)} images of "
                f"{images_path}"
            )
        if (labels > 9).any():
            row = int((labels > 9).argmax())
            raise UserError(f"{labels_path} row {row + 1}: holds {labels[row]}, which is no digit")
        return torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64))

    def files(self) -> list[str]:
        return list(self.paths.values())

    def fingerprint(self) -> dict[str, Any]:
        """Returns the four files with their hashes."""
        return {"files": {name: fingerprint_file(path) for name, path in self.paths.items()}}


def overlay(first: Tensor, second: Tensor) -> Tensor:
    """Lays images over one another, the second ones lower and further to the right.

    Args:
        first: (N, 28, 28) bytes.
        second: (N, 28, 28) bytes.

    Returns:
        (N, 1, 28, 28) float32 from -1 to 1.
    """
    images = torch.empty(len(first), 1, SIDE, SIDE)
    end = OFFSET + SIDE
    for begin in range(0, len(first), CHUNK):
        rows = slice(begin, begin + CHUNK)
        canvas = torch.zeros(len(first[rows]), CANVAS, CANVAS, dtype=torch.uint8)
        canvas[:, :SIDE, :SIDE] = first[rows]
        below = canvas[:, OFFSET:end, OFFSET:end]
        below.copy_(torch.maximum(below, second[rows]))

        # smoothed as Pillow does it: without, thin strokes would break up
        images[rows] = F.interpolate(
            canvas[:, None].float(), size=(SIDE, SIDE), mode="bilinear", antialias=True
        )
    return images.div_(127.5).sub_(1)
