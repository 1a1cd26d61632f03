"""The tasks of images with maps: as settings or files declare them, and what they learn."""

from collections.abc import Iterator

import numpy as np

from src.data.kinds import build_task, parse_declaration
from src.data.pixels.rows import ImageForm
from src.data.pixels.sources import DenseSource
from src.errors import UserError
from src.tasks import (
    BadLabel,
    DenseRegression,
    Regression,
    Segmentation,
    SurfaceNormals,
    Task,
)
from src.tasks.pixels import PixelLabels


def declare_task(given: object, part: str, source: DenseSource, rows: np.ndarray) -> Task:
    """Returns a task as settings declare it, of a kind that its files show where they do not.

    Args:
        given: The settings.
        part: The name of its labels.
        source: The files.
        rows: Numbers of the training images.

    Raises:
        UserError: There is no such kind or setting, or no training image has such a label.
    """
    kind, settings = parse_declaration(given)
    if kind is None:
        having = [row for row in rows if source.has(part, row)]
        if not having:
            raise UserError("has no label in the training split")
        kind = guess_kind(*source.find_shape(part, having[0]))
    if not issubclass(kind, PixelLabels):
        settings = {"pooled": True} | settings
    return build_task(kind, settings)


def fit_task(
    name: str, task: Task, part: str, source: DenseSource, rows: np.ndarray, form: ImageForm
) -> Task:
    """Returns a task with what it learns from the labels of training images.

    Raises:
        UserError: They cannot be read, or have nothing to learn.
    """
    where = ""

    def read() -> Iterator[np.ndarray]:
        nonlocal where
        for row in rows:
            if source.has(part, row):
                where = f"{source.describe(part, row)}: "
                yield form.read_label(source, part, row, task, form.read_size(source, row))

    try:
        if isinstance(task, PixelLabels):
            return task.learn(read())
        return task.fit(np.array(list(read())), [name])
    except BadLabel as error:
        raise UserError(f"{where}{error}") from None
    except UserError as error:
        # errors of files name them already
        if str(error).startswith("has "):
            raise UserError(f"task '{name}' {error}") from None
        raise


def guess_kind(shape: tuple[int, ...], dtype: np.dtype) -> type[Task]:
    """Returns the kind of task that files of a shape and type are for."""
    if int(np.prod(shape)) == 1:
        return Regression
    if dtype.kind in "bui":
        return Segmentation
    return SurfaceNormals if 3 in (shape[0], shape[-1]) and len(shape) == 3 else DenseRegression


def describe_task(task: Task) -> str:
    """Describes a task in a line."""
    words = type(task).__name__
    if isinstance(task, Segmentation):
        return f"{words} of {len(task.classes)} classes"
    return words if isinstance(task, PixelLabels) else f"{words}, one label an image"
