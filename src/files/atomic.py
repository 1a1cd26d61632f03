"""Files that are written whole or not at all, whatever breaks meanwhile."""

import ctypes
import errno
import glob
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO


def write_atomically(path: Path, write: Callable[[Any], object]) -> None:
    """Lets ``write`` fill a binary file beside ``path``, then renames it into place.

    Raises:
        OSError: The system does not let it; ``filename`` is the path.
    """
    # a plain file, that others may read as the umask says
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    # of processes that were killed as they wrote; between two renames the folder of one is the only
    # checkpoint there is
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if path.exists() or not leftover.is_dir():
            remove(leftover)
    noting: Noting | None = None
    try:
        with open(temporary, "wb") as file:
            noting = Noting(file)
            write(noting)
            file.flush()
            os.fsync(file.fileno())
        put_in_place(temporary, path)
    except BaseException as error:
        remove(temporary)
        # torch says in other words that it could not write
        cause = (noting and noting.error) or error
        if isinstance(cause, OSError) and isinstance(error, Exception):
            raise OSError(cause.errno, cause.strerror, str(path)) from None
        raise


def write_in_place(path: Path, content: bytes) -> None:
    """Writes over a file where there is no room for another one beside it.

    Raises:
        OSError: There is no room in it either; it has its old content.
    """
    with open(path, "r+b", buffering=0) as file:
        before = file.read()
        try:
            overwrite(file, content)
        except OSError:
            overwrite(file, before)
            raise


def overwrite(file: BinaryIO, content: bytes) -> None:
    """Replaces the content of a file that is open."""
    file.seek(0)
    if file.write(content) < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
    file.truncate()


class Noting:
    """A file to write to that keeps the error where the system does not let it.

    Args:
        file: The file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Writes."""
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        """Does nothing: all is flushed at the end."""


def put_in_place(new: Path, path: Path) -> None:
    """Renames a file or folder over what stands at a path, of whichever kind that is, and removes the latter."""
    if not path.exists() or not (new.is_dir() or path.is_dir()):
        os.replace(new, path)
        return
    # a file cannot be renamed over a folder, nor a folder over a file
    if exchange(new, path):
        remove(new)
        return
    aside = path.with_name(f".{path.name}.aside")
    os.rename(path, aside)
    try:
        os.rename(new, path)
    except BaseException:
        os.rename(aside, path)
        raise
    remove(aside)


def exchange(a: Path, b: Path) -> bool:
    """Lets two paths change places at once; returns False where the system cannot, as only Linux can."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename(here, os.fsencode(a), here, os.fsencode(b), both) == 0


def remove(path: Path) -> None:
    """Deletes a file or a folder as far as the system lets it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
