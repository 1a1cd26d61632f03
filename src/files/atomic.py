"""Files that are written whole or not at all, whatever breaks while they are."""

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
    # not by tempfile: others may read this file as the umask says
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    # Processes that were killed as they wrote have left such files. A folder that is the only
    # checkpoint, since its process was killed between two renames, stays.
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if path.exists() or not leftover.is_dir():
            remove(leftover)
    keeper: ErrorKeeper | None = None
    try:
        with open(temporary, "wb") as file:
            keeper = ErrorKeeper(file)
            write(keeper)
            file.flush()
            os.fsync(file.fileno())
        put_in_place(temporary, path)
    except BaseException as error:
        remove(temporary)
        # torch raises an error of its own where a write fails, without the reason
        cause = (keeper and keeper.error) or error
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


class ErrorKeeper:
    """A binary file to write to, which keeps the first error of the system.

    Args:
        file: The file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Writes, and keeps the error where that fails."""
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        """Does nothing: all is flushed at the end."""


def put_in_place(new: Path, path: Path) -> None:
    """Renames a file or folder to a path; the file or folder that was there is removed."""
    if not path.exists() or not (new.is_dir() or path.is_dir()):
        os.replace(new, path)
        return
    # a file cannot be renamed over a folder, nor a folder over a file
    if swap(new, path):
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


def swap(a: Path, b: Path) -> bool:
    """Exchanges two paths in one step; returns False on systems other than Linux, which cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    at_fdcwd = -100
    rename_exchange = 2
    done = rename(at_fdcwd, os.fsencode(a), at_fdcwd, os.fsencode(b), rename_exchange)
    return done == 0


def remove(path: Path) -> None:
    """Deletes a file or a folder as far as the system lets it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
