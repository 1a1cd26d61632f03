"""Checkpoints: whole or not there, and opened without running any code that they might hold.

One is a file; or a folder, where several processes have written parts of large tensors at the same
time:

last.ckpt/ index.ckpt              all but these tensors, and which files hold their parts; it alone
    is switched 20-7c0e91b2-0of4.ckpt   the parts of process 0 of 4, after step 20; each save has
    files of its own

A save writes its files beside those of the last one, and switches the index. The files of the last
one stay until the next save, for those who have read the index before, and the copy of a folder
opens anywhere.
"""

import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor

from src.errors import UserError
from src.files.atomic import put_in_place, remove, write_atomically

INDEX = "index.ckpt"


@dataclass(frozen=True, slots=True)
class Part:
    """A process's part of a tensor.

    Attributes:
        tensor: The part.
        first: Where it begins in each dimension of the whole.
        shape: That of the whole.
        write: Whether it is this process that writes it; the others hold the same.
    """

    tensor: Tensor
    first: tuple[int, ...]
    shape: tuple[int, ...]
    write: bool = True


@dataclass(frozen=True, slots=True)
class Parts:
    """A tensor in a folder, which is put together when it is asked for.

    Attributes:
        shape: That of the whole.
        dtype: Its type.
        parts: (where a part begins, the part).
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    parts: list[tuple[tuple[int, ...], Tensor]]

    def fit(self) -> bool:
        """Returns whether the parts lie within the whole, and are as many numbers."""
        for first, part in self.parts:
            if part.dtype != self.dtype or not len(first) == part.ndim == len(self.shape):
                return False
            for start, size, length in zip(first, part.shape, self.shape, strict=True):
                if not 0 <= start <= start + size <= length:
                    return False
        return sum(part.numel() for _, part in self.parts) == prod(self.shape)

    def whole(self) -> Tensor:
        """Returns the tensor."""
        tensor = torch.empty(self.shape, dtype=self.dtype)
        for first, part in self.parts:
            tensor[
                tuple(
                    slice(start, start + size)
                    for start, size in zip(first, part.shape, strict=True)
                )
            ] = part
        return tensor


def load_checkpoint(
    path: Path | str, map_location: Any = "cpu", mmap: bool = False, whole: bool = True
) -> Any:
    """Opens a checkpoint without running any code that it might hold.

    Args:
        path: The file or folder.
        map_location: Where tensors go.
        mmap: Read tensors only where they are used.
        whole: Put the tensors of a folder together; else they come as :class:`Parts`.

    Raises:
        UserError: It is missing, cut off, or holds more than tensors and plain values.
    """
    path = Path(path)
    while True:
        version = version_of(path)
        try:
            return (
                load_folder(path, whole) if path.is_dir() else load_file(path, map_location, mmap)
            )
        except (ValueError, OSError):
            if version_of(path) == version:
                raise
            # while training goes on another one may take its place, and it is that which counts


def version_of(path: Path) -> tuple[int, ...] | None:
    """Returns what changes when another checkpoint takes the place of one."""
    try:
        state = (path / INDEX if path.is_dir() else path).stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_ctime_ns


def load_file(path: Path, map_location: Any, mmap: bool) -> Any:
    """Opens a file, see :func:`load_checkpoint`."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise UserError(f"checkpoint {path} is no file")
    try:
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except FileNotFoundError:
        raise UserError(f"checkpoint {path} does not exist") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"checkpoint {path} is damaged or holds code, which is never run: only tensors and values are read"
        ) from None
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # on arbitrary bytes torch raises anything
        if isinstance(error, OSError) and error.filename is not None:  # it could not be opened
            raise
        raise UserError(f"checkpoint {path} is cut off or no checkpoint") from None


def load_folder(folder: Path, whole: bool) -> Any:
    """Opens a folder, see :func:`load_checkpoint`."""
    index = read_index(folder)
    # files that are open are read to their end, even when they are deleted meanwhile
    files = [load_checkpoint(folder / Path(name).name, mmap=True) for name in index["files"]]
    found: dict[str, Any] = {}
    for key, entry in index["tensors"].items():
        parts = parts_of(key, entry, files)
        if parts is None:
            raise UserError(
                f"checkpoint {folder} is damaged: its files do not hold all of {str(key)[1:]}"
            )
        found[key] = parts.whole() if whole else parts
    return exchanged(index["checkpoint"], lambda key, leaf: found.get(key, leaf))


def read_index(folder: Path) -> dict[str, Any]:
    """Reads the index of a folder.

    Raises:
        UserError: It is missing or damaged.
    """
    index = load_checkpoint(folder / INDEX)
    kinds = {"checkpoint": dict, "files": list, "tensors": dict}
    if (
        not isinstance(index, dict)
        or not all(isinstance(index.get(key), kind) for key, kind in kinds.items())
        or not all(isinstance(name, str) for name in index["files"])
        or not is_tree(index)
    ):
        raise UserError(f"checkpoint {folder} is damaged: its {INDEX} is none")
    return index


def is_tree(content: Any, deepest: int = 100) -> bool:
    """Returns whether no dict or list stands in two places, nor deep down.

    In a stranger's file n lists may stand in 2^n places, or one in itself.
    """
    seen: set[int] = set()
    left = [(content, 0)]
    while left:
        value, depth = left.pop()
        if isinstance(value, dict | list):
            if id(value) in seen or depth > deepest:
                return False
            seen.add(id(value))
            left += [
                (each, depth + 1) for each in (value.values() if isinstance(value, dict) else value)
            ]
    return True


def parts_of(key: str, entry: Any, files: list[Any]) -> Parts | None:
    """Finds the parts of a tensor; None where they are not what the entry of an index says."""
    try:
        shape, dtype = entry
        parts = Parts(tuple(shape), dtype, [tuple(file[key]) for file in files if key in file])
        known = isinstance(dtype, torch.dtype) and all(isinstance(n, int) and n >= 0 for n in shape)
        return parts if known and parts.fit() else None
    except (TypeError, ValueError, AttributeError):
        return None


def exchanged(tree: Any, exchange: Callable[[str, Any], Any], key: str = "") -> Any:
    """Nested values with other leaves: those that a function of their path, keys joined by slashes, and of themselves gives."""
    if isinstance(tree, dict):
        return {name: exchanged(value, exchange, f"{key}/{name}") for name, value in tree.items()}
    if isinstance(tree, list):
        return [exchanged(value, exchange, f"{key}/{k}") for k, value in enumerate(tree)]
    return exchange(key, tree)


def save_folder(
    folder: Path,
    checkpoint: dict[str, Any],
    name: str,
    rank: int,
    ranks: int,
    agree: Callable[[OSError | None], None],
) -> None:
    """Writes a checkpoint whose leaves may be a :class:`Part`; every process calls this.

    The folder holds the checkpoint before until the new one is whole.

    Args:
        folder: The checkpoint.
        checkpoint: What it holds.
        name: What the names of its files begin with, the same on all processes and new for each
            save.
        rank: This process.
        ranks: How many there are.
        agree: Waits for all processes, and raises on all of them the error that one has.
    """
    names = [f"{name}-{k}of{ranks}.ckpt" for k in range(ranks)]
    mine: dict[str, Any] = {}
    tensors: dict[str, Any] = {}

    def noted(key: str, leaf: Any) -> Any:
        if not isinstance(leaf, Part):
            return leaf
        tensors[key] = (leaf.shape, leaf.tensor.dtype)
        if leaf.write and leaf.tensor.numel():
            mine[key] = (leaf.first, leaf.tensor.cpu().contiguous().clone())
        return None

    rest = exchanged(checkpoint, noted)
    agree(None)
    # no folder is seen before it is whole
    place = folder if folder.is_dir() else folder.with_name(f".{folder.name}.parts")

    def write_mine() -> None:
        place.mkdir(parents=True, exist_ok=True)
        write_atomically(place / names[rank], lambda file: torch.save(mine, file))

    def switch() -> None:
        earlier = files_of(place)
        content = {"checkpoint": rest, "files": names, "tensors": tensors}
        write_atomically(place / INDEX, lambda file: torch.save(content, file))
        if place != folder:
            put_in_place(place, folder)
        remove_parts(folder, keep={*names, *earlier})

    try:
        agree(error_of(write_mine))
        agree(error_of(switch) if rank == 0 else None)
    except OSError:
        with suppress(OSError):
            (place / names[rank]).unlink(missing_ok=True)
        raise


def error_of(act: Callable[[], None]) -> OSError | None:
    """Does something, and returns the error where the system does not let it."""
    try:
        act()
    except OSError as error:
        return error
    return None


def files_of(folder: Path) -> list[str]:
    """Returns the names of the files that hold the parts of a folder's checkpoint; none where there is no such one."""
    try:
        return read_index(folder)["files"]
    except ValueError:
        return []


def remove_parts(folder: Path, keep: set[str]) -> None:
    """Deletes the parts of earlier checkpoints, and those that processes were writing as they were killed."""
    for old in folder.glob("*of*.ckpt*"):
        if old.name not in keep:
            with suppress(OSError):  # the checkpoint is whole without that
                old.unlink()


class SafeCheckpointIO(CheckpointIO):
    """Checkpoints that are whole or not there: written beside the old one, flushed, then renamed over it.

    A full disk or a killed process leaves the last good checkpoint as it was.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Writes atomically."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: torch.save(checkpoint, file))

    def load_checkpoint(
        self,
        path: Any,
        map_location: Any | None = lambda storage, loc: storage,
        weights_only: bool | None = None,
    ) -> Any:
        """Opens a checkpoint; ``weights_only`` is always on."""
        return load_checkpoint(path, map_location)

    def remove_checkpoint(self, path: Any) -> None:
        """Deletes a checkpoint."""
        remove(Path(path))
