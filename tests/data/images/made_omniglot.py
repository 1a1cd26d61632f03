"""Zips of the form of Omniglot's, with few and simple images."""

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

ALPHABETS = {"Greek": 5, "Latin": 4, "Futurama": 3}
DRAWERS = 20


def draw(rng: np.random.Generator, place: int) -> bytes:
    """A 105 x 105 image of one bit a pixel: a bar at a place, and some noise."""
    pixels = rng.random((105, 105)) > 0.02
    pixels[:, place * 8 : place * 8 + 8] = False
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def write_omniglot(folder: Path, runs: int = 2, ways: int = 20) -> Path:
    """Writes the two small zips, which have an alphabet in common, and the runs."""
    folder.mkdir(exist_ok=True, parents=True)
    parts = {"small1": ["Greek", "Latin"], "small2": ["Greek", "Futurama"]}
    for part, alphabets in parts.items():
        name = f"images_background_{part}"
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            for number, alphabet in enumerate(alphabets):
                rng = np.random.default_rng(len(alphabet))
                for character in range(1, ALPHABETS[alphabet] + 1):
                    for drawer in range(1, DRAWERS + 1):
                        path = f"{alphabet}/character{character:02}/{number:04}_{drawer:02}.png"
                        archive.writestr(f"{name}/{path}", draw(rng, character))
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(folder / "all_runs.zip", "w") as archive:
        for run in range(1, runs + 1):
            order = rng.permutation(ways)
            lines = []
            for k in range(ways):
                support = f"run{run:02}/training/class{k + 1:02}.png"
                query = f"run{run:02}/test/item{k + 1:02}.png"
                archive.writestr(support, draw(rng, k % 13))
                archive.writestr(query, draw(rng, int(order[k]) % 13))
                lines.append(f"{query} run{run:02}/training/class{order[k] + 1:02}.png")
            archive.writestr(f"run{run:02}/class_labels.txt", "\n".join(lines) + "\n")
    return folder
