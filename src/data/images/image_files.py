"""Image files below a folder or in a .zip file, read by name from any number of processes."""

from __future__ import annotations

import os
import zipfile
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

from src.data.images.images import BadImage
from src.errors import UserError

ENDINGS = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"),
)


class ImageFiles:
    """The files below a folder, or in a .zip file.

    A .zip file is opened once in each process: a handle that workers inherit would share its
    position with that of their parent.

    Args:
        path: The folder or the .zip file.

    Raises:
        UserError: There is neither.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.is_zip = self.path.is_file()
        if not self.is_zip and not self.path.is_dir():
            raise UserError(f"{path}: there is no such folder, nor such a .zip file")
        self._zip: zipfile.ZipFile | None = None
        self._owner = 0

    def __getstate__(self) -> dict[str, Any]:
        """Returns what goes to another process, which opens the file anew."""
        return {**self.__dict__, "_zip": None}

    @cached_property
    def _entries(self) -> dict[str, zipfile.ZipInfo]:
        """The files in the .zip file, by name: without the one folder that all lie in, and with."""
        files = [info for info in self._open().infolist() if not info.is_dir()]
        # macOS adds a folder of its own
        files = [info for info in files if not info.filename.startswith("__MACOSX/")]
        tops = {info.filename.split("/")[0] for info in files}
        found = {info.filename: info for info in files}
        if len(tops) == 1 and len(files) > 0 and "/" in files[0].filename:
            top = f"{tops.pop()}/"
            found = {info.filename.removeprefix(top): info for info in files} | found
        return found

    def _open(self) -> zipfile.ZipFile:
        """Returns this process's handle of the .zip file."""
        if self._zip is None or self._owner != os.getpid():
            self.close()
            try:
                self._zip = zipfile.ZipFile(self.path)
            except (OSError, zipfile.BadZipFile) as error:
                raise UserError(f"{self.path}: cannot be read as a .zip file: {error}") from None
            self._owner = os.getpid()
        return self._zip

    def close(self) -> None:
        """Closes the .zip file; it opens again when it is needed."""
        if self._zip is not None:
            self._zip.close()
            self._zip = None

    def list_images(self) -> list[str]:
        """Returns the names of all images, sorted, by the ends of their names."""
        if self.is_zip:
            # an entry may have two names, and the shorter comes first
            first = {id(info): name for name, info in reversed(self._entries.items())}
            names = list(first.values())
        else:
            files = self.path.rglob("*")
            names = [path.relative_to(self.path).as_posix() for path in files if path.is_file()]
        # macOS adds files to folders and archives that only look like images
        return sorted(
            name
            for name in names
            if name.lower().endswith(ENDINGS) and not Path(name).name.startswith("._")
        )

    def find_size(self, name: str) -> int | None:
        """Returns the size of a file in bytes; None if it is not there."""
        if self.is_zip:
            return self._entries[name].file_size if name in self._entries else None
        try:
            # a name that leads out of the folder is a slip, or an attack
            return os.stat(self._locate(name)).st_size
        except (OSError, BadImage):
            return None

    def _locate(self, name: str) -> str:
        if os.path.isabs(name) or ".." in name.split("/"):
            raise BadImage(f"its name leads out of {self.path}")
        return os.path.join(self.path, name)

    def read(self, name: str) -> bytes:
        """Returns the content of a file.

        Raises:
            BadImage: It is not there, or cannot be read.
        """
        try:
            if self.is_zip:
                return self._open().read(self._entries[name])
            with open(self._locate(name), "rb") as file:
                return file.read()
        except (FileNotFoundError, KeyError):
            raise BadImage(f"there is no such file in {self.path}") from None
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise BadImage(f"it cannot be read: {error}") from None


def find_images_of(table: str) -> Path:
    """Returns where a table's images are: beside it, unless it is a folder of images itself."""
    return Path(table) if holds_images(table) else Path(table).parent


def holds_images(path: str) -> bool:
    """Returns whether a path is a folder, or a .zip file with images in it."""
    if Path(path).is_dir():
        return True
    return zipfile.is_zipfile(path) and bool(ImageFiles(path).list_images())
