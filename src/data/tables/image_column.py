"""A column of a table that names image files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from src.batch import InputShape
from src.data.images.image_files import ENDINGS, ImageFiles, find_images_of
from src.data.images.images import ImageDecoder
from src.data.images.lazy_images import ImageSet, LazyImages, as_plain_names, measure_pixels
from src.data.rows import Inputs
from src.data.tables.columns import MemberColumn
from src.data.tables.numbers import BadValue
from src.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

MEASURED = 1000  # training images that tell the mean and spread of pixels
LOOKED_AT = 50  # values that tell whether a column names images


@dataclass(frozen=True)
class Image(MemberColumn):
    """A column of names of image files: an input (channels, height, width).

    Attributes:
        column: The column of the file.
        path: Folder or .zip file of the images; "" for the folder of the table.
        height: Height that all images are brought to, in pixels.
        width: Width that all images are brought to.
        channels: 1 for grey images, 3 for colour.
        crop: Whether the centre is cut out where the sides have another ratio; otherwise images are
            stretched.
        mean: Mean of each channel, of pixels from 0 to 1, which is subtracted.
        std: Standard deviation of each channel, which is divided by.
        on_error: What a broken image does: end the run, or leave its row out.
        read_first: Whether all files are read once before training.
        cache_gb: Most memory for decoded images; if not all of a table fit, none is kept.
    """

    reads_files: ClassVar[bool] = True

    path: str
    height: int
    width: int
    channels: int = 3
    crop: bool = True
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    on_error: Literal["refuse", "skip"] = "refuse"
    read_first: bool = True
    cache_gb: float = 1.0

    @property
    def decoder(self) -> ImageDecoder:
        """Decodes the images."""
        return ImageDecoder(self.height, self.width, self.channels, self.crop)

    @property
    def shape(self) -> InputShape:
        """One image."""
        return InputShape((self.channels, self.height, self.width))

    def open(self, series: pd.Series, table: str) -> ImageSet:
        """Finds the images of all rows of a file.

        Args:
            series: (N,) names of images.
            table: The file.

        Raises:
            UserError: There is no such folder.
        """
        files = ImageFiles(self.path or find_images_of(table))
        names = as_plain_names(series.tolist(), series.notna().tolist())
        cache = round(self.cache_gb * 1e9)
        skip = self.on_error == "skip"
        # the index counts the rows of the file; some may have been left out
        numbers = [int(row) + 1 for row in series.index]
        return ImageSet(files, names, self.decoder, table, skip, self.read_first, cache, numbers)

    def fit(self, series: pd.Series, table: str, rows: np.ndarray) -> Self:
        """Returns the column with the mean and spread of the pixels of training images.

        Args:
            series: (N,) names of images.
            table: The file.
            rows: The training rows.
        """
        images = self.open(series, table)
        step = max(1, len(rows) // MEASURED)
        mean, std = measure_pixels(images, rows[::step].tolist())
        return replace(self, mean=tuple(mean), std=tuple(std))

    def encode(self, series: pd.Series, path: str) -> tuple[Inputs, list[str]]:
        images = self.open(series, path)
        if images.broken and self.on_error == "refuse":
            row, reason = next(iter(images.broken.items()))
            name = images.names[row]
            what = reason if name is None else f"names '{name}', but {reason}"
            raise BadValue(row, f"{what}; --data.on_error skip leaves such rows out")
        encoded = LazyImages.of_all(images, self.mean, self.std)
        return encoded, images.describe_broken()

    @classmethod
    def from_plain(cls, settings: Mapping[str, Any]) -> Self:
        """Returns the column with the fields of a schema's entry; JSON has lists for tuples."""
        tuples = {key: tuple(settings[key]) for key in ("mean", "std")}
        return cls(**{**settings, **tuples})


def find_image_column(frame: pd.DataFrame, names: Sequence[str], path: str) -> str:
    """Returns the column that names image files.

    Args:
        frame: The rows.
        names: The columns among which it is.
        path: The file, for messages.

    Raises:
        UserError: There is none, or there are several.
    """
    found = []
    for name in names:
        values = frame[name].dropna().head(LOOKED_AT)
        ends = [str(value).lower().endswith(ENDINGS) for value in values]
        if ends and np.mean(ends) > 0.5:
            found.append(name)
    if len(found) == 1:
        return found[0]
    what = f"the columns {', '.join(found)} name" if found else "no column names"
    raise UserError(f"{path}: {what} image files: say which one with --data.image_column")
