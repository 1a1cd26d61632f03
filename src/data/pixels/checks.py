"""Looks at all files of images and maps before a run begins."""

from collections.abc import Mapping

import numpy as np

from src.data.pixels.augmentation import DenseAugmentation
from src.data.pixels.rows import DenseRows, ImageForm, find_sides, refuse_other_size
from src.data.pixels.sources import DenseSource
from src.errors import UserError
from src.tasks import SurfaceNormals, Task
from src.tasks.pixels import PixelLabels

Sides = Mapping[str, tuple[DenseSource, np.ndarray]]


class SizeCheck:
    """Compares images with the first that it has seen.

    Args:
        form: How images become tensors; resized ones may differ in height and width.
    """

    def __init__(self, form: ImageForm) -> None:
        self.resizes = form.size is not None
        self.first: tuple[str, tuple[int, ...]] | None = None

    def compare(self, where: str, shape: tuple[int, ...]) -> None:
        """Refuses an image of another size, or with another number of channels.

        Raises:
            UserError: It is.
        """
        sides = find_sides(shape)
        channels = int(np.prod(shape)) // max(sides[0] * sides[1], 1)
        if self.first is None:
            self.first = where, (*sides, channels)
            return
        other, (height, width, others) = self.first
        if channels != others:
            raise UserError(
                f"{where}: has {channels} channels, where {other} has {others}; make them alike"
            )
        if sides != (height, width) and not self.resizes:
            raise UserError(
                f"{where}: is {sides[0]} x {sides[1]} (height x width), where {other} is {height} "
                f"x {width}: resize all by --data.size '[{height}, {width}]'"
            )


def check_headers(
    sides: Sides,
    parts: Mapping[str, str],
    kinds: Mapping[str, Task],
    form: ImageForm,
    partial: bool,
) -> None:
    """Checks for each image and map that the file is there and of the right size.

    Args:
        sides: {side: (source, numbers of its images)}.
        parts: {task: name of its maps}.
        kinds: {task: task}.
        form: How images become tensors.
        partial: Whether maps may be missing.

    Raises:
        UserError: One is not.
    """
    sizes = SizeCheck(form)
    for source, rows in dict.fromkeys((source, tuple(rows)) for source, rows in sides.values()):
        for row in rows:
            check_header(source, row, parts, kinds, sizes, partial)


def check_header(
    source: DenseSource,
    row: int,
    parts: Mapping[str, str],
    kinds: Mapping[str, Task],
    sizes: SizeCheck,
    partial: bool,
) -> None:
    """Checks the files of an image, as far as they tell without being decoded.

    Raises:
        UserError: One is missing, or of another size.
    """
    shape, _ = source.find_shape(source.image, row)
    sizes.compare(source.describe(source.image, row), shape)
    size = find_sides(shape)
    for name, part in parts.items():
        if partial and not source.has(part, row):
            continue
        found, _ = source.find_shape(part, row)
        if isinstance(kinds[name], PixelLabels) and len(found) > 1:
            refuse_other_size(source, part, row, find_map_sides(found), size)


def find_map_sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns height and width of a map, which may have a channel, or numbers of a vector."""
    return find_sides(shape if len(shape) == 2 or shape[0] <= shape[-1] else (*shape[:2], 1))


def find_broken(
    source: DenseSource,
    rows: np.ndarray,
    parts: Mapping[str, str],
    kinds: Mapping[str, Task],
    form: ImageForm,
    partial: bool,
    sizes: SizeCheck,
) -> dict[int, str]:
    """Reads all files of some images; returns {number: why it cannot be read}."""
    broken = {}
    for row in rows:
        try:
            check_header(source, row, parts, kinds, sizes, partial)
            form.read_image(source, row)
            for name, part in parts.items():
                if source.has(part, row):
                    size = form.read_size(source, row)
                    form.read_label(source, part, row, kinds[name], size)
        except UserError as error:
            broken[int(row)] = str(error)
    return broken


def list_broken(split: DenseRows) -> dict[int, str]:
    """Reads all rows of a split; returns {number of the image: why its labels are none}."""
    broken = {}
    for number, row in enumerate(split.rows):
        try:
            split.read(number)
        except UserError as error:
            broken[int(row)] = str(error)
    return broken


def check_augmentation(
    augmentation: DenseAugmentation, tasks: Mapping[str, Task], shape: tuple[int, ...]
) -> None:
    """Checks that labels can follow what happens to images.

    Raises:
        UserError: They cannot.
    """
    crop = augmentation.crop
    if crop is not None and (crop[0] > shape[1] or crop[1] > shape[2]):
        raise UserError(
            f"data.crop is {list(crop)}, where images are {shape[1]} x {shape[2]} (height x width)"
        )
    for name, task in tasks.items():
        kind = type(task).__name__
        if crop is not None and not isinstance(task, PixelLabels):
            raise UserError(
                f"data.crop: task '{name}' ({kind}) has a label of a whole image, which is not "
                "that of a section; leave crop out"
            )
        # numbers of a pixel that are a direction
        is_vector = isinstance(task, PixelLabels) and task.event_dims > 0
        if augmentation.turn and is_vector:
            raise UserError(
                f"data.turn: task '{name}' ({kind}) has directions, which do not turn with an "
                "image; take flip"
            )
        if augmentation.flip and is_vector and not isinstance(task, SurfaceNormals):
            raise UserError(
                f"data.flip: how the {task.out_features} numbers of task '{name}' ({kind}) change "
                "in a mirrored image is not known; leave flip out"
            )
