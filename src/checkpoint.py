"""Checkpoints: whole or not there, and opened without running any code that they might hold.

One is a file; or a folder, where several processes have written parts of large tensors at the same time:

last.ckpt/
    index.ckpt      all but these tensors, and which files hold their parts; written last, so that it is the checkpoint
    20-0of4.ckpt    the parts of process 0 of 4, after step 20
"""

import errno
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor

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

    def whole(self) -> Tensor:
        """Returns the tensor."""
        tensor = torch.empty(self.shape, dtype=self.dtype)
        for first, part in self.parts:
            tensor[tuple(slice(start, start + size) for start, size in zip(first, part.shape, strict=True))] = part
        return tensor


def load_checkpoint(path: Path | str, map_location: Any = "cpu", mmap: bool = False, whole: bool = True) -> Any:
    """Opens a checkpoint without running any code that it might hold.

    Args:
        path: The file or folder.
        map_location: Where tensors go.
        mmap: Read tensors only where they are used.
        whole: Put the tensors of a folder together; else they come as :class:`Parts`.

    Raises:
        ValueError: It is missing, cut off, or holds more than tensors and plain values.
    """
    if Path(path).is_dir():
        return load_folder(Path(path), whole)
    try:
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except FileNotFoundError:
        raise ValueError(f"checkpoint {path} does not exist") from None
    except pickle.UnpicklingError:
        raise ValueError(
            f"checkpoint {path} is damaged or holds code, which is never run: only tensors and values are read"
        ) from None
    except (PermissionError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception:  # on arbitrary bytes torch raises anything
        raise ValueError(f"checkpoint {path} is cut off or no checkpoint") from None


def load_folder(folder: Path, whole: bool) -> Any:
    """Opens a folder, see :func:`load_checkpoint`."""
    index = load_checkpoint(folder / INDEX)
    if not isinstance(index, dict) or not {"checkpoint", "files", "tensors"} <= index.keys():
        raise ValueError(f"checkpoint {folder} is damaged: its {INDEX} is none")
    files = [load_checkpoint(folder / Path(name).name, mmap=True) for name in index["files"]]
    found: dict[str, Any] = {}
    for key, (shape, dtype) in index["tensors"].items():
        parts = Parts(tuple(shape), dtype, [tuple(file[key]) for file in files if key in file])
        if sum(part.numel() for _, part in parts.parts) != prod(shape):
            raise ValueError(f"checkpoint {folder} is damaged: its files do not hold all of {key[1:]}")
        found[key] = parts.whole() if whole else parts
    return exchanged(index["checkpoint"], lambda key, leaf: found.get(key, leaf))


def exchanged(tree: Any, exchange: Callable[[str, Any], Any], key: str = "") -> Any:
    """Nested values with other leaves: those that a function of their path, keys joined by slashes, and of themselves gives."""
    if isinstance(tree, dict):
        return {name: exchanged(value, exchange, f"{key}/{name}") for name, value in tree.items()}
    if isinstance(tree, list):
        return [exchanged(value, exchange, f"{key}/{k}") for k, value in enumerate(tree)]
    return exchange(key, tree)


def save_folder(folder: Path, checkpoint: dict[str, Any], rank: int, ranks: int, barrier: Callable[[], object]) -> None:
    """Writes a checkpoint whose leaves may be a :class:`Part`; every process calls this.

    The folder holds the checkpoint before until the new one is whole.
    """
    names = [f"{checkpoint['global_step']}-{k}of{ranks}.ckpt" for k in range(ranks)]
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
    place = folder.with_name(f".{folder.name}.parts") if folder.is_file() else folder
    barrier()
    place.mkdir(parents=True, exist_ok=True)
    write_atomically(place / names[rank], lambda file: torch.save(mine, file))
    barrier()
    if rank == 0:
        content = {"checkpoint": rest, "files": names, "tensors": tensors}
        write_atomically(place / INDEX, lambda file: torch.save(content, file))
        for old in place.glob("*of*.ckpt*"):  # and what processes were writing as they were killed
            if old.name not in names:
                old.unlink(missing_ok=True)
        if place != folder:  # of a file, until this one is whole
            folder.unlink()
            os.rename(place, folder)
    barrier()


class SafeCheckpointIO(CheckpointIO):
    """Checkpoints that are whole or not there: written beside the old one, flushed, then renamed over it.

    A full disk or a killed process leaves the last good checkpoint as it was.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Writes atomically."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: torch.save(checkpoint, file))

    def load_checkpoint(
        self, path: Any, map_location: Any | None = lambda storage, loc: storage, weights_only: bool | None = None
    ) -> Any:
        """Opens a checkpoint; ``weights_only`` is always on."""
        return load_checkpoint(path, map_location)

    def remove_checkpoint(self, path: Any) -> None:
        """Deletes a checkpoint."""
        if Path(path).is_dir():
            shutil.rmtree(path)
        else:
            Path(path).unlink(missing_ok=True)


def write_atomically(path: Path, write: Any) -> None:
    """Lets ``write`` fill a binary file beside ``path``, then renames it into place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")  # a plain file, that others may read as the umask says
    aside = path.with_name(f".{path.name}.aside")
    for leftover in path.parent.glob(f".{path.name}.*"):  # of a process that was killed as it wrote
        if not leftover.is_dir():
            leftover.unlink(missing_ok=True)
        elif leftover != aside or path.exists():
            shutil.rmtree(leftover, ignore_errors=True)
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if path.is_dir():  # a checkpoint in parts, until this one is whole
            os.rename(path, aside)
        os.replace(temporary, path)
        shutil.rmtree(aside, ignore_errors=True)
    except BaseException as error:
        if aside.is_dir() and not path.exists():
            os.rename(aside, path)
        temporary.unlink(missing_ok=True)
        full = isinstance(error, RuntimeError) and ("write" in str(error) or isinstance(error.__context__, OSError))
        if full:  # in torch's words
            raise OSError(errno.ENOSPC, "No space left on device, or it cannot be written to", str(path)) from None
        if isinstance(error, OSError):  # of a write it does not know the file
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
