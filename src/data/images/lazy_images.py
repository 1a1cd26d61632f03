"""The images of a table's rows, decoded when a batch needs them."""

from __future__ import annotations

import mmap
import warnings
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from src.data.images.image_files import ImageFiles
from src.data.images.images import BadImage, ImageDecoder, check_image
from src.data.rows import LazyValues
from src.errors import UserError

THREADS = 8  # that read files side by side: on a disk or a network most time is waiting
SHOWN = 10  # broken images that a note names


class ImageSet:
    """The images of the rows of one table.

    Args:
        files: Where the images are.
        names: Name of each row's image; None where a row has none.
        decoder: Decodes them.
        table: The file of the rows, for messages.
        skip: Whether rows whose image is broken are left out; otherwise it ends the run.
        read_first: Whether all files are read once before training, which finds broken images and
            copies; otherwise an image is known by its name and size.
        cache: Most bytes that decoded images may take in memory; if not all of them fit, none is
            kept.
        numbers: The number of each row in the file, for messages; None counts from 1.
    """

    def __init__(
        self,
        files: ImageFiles,
        names: Sequence[str | None],
        decoder: ImageDecoder,
        table: str,
        skip: bool = False,
        read_first: bool = True,
        cache: int = 0,
        numbers: Sequence[int] | None = None,
    ) -> None:
        self.files = files
        self.names = list(names)
        self.numbers = numbers or range(1, len(self.names) + 1)
        self.decoder = decoder
        self.table = table
        self.skip = skip
        self.read_first = read_first
        self._told: set[int] = set()
        size = decoder.channels * decoder.height * decoder.width
        fits = 0 < len(self.names) * (size + 1) <= cache
        self._cache = Cache(len(self.names), size) if fits else None

    def __len__(self) -> int:
        return len(self.names)

    # -- before training ---------------------------------------------------------------------------
    @cached_property
    def sizes(self) -> dict[str, int | None]:
        """The size of each file in bytes; None where it is not there."""
        return {name: self.files.find_size(name) for name in self.names if name is not None}

    @cached_property
    def _known(self) -> tuple[np.ndarray, dict[int, str]]:
        """The hash of each image (N,) uint64, and why the broken ones are: {row: reason}."""
        unique = list(self.sizes)
        if self.read_first:
            with ThreadPoolExecutor(THREADS) as pool:
                found = dict(zip(unique, pool.map(self._read, unique), strict=True))
        else:
            found = {name: self._look(name) for name in unique}
        hashes = np.zeros(len(self.names), np.uint64)
        broken = {}
        for row, name in enumerate(self.names):
            code, reason = (0, "it is missing") if name is None else found[name]
            hashes[row] = code
            if reason:
                broken[row] = reason
        return hashes, broken

    def _read(self, name: str) -> tuple[int, str]:
        """Reads a file; returns a hash of its content, and why it is broken, if it is."""
        try:
            content = self.files.read(name)
            check_image(content)
        except BadImage as error:
            return 0, str(error)
        return zlib.crc32(content) << 32 | len(content) % 2**32, ""

    def _look(self, name: str) -> tuple[int, str]:
        """Looks for a file; returns a hash of its name and size, and why it is broken."""
        size = self.sizes[name]
        if size is None:
            return 0, f"there is no such file in {self.files.path}"
        return zlib.crc32(name.encode()) << 32 | size % 2**32, ""

    @property
    def hashes(self) -> np.ndarray:
        """The hash of each image: (N,) uint64; 0 for broken ones."""
        return self._known[0]

    @property
    def broken(self) -> dict[int, str]:
        """The broken images as far as they are known before they are decoded: {row: reason}."""
        return self._known[1]

    def describe_broken(self) -> list[str]:
        """Counts and names the broken images; nothing if there are none."""
        if not self.broken:
            return []
        first = list(self.broken.items())[:SHOWN]
        shown = ", ".join(
            f"row {self.numbers[row]} {self.names[row]} ({why})" for row, why in first
        )
        more = ", ..." if len(self.broken) > SHOWN else ""
        return [f"{len(self.broken)} of {len(self)} images are left out: {shown}{more}"]

    # -- batches -----------------------------------------------------------------------------------
    def load(self, row: int, tell: bool = True) -> np.ndarray | None:
        """Returns the image of a row, (channels, height, width) of bytes.

        Args:
            row: The row.
            tell: Whether a broken image is named, if its row is left out.

        Returns:
            None if it is broken, and such rows are left out.

        Raises:
            UserError: It is broken.
        """
        if self._cache is not None and (kept := self._cache.get(row)) is not None:
            return kept.reshape(self.decoder.channels, self.decoder.height, self.decoder.width)
        name = self.names[row]
        try:
            if name is None:
                raise BadImage("it is missing")
            pixels = self.decoder.decode(self.files.read(name))
        except BadImage as error:
            message = f"{self.table} row {self.numbers[row]}: the image {name} is broken: {error}"
            if not self.skip:
                raise UserError(f"{message}; --data.on_error skip leaves it out") from None
            if tell and row not in self._told:
                self._told.add(row)
                warnings.warn(f"{message}; its labels count nowhere", stacklevel=2)
            return None
        if self._cache is not None:
            self._cache.put(row, pixels)
        return pixels


class Cache:
    """Decoded images in memory that worker processes share with their parent.

    Workers inherit the memory when they are forked; a process that is started in another way has a
    cache of its own.

    Args:
        rows: Number of images.
        size: Bytes of each.
    """

    def __init__(self, rows: int, size: int) -> None:
        self.rows = rows
        self.size = size
        # the system gives pages when they are written first
        memory = np.frombuffer(mmap.mmap(-1, rows * (size + 1)), np.uint8)
        self._pixels = memory[: rows * size].reshape(rows, size)
        self._is_there = memory[rows * size :]

    def __reduce__(self) -> tuple[type, tuple[int, int]]:
        """Makes an empty cache of the same size in another process."""
        return Cache, (self.rows, self.size)

    def get(self, row: int) -> np.ndarray | None:
        """Returns the bytes of an image; None if it is not there."""
        return self._pixels[row] if self._is_there[row] else None

    def put(self, row: int, pixels: np.ndarray) -> None:
        """Keeps an image; two processes may put the same one."""
        self._pixels[row] = pixels.reshape(-1)
        self._is_there[row] = 1


class LazyImages(LazyValues):
    """Images of some rows of one table or of several, not decoded yet.

    Args:
        sets: The images of each table.
        where: (N, 2) For each row, the number of its table, and its row there.
        mean: Mean of each channel, of pixels from 0 to 1.
        std: Standard deviation of each channel.
    """

    def __init__(
        self, sets: Sequence[ImageSet], where: Tensor, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.sets = list(sets)
        self.where = where
        self.mean = tuple(mean)
        self.std = tuple(std)

    @classmethod
    def of_all(cls, images: ImageSet, mean: Sequence[float], std: Sequence[float]) -> Self:
        """Returns the images of all rows of a table."""
        rows = torch.arange(len(images))
        return cls([images], torch.stack([torch.zeros_like(rows), rows], 1), mean, std)

    def __len__(self) -> int:
        return len(self.where)

    def __getitem__(self, rows: Tensor) -> Self:
        return type(self)(self.sets, self.where[rows], self.mean, self.std)

    def append(self, other: Self) -> Self:
        shift = torch.tensor([len(self.sets), 0])
        where = torch.cat([self.where, other.where + shift])
        return type(self)([*self.sets, *other.sets], where, self.mean, self.std)

    def load(self) -> Tensor:
        """Decodes all rows.

        Returns:
            (N, channels, height, width) float32, standardised. The first number of a broken image
            is NaN, where such rows are left out.
        """
        form = self.sets[0].decoder
        pixels = torch.zeros(len(self), form.channels, form.height, form.width, dtype=torch.uint8)
        as_array = pixels.numpy()
        broken = []
        for k, (number, row) in enumerate(self.where.tolist()):
            image = self.sets[number].load(row)
            if image is None:
                broken.append(k)
            else:
                as_array[k] = image
        mean = torch.tensor(self.mean)[:, None, None]
        std = torch.tensor(self.std)[:, None, None]
        images = pixels.float().div_(255).sub_(mean).div_(std)
        images[broken, 0, 0, 0] = torch.nan
        return images

    @property
    def usable(self) -> np.ndarray:
        """Whether the image of each row is whole, as far as is known before training: bool (N,)."""
        whole = [row not in self.sets[number].broken for number, row in self.where.tolist()]
        return np.array(whole, dtype=bool)

    def hash_rows(self) -> np.ndarray:
        """Hashes each image: (N,) uint64."""
        found = [self.sets[number].hashes[row] for number, row in self.where.tolist()]
        return np.array(found, dtype=np.uint64)


def remove_broken(inputs: Tensor) -> Tensor | None:
    """Replaces broken images by zeros, in place.

    Args:
        inputs: (B, channels, height, width), as :meth:`LazyImages.load` returns them.

    Returns:
        bool (B,), which images were broken; None if none was.
    """
    broken = inputs[:, 0, 0, 0].isnan()
    if not broken.any():
        return None
    inputs[broken] = 0
    return broken


def measure_pixels(images: ImageSet, rows: Sequence[int]) -> tuple[list[float], list[float]]:
    """Returns the mean and standard deviation of each channel over some images, of 0 to 1.

    Raises:
        UserError: All of them are broken, or one is and none may be.
    """
    sums = np.zeros((2, images.decoder.channels))
    count = 0
    for row in rows:
        pixels = images.load(row, tell=False)
        if pixels is not None:
            values = pixels.reshape(len(pixels), -1) / 255.0
            sums += [values.mean(1), (values**2).mean(1)]
            count += 1
    if not count:
        raise UserError(f"{images.table}: all images of the training rows are broken")
    mean, square = sums / count
    std = np.sqrt(np.maximum(square - mean**2, 0))

    # a channel that never changes says nothing, whatever it is divided by
    return mean.tolist(), np.where(std > 1e-4, std, 1.0).tolist()


def as_plain_names(values: Sequence[Any], known: Sequence[bool]) -> list[str | None]:
    """Returns the names of images, None where there is none."""
    return [str(value) if is_known else None for value, is_known in zip(values, known, strict=True)]
