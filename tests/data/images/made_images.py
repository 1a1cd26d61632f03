"""Small images with labels that they show: the brighter half tells the class, red the number."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

ROWS = 61  # a prime, which no number of processes divides


def make_pixels(row: int, height: int = 20, width: int = 24) -> np.ndarray:
    """An image (height, width, 3) of bytes: brighter on the left in every second row."""
    rng = np.random.default_rng(row)
    pixels = rng.integers(0, 60, (height, width, 3))
    half = width // 2
    pixels[:, slice(0, half) if row % 2 else slice(half, None)] += 120
    pixels[..., 0] += 3 * (row % 25)
    return pixels.astype(np.uint8)


def encode(pixels: np.ndarray, kind: str = "PNG", **settings: object) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **settings)
    return file.getvalue()


def make_table(folder: Path, rows: int = ROWS) -> Path:
    """Writes images/000.png, ... and labels.csv into a folder; returns the table."""
    images = folder / "images"
    images.mkdir(parents=True)
    lines = ["file,side,red,who"]
    for row in range(rows):
        name = f"{row:03}.{'jpg' if row % 3 else 'png'}"
        kind = "JPEG" if row % 3 else "PNG"
        (images / name).write_bytes(encode(make_pixels(row, 20 + row % 3, 24 + row % 5), kind))
        red = "" if row % 7 == 0 else 3 * (row % 25)
        lines.append(f"{name},{'left' if row % 2 else 'right'},{red},{row // 4}")
    table = folder / "labels.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def zip_images(folder: Path, within: str = "") -> Path:
    """Writes folder/images.zip with the files of folder/images, perhaps within a folder."""
    path = folder / "images.zip"
    with zipfile.ZipFile(path, "w") as file:
        for image in sorted((folder / "images").iterdir()):
            file.write(image, f"{within}{image.name}")
    return path
