"""Where images and their maps are: a folder with a folder for each kind of file, or one .npz."""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.data.pixels.maps import ENDINGS, read_map, read_shape, shorten
from src.errors import UserError, suggest_or_list


class DenseSource(ABC):
    """Images by number, and the label maps that belong to each.

    Attributes:
        image: Name of the images among the parts.
        names: Name of each image.
        parts: What else there is: a map, or a single label, for each image.
    """

    image: str
    names: list[str]
    parts: list[str]

    @abstractmethod
    def has(self, part: str, row: int) -> bool:
        """Returns whether there is such a part of an image."""

    @abstractmethod
    def read(self, part: str, row: int, is_label: bool = True) -> np.ndarray:
        """Reads a part of an image, whose shape is its own.

        Raises:
            UserError: It cannot be read.
        """

    @abstractmethod
    def find_shape(self, part: str, row: int) -> tuple[tuple[int, ...], np.dtype]:
        """Returns the shape and type of a part of an image, if possible without reading it.

        Raises:
            UserError: It cannot be read.
        """

    @abstractmethod
    def describe(self, part: str, row: int) -> str:
        """Names a part of an image for a message."""

    @abstractmethod
    def files(self) -> list[str]:
        """Returns the paths of all files."""

    def notes(self) -> list[str]:
        """Returns what a person should know of the files, one line each."""
        return []

    def refuse_missing(self, part: str) -> None:
        """Refuses the name of a part that is not there.

        Raises:
            UserError: It is not.
        """
        if part not in self.parts:
            raise UserError(
                f"{self.describe(part, -1)}: is not there; {suggest_or_list(part, self.parts)}"
            )


class FolderSource(DenseSource):
    """A folder such as train/, with a file image/a.png and a file mask/a.npy for each image a.

    Args:
        folder: The folder.
        image: Name of the folder of images in it.
        advice: Where to get a public data set, for the end of a message.

    Raises:
        UserError: There are no images in it.
    """

    def __init__(self, folder: Path, image: str = "image", advice: str = "") -> None:
        self.folder = folder
        self.image = image
        images = list_files(folder / image)
        if not images:
            raise UserError(
                f"{folder / image}: has no images; a folder of images is expected there, of "
                f"{', '.join(ENDINGS[:4])} ..., and beside it one of each kind of label{advice}"
            )
        self.names = list(images)
        self.parts = []
        self._paths = {image: images}
        for other in sorted(folder.iterdir()):
            if other.is_dir() and other.name != image and not other.name.startswith("."):
                found = list_files(other)
                if found:
                    self.parts.append(other.name)
                    self._paths[other.name] = found

    def has(self, part: str, row: int) -> bool:
        return self.names[row] in self._paths.get(part, {})

    def path(self, part: str, row: int) -> Path:
        """Returns the path of a part of an image.

        Raises:
            UserError: It is not there.
        """
        path = self._paths[part].get(self.names[row])
        if path is None:
            raise UserError(
                f"{self.folder / part}: has no file {self.names[row]}.* for "
                f"{self._paths[self.image][self.names[row]]}; add it, or take such labels for "
                "missing: --data.partial true"
            )
        return path

    def read(self, part: str, row: int, is_label: bool = True) -> np.ndarray:
        return read_map(self.path(part, row), is_label)

    def find_shape(self, part: str, row: int) -> tuple[tuple[int, ...], np.dtype]:
        return read_shape(self.path(part, row))

    def describe(self, part: str, row: int) -> str:
        return str(self.folder / part if row < 0 else self.path(part, row))

    def files(self) -> list[str]:
        return [str(path) for paths in self._paths.values() for path in paths.values()]

    def notes(self) -> list[str]:
        """Returns a line for each part with files that belong to no image."""
        notes = []
        for part in self.parts:
            lost = [name for name in self._paths[part] if name not in self._paths[self.image]]
            if lost:
                notes.append(
                    f"{self.folder / part}: {len(lost)} files belong to no image of {self.image}, "
                    f"such as {self._paths[part][lost[0]].name}; they are left out"
                )
        return notes


class ArraySource(DenseSource):
    """Arrays with a row for each image, in memory.

    Args:
        path: The file that they come from, for messages.
        arrays: {part: (N, ...)}.
        image: Which of them holds the images.
        names: Name of each image; None counts them from 0.
    """

    def __init__(
        self,
        path: Path,
        arrays: dict[str, np.ndarray],
        image: str = "image",
        names: Sequence[str] | None = None,
    ) -> None:
        self.path = path
        self.image = image
        if image not in arrays:
            raise UserError(
                f"{path}: has no array '{image}' of images; {suggest_or_list(image, arrays)} "
                "(--data.image names it)"
            )
        rows = len(arrays[image])
        for part, array in arrays.items():
            if len(array) != rows:
                raise UserError(
                    f"{path}: has {rows} rows of '{image}' and {len(array)} of '{part}'"
                )
        self.arrays = arrays
        self.names = list(names) if names is not None else [str(row) for row in range(rows)]
        self.parts = [part for part in arrays if part != image]

    def has(self, part: str, row: int) -> bool:
        return part in self.arrays

    def read(self, part: str, row: int, is_label: bool = True) -> np.ndarray:
        return np.asarray(self.arrays[part][row])

    def find_shape(self, part: str, row: int) -> tuple[tuple[int, ...], np.dtype]:
        return self.arrays[part].shape[1:], self.arrays[part].dtype

    def describe(self, part: str, row: int) -> str:
        return f"{self.path}: '{part}'" if row < 0 else f"{self.path}: row {row} of '{part}'"

    def files(self) -> list[str]:
        return [str(self.path)]


def list_files(folder: Path) -> dict[str, Path]:
    """Returns {name without its ending: path} of the images or maps in a folder, sorted.

    Raises:
        UserError: Two files differ in their ending alone.
    """
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: split_numbers(path.name)):
        # macOS adds files to folders that only look like images
        if path.suffix.lower() not in ENDINGS or path.name.startswith("."):
            continue
        if path.stem in found:
            raise UserError(f"{path}: has the same name as {found[path.stem].name}; remove one")
        found[path.stem] = path
    return found


def split_numbers(name: str) -> tuple[int, str]:
    """Returns a key that sorts names: 2 before 10, as in folders of numbered files."""
    stem = name.rpartition(".")[0]
    return (int(stem), "") if stem.isascii() and stem.isdigit() else (-1, name)


def open_arrays(path: Path, image: str) -> ArraySource:
    """Reads an .npz file with an array of images and arrays of labels, each with a row an image.

    An array ``names`` of text, if there is one, names the images.

    Raises:
        UserError: It cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read: {shorten(error)}") from None
    names = [str(name) for name in arrays.pop("names")] if "names" in arrays else None
    return ArraySource(path, arrays, image, names)
