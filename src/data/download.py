"""Files of public data sets: found in a folder, or fetched into it with their checksums checked."""

import fcntl
import hashlib
import os
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.parse import urlsplit

from src.errors import UserError, in_one_line
from src.files.atomic import ErrorKeeper, write_atomically

CHUNK = 1 << 20  # bytes
TIMEOUT = 60.0  # seconds without a byte


@dataclass(frozen=True)
class PublicFile:
    """A file of a public data set.

    Attributes:
        name: Its name in the folder of the data set; a gzipped copy with .gz after it will do, too.
        url: Where it is fetched from. The address of a gzipped file ends in .gz, and so does the
            name of the copy then.
        sha256: Hash of the file at the address; "" if it is not known.
        md5: The older hash, for files that are published with it.
    """

    name: str
    url: str
    sha256: str = ""
    md5: str = ""


def find_public_file(root: str | Path, file: PublicFile, source: str, download: bool) -> str:
    """Returns the path of a file in a folder, gzipped or not, after fetching it if need be.

    Args:
        root: The folder.
        file: The file.
        source: Where a person gets the data set, for the message.
        download: Whether a file that is not there is fetched.

    Raises:
        UserError: It is not there, or cannot be fetched.
    """
    name = file.name.removesuffix(".gz")
    for candidate in (Path(root) / name, Path(root) / f"{name}.gz"):
        if candidate.is_file():
            return str(candidate)
    if not download:
        raise UserError(
            f"{root}: neither {name} nor {name}.gz is there; get them from {source}, "
            "or add --data.download true"
        )
    ending = ".gz" if urlsplit(file.url).path.endswith(".gz") else ""
    return str(fetch(file.url, Path(root) / (name + ending), file.sha256, file.md5))


def fetch(url: str, path: str | Path, sha256: str = "", md5: str = "") -> Path:
    """Fetches a file unless it is there; it appears whole and checked, or not at all.

    Several processes may ask for one file: the first fetches it, and the others wait.

    Args:
        url: Its address, http or https.
        path: Where it is put; folders are made.
        sha256: Hash of its content; "" if it is not known.
        md5: The older hash, for files that are published with it.

    Raises:
        UserError: The network, the server or the disk does not let it, or the content is another.
    """
    path = Path(path)
    if urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"{url}: is no address that begins with http:// or https://")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with hold_folder(path.parent):
            # another process may have fetched it in the meantime
            if not path.is_file():
                write_atomically(path, lambda file: copy(url, file, path, sha256, md5))
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None
    return path


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Lets one process at a time fetch into a folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        # some network file systems have no locks; then processes fetch side by side
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def copy(url: str, file: ErrorKeeper | BinaryIO, path: Path, sha256: str, md5: str) -> None:
    """Copies the content of an address to an open file, and checks it.

    Raises:
        UserError: The network or the server does not let it, or the content is another.
    """
    digests = [(hashlib.sha256(), sha256), (hashlib.md5(usedforsecurity=False), md5)]
    progress = Progress(url)
    for chunk, total in read_chunks(url, path):
        file.write(chunk)
        for digest, _ in digests:
            digest.update(chunk)
        progress.add(len(chunk), total)
    progress.end(path)

    for digest, wanted in digests:
        if wanted and digest.hexdigest() != wanted:
            raise UserError(
                f"{url}: has another content than it should: its {digest.name} is "
                f"{digest.hexdigest()}, not {wanted}; get {path.name} elsewhere, and put it "
                f"into {path.parent}"
            )


def read_chunks(url: str, path: Path) -> Iterator[tuple[bytes, int]]:
    """Yields the content of an address in pieces, each with the size of the whole, 0 if unknown.

    Raises:
        UserError: It cannot be read to its end.
    """
    try:
        # the scheme is http or https: fetch has checked it
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            total = int(response.headers.get("Content-Length") or 0)
            count = 0
            while chunk := response.read(CHUNK):
                count += len(chunk)
                yield chunk, total
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, HTTPError):
            # it holds the answer of the server, and so the connection
            error.close()
        reason = in_one_line(error) or type(error).__name__
        raise UserError(
            f"{url}: cannot be fetched ({reason}); get {path.name} elsewhere, and put it into "
            f"{path.parent}"
        ) from None
    if count < total:
        raise UserError(f"{url}: ended after {count} of {total} bytes; try again")


class Progress:
    """A line that says how much has been fetched; without a terminal, only its end is printed.

    Args:
        url: The address.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.count = 0
        self.shown = sys.stderr.isatty()

    def add(self, size: int, total: int) -> None:
        """Counts some more bytes.

        Args:
            size: How many.
            total: Size of the whole file; 0 if it is not known.
        """
        self.count += size
        whole = f" of {total / 1e6:.1f}" if total else ""
        if self.shown:
            print(f"\r{self.url}: {self.count / 1e6:.1f}{whole} MB", end="", file=sys.stderr)

    def end(self, path: Path) -> None:
        """Prints how much was fetched, and where it is."""
        begin = "\r" if self.shown else ""
        print(f"{begin}{self.url}: {self.count / 1e6:.1f} MB -> {path}", file=sys.stderr)
