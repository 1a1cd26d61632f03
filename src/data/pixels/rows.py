"""Rows that are read when a batch needs them: an image, and the label maps that belong to it."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from src.batch import PADDING, Batch
from src.data.pixels.augmentation import DenseAugmentation
from src.data.pixels.maps import resize_nearest, to_image, to_label
from src.data.pixels.sources import DenseSource
from src.data.rows import BatchDataset
from src.errors import UserError
from src.tasks import MISSING, Task
from src.tasks.pixels import PixelLabels


@dataclass(frozen=True)
class ImageForm:
    """How images and maps become tensors of one size.

    Attributes:
        size: (height, width) that all are resized to; None leaves them as they are.
        standardise: Whether the pixels of each image get mean 0 and standard deviation 1.
    """

    size: tuple[int, int] | None = None
    standardise: bool = False

    def read_image(self, source: DenseSource, row: int) -> Tensor:
        """Reads an image: (C, H, W).

        Raises:
            UserError: It cannot be read.
        """
        values = source.read(source.image, row, is_label=False)
        image = torch.from_numpy(to_image(values, source.describe(source.image, row)))
        if self.size is not None and image.shape[1:] != self.size:
            image = F.interpolate(image[None], self.size, mode="bilinear", antialias=True)[0]
        if self.standardise:
            image = (image - image.mean()) / image.std(correction=0).clamp(min=1e-6)
        return image

    def read_size(self, source: DenseSource, row: int) -> tuple[int, int]:
        """Returns height and width of an image as it is in its file."""
        shape, _ = source.find_shape(source.image, row)
        return find_sides(shape)

    def read_label(
        self, source: DenseSource, part: str, row: int, task: Task, size: tuple[int, int]
    ) -> np.ndarray:
        """Reads a map (H, W) or (H, W, L), or the label of a whole image ().

        Args:
            source: The files.
            part: The name of the map.
            row: The number of the image.
            task: Its task.
            size: Height and width of the image as it is in its file.

        Raises:
            UserError: It cannot be read, or is of another size than the image.
        """
        values = source.read(part, row)
        if not isinstance(task, PixelLabels):
            if values.size != 1:
                raise UserError(
                    f"{source.describe(part, row)}: has the shape {values.shape}, where a "
                    f"{type(task).__name__} has one label for each image"
                )
            return values.reshape(())
        # the length of a vector is not known before its task is fitted
        length = task.out_features if task.event_dims else 0
        values = to_label(values, length, source.describe(part, row))
        refuse_other_size(source, part, row, values.shape[:2], size)
        return values if self.size is None else resize_nearest(values, *self.size)


class DenseRows(BatchDataset):
    """Some images of a source with their labels.

    Args:
        source: The files.
        rows: Numbers of the images in it.
        tasks: {task: task, fitted}.
        parts: {task: name of its maps}.
        form: How images and maps become tensors.
        augmentation: Random changes, where row numbers come with an epoch.
    """

    def __init__(
        self,
        source: DenseSource,
        rows: np.ndarray,
        tasks: dict[str, Task],
        parts: dict[str, str],
        form: ImageForm,
        augmentation: DenseAugmentation | None = None,
    ) -> None:
        self.source = source
        self.rows = rows
        self.tasks = tasks
        self.parts = parts
        self.form = form
        self.augmentation = augmentation
        self.row_info = {"id": [source.names[row] for row in rows]}
        self._blank: tuple[Tensor, dict[str, Tensor]] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, ids: Tensor) -> Batch:
        """Reads the rows ``ids`` (B,); with epochs beside them (B, 2) they are augmented."""
        epochs = ids[:, 1].tolist() if ids.ndim == 2 else [None] * len(ids)
        numbers = ids[:, 0] if ids.ndim == 2 else ids
        samples = []
        for number, epoch in zip(numbers.tolist(), epochs, strict=True):
            if number == PADDING:
                samples.append(self._make_blank(epoch))
            else:
                samples.append(self._read(number, epoch))
        images = [image for image, _ in samples]
        targets = {
            name: torch.stack([labels[name] for _, labels in samples]) for name in self.tasks
        }
        return Batch(torch.stack(images), targets, numbers)

    def _read(self, number: int, epoch: int | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns an image (C, H, W) and its targets, changed at random in training."""
        image, targets = self.read(number)
        if epoch is None or self.augmentation is None:
            return image, targets
        return self.augmentation.apply(image, targets, self.tasks, (epoch, number))

    def read(self, number: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns an image (C, H, W) and its targets.

        Raises:
            UserError: A file cannot be read, or holds what it must not.
        """
        row = int(self.rows[number])
        source = self.source
        image = self.form.read_image(source, row)
        size = (image.shape[1], image.shape[2])
        if self.form.size is not None:
            size = self.form.read_size(source, row)
        targets = {}
        for name, part in self.parts.items():
            task = self.tasks[name]
            if not source.has(part, row):
                targets[name] = make_missing(task, image.shape[1:])
                continue
            values = self.form.read_label(source, part, row, task, size)
            try:
                targets[name] = task.encode(values[None])[0]
            except UserError as error:
                raise UserError(f"{source.describe(part, row)}: {error}") from None
        return image, targets

    def _make_blank(self, epoch: int | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns a row that only fills up a batch: zeros, and no labels."""
        if self._blank is None:
            image, targets = self.read(0)
            self._blank = (
                torch.zeros_like(image),
                {name: torch.full_like(y, missing_of(y)) for name, y in targets.items()},
            )
        if epoch is None or self.augmentation is None:
            return self._blank
        return self.augmentation.apply(*self._blank, self.tasks, (epoch, 0))


def missing_of(targets: Tensor) -> float:
    """Returns the value that marks a missing label in such targets."""
    return float("nan") if targets.is_floating_point() else MISSING


def make_missing(task: Task, size: tuple[int, ...]) -> Tensor:
    """Returns the targets of an image without a label of a task."""
    # an encoded example has the type, and the length of a vector
    shape = (1, 1, 1) if isinstance(task, PixelLabels) else (1,)
    if task.event_dims:
        shape = (*shape, task.out_features)
    like = task.encode(np.full(shape, np.nan))[0]
    if isinstance(task, PixelLabels):
        like = like.expand(*size, *like.shape[2:])
    return torch.full_like(like, missing_of(like), memory_format=torch.contiguous_format)


def find_sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns height and width of an image of a shape, as :func:`to_image` reads it."""
    if len(shape) == 3 and shape[-1] > shape[0]:
        return shape[1], shape[2]
    return shape[0], shape[1]


def refuse_other_size(
    source: DenseSource, part: str, row: int, found: tuple[int, ...], size: tuple[int, int]
) -> None:
    """Refuses a map that is not as large as its image.

    Raises:
        UserError: It is not.
    """
    if tuple(found) != tuple(size):
        raise UserError(
            f"{source.describe(part, row)}: is {found[0]} x {found[1]} (height x width), where "
            f"{source.describe(source.image, row)} is {size[0]} x {size[1]}"
        )
