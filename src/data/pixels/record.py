"""The record that a run keeps of images with maps: their tasks, and what identifies their files."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypedDict

from src.data.tables.record import Description
from src.files.typed import Count, Such

HASHED = 1 << 16  # bytes of each file that a fingerprint reads, besides its size


class FilesRecord(TypedDict):
    """The entry of the files in a schema: as the settings name them, and what identifies them."""

    given: str
    path: str
    count: Count
    bytes: Count
    sha256: str


class TaskRecord(TypedDict):
    """The entry of a task in a schema: the name of its labels, and the task."""

    part: str
    task: Description


class DenseSchema(TypedDict):
    """The record that a run keeps of images with labels per pixel."""

    shape: Annotated[list[Count], Such("of channels, height and width", lambda s: len(s) == 3)]
    tasks: Annotated[dict[str, TaskRecord], Such("with at least one task", bool)]
    files: Annotated[dict[str, FilesRecord], Such("with root", lambda files: "root" in files)]


def compute_digest(files: Sequence[str], root: Path) -> dict[str, int | str]:
    """Returns what identifies files: their number, their bytes, and a hash.

    The hash is of their places below a folder, their sizes, and the first 64 KB of each; to read
    all of a large data set would take minutes.
    """
    digest = hashlib.sha256()
    total = 0
    for name in sorted(files):
        path = Path(name)
        size = path.stat().st_size
        total += size
        place = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
        digest.update(f"{place.as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(HASHED))
    return {"count": len(files), "bytes": total, "sha256": digest.hexdigest()}
