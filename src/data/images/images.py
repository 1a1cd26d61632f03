"""Decoding of images with Pillow: one size, grey or colour, and one line for what is broken."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from src.errors import UserError, in_one_line

if TYPE_CHECKING:
    from PIL.Image import Image

ORIENTATION = 0x0112  # the EXIF tag of how a camera was held
GREY, COLOUR = 1, 3  # channels
MARGIN = 1.25  # least size at which a photo is decoded, in times of ours

# how a file ends that is there to its last byte, by its first bytes
ENDS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG": b"IEND\xaeB`\x82"}
TAIL = 4096  # bytes in which the end is looked for: some programs write more after it

# Pillow's readers raise errors of all these types at broken files
BROKEN = (
    *(OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, MemoryError),
    *(struct.error, zlib.error),
)


class BadImage(ValueError):
    """An image that cannot be decoded; the message says why."""


@dataclass(frozen=True)
class ImageDecoder:
    """Decodes images, and brings them all into one form.

    Attributes:
        height: In pixels.
        width: In pixels.
        channels: 1 for grey, 3 for red, green and blue.
        crop: Whether the centre is cut out where the sides have another ratio; otherwise the image
            is stretched.
    """

    height: int
    width: int
    channels: int = COLOUR
    crop: bool = True

    def decode(self, content: bytes) -> np.ndarray:
        """Decodes a file.

        Args:
            content: The bytes of the file.

        Returns:
            (channels, height, width) of bytes.

        Raises:
            BadImage: It cannot be decoded.
        """
        try:
            with open_image(content) as image:
                pixels = np.asarray(self._resize(image))
        except (BadImage, UserError):
            raise
        except BROKEN as error:
            raise BadImage(in_one_line(error) or type(error).__name__) from None
        return pixels[None] if self.channels == GREY else pixels.transpose(2, 0, 1)

    def _resize(self, image: Image) -> Image:
        from PIL import Image as PILImage
        from PIL import ImageOps

        mode = "L" if self.channels == GREY else "RGB"
        if image.format == "JPEG":
            # a large photo is decoded at half its size, a quarter ..., but never below ours
            wanted = MARGIN * max(self.height / image.height, self.width / image.width)
            if wanted < 1:
                sides = (round(image.width * wanted), round(image.height * wanted))
                image.draft(mode if mode == "L" else None, sides)
        if image.getexif().get(ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            # 16 bits a pixel: Pillow would cut off all above 255
            image = PILImage.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8))
        if image.mode == "F":
            raise BadImage("its pixels are fractions; save them as whole numbers from 0 to 255")
        if image.mode != mode:
            image = image.convert(mode)

        box = None
        if self.crop:
            box = find_centre(image.width, image.height, self.width / self.height)
        # bilinear with smoothing, as Pillow does it when it makes images smaller
        return image.resize((self.width, self.height), PILImage.Resampling.BILINEAR, box)


def find_centre(width: int, height: int, ratio: float) -> tuple[float, float, float, float]:
    """Returns the largest box of a ratio of sides in the centre of an image."""
    wide = min(width, height * ratio)
    high = min(height, width / ratio)
    left = (width - wide) / 2
    top = (height - high) / 2
    return (left, top, left + wide, top + high)


def open_image(content: bytes) -> Image:
    """Reads the header of an image.

    Raises:
        UserError: Pillow is not installed.
        BadImage: The file is no image.
        OSError: Its header is broken.
    """
    try:
        from PIL import Image as PILImage
    except ModuleNotFoundError:
        raise UserError("images need Pillow: pip install pillow") from None
    if not content:
        raise BadImage("the file is empty")
    try:
        return PILImage.open(io.BytesIO(content))
    except PILImage.UnidentifiedImageError:
        raise BadImage("it is no image that Pillow reads") from None
    except PILImage.DecompressionBombError as error:
        raise BadImage(in_one_line(error)) from None


def check_image(content: bytes) -> None:
    """Checks a file without decoding it: its header, and whether it goes on to its end.

    Raises:
        BadImage: It is broken.
    """
    try:
        open_image(content).close()
    except (BadImage, UserError):
        raise
    except BROKEN as error:
        raise BadImage(in_one_line(error) or type(error).__name__) from None
    for begin, end in ENDS.items():
        if content.startswith(begin) and end not in content[-TAIL:]:
            raise BadImage("the file is cut off")
