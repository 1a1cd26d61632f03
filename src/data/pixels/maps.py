"""Files of images and of their labels per pixel: arrays of numpy, or anything that Pillow reads."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from src.errors import UserError, in_one_line

if TYPE_CHECKING:
    from PIL.Image import Image

ARRAYS = (".npy", ".npz")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".pgm", ".ppm")
ENDINGS = (*ARRAYS, *PICTURES)

# what numpy's and Pillow's readers raise at broken files
BROKEN = (
    *(OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, MemoryError),
    *(struct.error, zlib.error, zipfile.BadZipFile),
)
# grey values of 8, 16 and 32 bits, and positions in a palette, are kept as they are
KEPT = ("1", "L", "P", "I", "F")


def read_map(path: Path, is_label: bool) -> np.ndarray:
    """Reads a file: (H, W), or (H, W, channels) of colours; arrays as they are.

    Args:
        path: The file.
        is_label: Whether positions in a palette are ids of classes, instead of colours.

    Raises:
        UserError: It cannot be read.
    """
    try:
        if path.suffix.lower() == ".npy":
            array: np.ndarray = np.load(path, allow_pickle=False)
        elif path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                array = archive[find_only(archive.files)]
        else:
            array = read_picture(path, is_label)
    except BROKEN as error:
        raise UserError(f"{path}: cannot be read: {shorten(error)}") from None
    if array.dtype.kind not in "buif":
        raise UserError(f"{path}: holds values of type {array.dtype}, where numbers are expected")
    return array


def read_shape(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Returns the shape and type of what :func:`read_map` reads, from as little as possible.

    Raises:
        UserError: The file is broken.
    """
    try:
        if path.suffix.lower() == ".npy":
            # a file that is too short for its header is refused here
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            return mapped.shape, mapped.dtype
        if path.suffix.lower() in PICTURES:
            with open_picture(path) as image:
                channels = () if image.mode in KEPT or image.mode[0] == "I" else (3,)
                kind = np.dtype({"F": "f4", "I": "i4"}.get(image.mode, "u1"))
                return (image.height, image.width, *channels), kind
    except BROKEN as error:
        raise UserError(f"{path}: cannot be read: {shorten(error)}") from None
    array = read_map(path, is_label=True)
    return array.shape, array.dtype


def read_picture(path: Path, is_label: bool) -> np.ndarray:
    """Reads a file with Pillow; 16 bits stay 16 bits."""
    with open_picture(path) as image:
        if image.mode == "P" and not is_label:
            return np.asarray(image.convert("RGB"))
        if image.mode in KEPT or image.mode.startswith("I;"):
            return np.asarray(image)
        return np.asarray(image.convert("L" if image.mode == "LA" else "RGB"))


def open_picture(path: Path) -> Image:
    """Opens a file with Pillow."""
    from PIL import Image  # only where there are pictures

    return Image.open(path)


def find_only(names: list[str]) -> str:
    """Returns the name of the only array of an .npz file.

    Raises:
        ValueError: There are several.
    """
    if len(names) != 1:
        raise ValueError(f"it has the arrays {', '.join(names)}, where one is expected")
    return names[0]


def shorten(error: BaseException) -> str:
    """Returns the reason of a reader in one line, without the path that stands before it."""
    return in_one_line(error).split(": '/")[0] or type(error).__name__


# -- shapes ----------------------------------------------------------------------------------------
def to_image(values: np.ndarray, where: str) -> np.ndarray:
    """Returns an image as (channels, H, W) in fp32: bytes and 16 bits as shares of their largest.

    Args:
        values: (H, W), (H, W, channels) or (channels, H, W). Of three sizes the first is the
            number of channels if it is smaller than the last, otherwise the last.
        where: Name of the file, for the message.

    Raises:
        UserError: It has another shape, or a value that is not finite.
    """
    if values.ndim not in (2, 3):
        raise UserError(
            f"{where}: has the shape {values.shape}, where (height, width) or (height, width, "
            "channels) is expected"
        )
    largest = {"u1": 255, "u2": 65535, "i4": 65535}.get(values.dtype.str[1:], 1)
    image = values.astype(np.float32)
    if largest > 1:
        image /= np.float32(largest)

    # a view: the batch that it goes into is a copy anyway
    if image.ndim == 2:
        image = image[None]
    elif image.shape[-1] <= image.shape[0]:
        image = np.moveaxis(image, -1, 0)
    if not np.isfinite(image.sum()):
        _, row, column = np.argwhere(~np.isfinite(image))[0]
        raise UserError(f"{where}: holds a value that is not finite at row {row}, column {column}")
    return image


def to_label(values: np.ndarray, length: int, where: str) -> np.ndarray:
    """Returns a label map as (H, W), or (H, W, length) where a pixel has several numbers.

    Args:
        values: Of such a shape, or with channels first, or with a channel too many.
        length: Numbers of a pixel; 0 for a single one.
        where: Name of the file, for the message.

    Raises:
        UserError: It has another shape.
    """
    if length and values.ndim == 3:
        if values.shape[-1] == length:
            return values
        if values.shape[0] == length:
            return np.moveaxis(values, 0, -1)
    if not length and values.ndim == 3 and 1 in (values.shape[0], values.shape[-1]):
        values = values[..., 0] if values.shape[-1] == 1 else values[0]
    if values.ndim != (3 if length else 2):
        wanted = f"(height, width, {length})" if length else "(height, width)"
        raise UserError(f"{where}: has the shape {values.shape}, where {wanted} is expected")
    return values


def resize_nearest(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes a label map (H, W, ...): each pixel takes the label at its centre."""
    rows = ((np.arange(height) + 0.5) * values.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * values.shape[1] / width).astype(int)
    return values[rows][:, columns]
