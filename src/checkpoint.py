"""Checkpoints: whole or not there, and opened without running any code that they might hold.

A checkpoint is a file, or a folder that several processes have written shards of large tensors to:

last.ckpt/
    index.ckpt                the rest of the checkpoint, and which files hold the shards
    20-7c0e91b2-0of4.ckpt     the shards of process 0 of 4, after step 20

A save writes new files beside the ones of the save before, and then replaces the index alone. The
older files stay until the next save, for processes that have read the older index, and the copy of
a folder opens anywhere.
"""

import pickle
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor

from src.errors import UserError, attempt
from src.files.atomic import put_in_place, remove, write_atomically

INDEX = "index.ckpt"


@dataclass(frozen=True, slots=True)
class Shard:
    """A process's shard of a tensor, to be saved.

    Attributes:
        tensor: The shard.
        first: Its first index in each dimension of the whole tensor.
        shape: The shape of the whole tensor.
        write: Whether this process writes it; False where another one holds the same.
    """

    tensor: Tensor
    first: tuple[int, ...]
    shape: tuple[int, ...]
    write: bool = True


@dataclass(frozen=True, slots=True)
class Shards:
    """A tensor of a folder, which is assembled when it is asked for.

    Attributes:
        shape: The shape of the whole tensor.
        dtype: Its type.
        shards: (first index of a shard, the shard).
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    shards: list[tuple[tuple[int, ...], Tensor]]

    def is_complete(self) -> bool:
        """Returns whether the shards are within the whole tensor, and have as many numbers."""
        for first, shard in self.shards:
            if shard.dtype != self.dtype or not len(first) == shard.ndim == len(self.shape):
                return False
            for start, size, length in zip(first, shard.shape, self.shape, strict=True):
                if not 0 <= start <= start + size <= length:
                    return False
        return sum(shard.numel() for _, shard in self.shards) == prod(self.shape)

    def assemble(self) -> Tensor:
        """Returns the whole tensor."""
        tensor = torch.empty(self.shape, dtype=self.dtype)
        for first, shard in self.shards:
            corner = zip(first, shard.shape, strict=True)
            tensor[tuple(slice(start, start + size) for start, size in corner)] = shard
        return tensor


def load_checkpoint(
    path: Path | str, map_location: Any = "cpu", mmap: bool = False, whole: bool = True
) -> Any:
    """Opens a checkpoint without running any code that it might hold.

    Args:
        path: The file or folder.
        map_location: The device of tensors, as torch.load takes it.
        mmap: Whether tensors are read only where they are used.
        whole: Whether the tensors of a folder are assembled; otherwise they are :class:`Shards`.

    Raises:
        UserError: It is missing, cut off, or holds more than tensors and plain values.
    """
    path = Path(path)
    while True:
        version = identify_version(path)
        try:
            if path.is_dir():
                return load_folder(path, whole)
            return load_file(path, map_location, mmap)
        except (ValueError, OSError):
            # training that goes on may replace the checkpoint meanwhile: then the new one counts
            if identify_version(path) == version:
                raise


def identify_version(path: Path) -> tuple[int, ...] | None:
    """Returns numbers that change when another checkpoint takes the place of one."""
    try:
        state = (path / INDEX if path.is_dir() else path).stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_ctime_ns


def load_file(path: Path, map_location: Any, mmap: bool) -> Any:
    """Opens a file, see :func:`load_checkpoint`."""
    # torch would wait for a pipe
    if path.exists() and not path.is_file():
        raise UserError(f"checkpoint {path} is no file")
    try:
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except FileNotFoundError:
        raise UserError(f"checkpoint {path} does not exist") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"checkpoint {path} is damaged or holds code, which is never run: only tensors and "
            "values are read"
        ) from None
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        # on arbitrary bytes torch raises anything; a file name means that it could not be opened
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise UserError(f"checkpoint {path} is cut off or no checkpoint") from None


def load_folder(folder: Path, whole: bool) -> Any:
    """Opens a folder, see :func:`load_checkpoint`."""
    index = read_index(folder)
    # open files can be read to their end, even when they are deleted meanwhile
    files = [load_checkpoint(folder / Path(name).name, mmap=True) for name in index["files"]]
    found: dict[str, Any] = {}
    for key, entry in index["tensors"].items():
        shards = find_shards(key, entry, files)
        if shards is None:
            raise UserError(
                f"checkpoint {folder} is damaged: its files do not hold all of {str(key)[1:]}"
            )
        found[key] = shards.assemble() if whole else shards
    return map_leaves(index["checkpoint"], lambda key, leaf: found.get(key, leaf))


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
    """Returns whether no dict or list is in two places, or too deep.

    In a stranger's file n lists may be in 2^n places, or one in itself.
    """
    seen: set[int] = set()
    left = [(content, 0)]
    while left:
        value, depth = left.pop()
        if isinstance(value, dict | list):
            if id(value) in seen or depth > deepest:
                return False
            seen.add(id(value))
            inner = value.values() if isinstance(value, dict) else value
            left += [(item, depth + 1) for item in inner]
    return True


def find_shards(key: str, entry: Any, files: list[Any]) -> Shards | None:
    """Finds the shards of a tensor; None where they do not match its entry in an index."""
    try:
        shape, dtype = entry
        shards = Shards(tuple(shape), dtype, [tuple(file[key]) for file in files if key in file])
        known = isinstance(dtype, torch.dtype) and all(isinstance(n, int) and n >= 0 for n in shape)
        return shards if known and shards.is_complete() else None
    except (TypeError, ValueError, AttributeError):
        return None


def map_leaves(tree: Any, function: Callable[[str, Any], Any], key: str = "") -> Any:
    """Applies a function to each leaf of nested values.

    Args:
        tree: Nested dicts and lists.
        function: Takes the path of a leaf, keys joined by slashes, and the leaf.
        key: The path of the tree.
    """
    if isinstance(tree, dict):
        return {name: map_leaves(item, function, f"{key}/{name}") for name, item in tree.items()}
    if isinstance(tree, list):
        return [map_leaves(item, function, f"{key}/{k}") for k, item in enumerate(tree)]
    return function(key, tree)


def save_folder(
    folder: Path,
    checkpoint: dict[str, Any],
    name: str,
    rank: int,
    ranks: int,
    agree: Callable[[OSError | None], None],
) -> None:
    """Writes a checkpoint whose leaves may be a :class:`Shard`; every process calls this.

    The folder holds the earlier checkpoint until the new one is whole.

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

    def note_shard(key: str, leaf: Any) -> Any:
        if not isinstance(leaf, Shard):
            return leaf
        tensors[key] = (leaf.shape, leaf.tensor.dtype)
        if leaf.write and leaf.tensor.numel():
            mine[key] = (leaf.first, leaf.tensor.cpu().contiguous().clone())
        return None

    rest = map_leaves(checkpoint, note_shard)
    agree(None)
    # a new folder gets its name when it is whole
    place = folder if folder.is_dir() else folder.with_name(f".{folder.name}.parts")

    def write_mine() -> None:
        place.mkdir(parents=True, exist_ok=True)
        write_atomically(place / names[rank], lambda file: torch.save(mine, file))

    def switch() -> None:
        earlier = list_files(place)
        content = {"checkpoint": rest, "files": names, "tensors": tensors}
        write_atomically(place / INDEX, lambda file: torch.save(content, file))
        if place != folder:
            put_in_place(place, folder)
        remove_old_files(folder, keep={*names, *earlier})

    try:
        agree(attempt(write_mine, OSError))
        agree(attempt(switch, OSError) if rank == 0 else None)
    except OSError:
        with suppress(OSError):
            (place / names[rank]).unlink(missing_ok=True)
        raise


def list_files(folder: Path) -> list[str]:
    """Returns the files that an index names; none where there is no index."""
    try:
        return read_index(folder)["files"]
    except ValueError:
        return []


def remove_old_files(folder: Path, keep: set[str]) -> None:
    """Deletes files of earlier checkpoints, and half-written ones of processes that were killed."""
    for old in folder.glob("*of*.ckpt*"):
        if old.name not in keep:
            # the checkpoint is whole, whether this works or not
            with suppress(OSError):
                old.unlink()


# -- several sets of weights in one checkpoint ----------------------------------------------------
def merge_weights(
    checkpoint: dict[str, Any],
    earlier: Mapping[str, Any],
    tasks: Iterable[str],
    kept: Iterable[str],
) -> None:
    """Adds to a checkpoint the weights of an earlier one, for tasks that were better there.

    ``task_steps`` then has the optimizer step of each task's weights, and ``other_weights`` those
    of each step but the checkpoint's own.

    Args:
        checkpoint: The checkpoint, which is changed.
        earlier: The earlier one, which may hold several sets itself.
        tasks: All tasks.
        kept: The tasks that were better there.
    """
    own: int = checkpoint["global_step"]
    steps = dict.fromkeys(tasks, own)
    others: dict[int, Any] = {}
    for task in kept:
        steps[task] = earlier.get("task_steps", {}).get(task, earlier["global_step"])
        if steps[task] != own:
            others[steps[task]] = choose_weights(earlier, steps[task])
    checkpoint["task_steps"] = steps
    checkpoint["other_weights"] = others


def choose_weights(checkpoint: Mapping[str, Any], step: int) -> Any:
    """Returns the weights of an optimizer step, of a checkpoint that may hold several sets.

    Raises:
        UserError: It holds none of that step.
    """
    if step == checkpoint["global_step"]:
        return checkpoint["state_dict"]
    others = checkpoint.get("other_weights", {})
    if step not in others:
        raise UserError(f"the checkpoint is damaged: it holds no weights of step {step}")
    return others[step]


def group_tasks(checkpoint: Mapping[str, Any]) -> dict[int, list[str]]:
    """Returns {optimizer step: the tasks whose best weights are those of that step}.

    It is empty where one set of weights is that of all tasks.

    Raises:
        UserError: The steps are of other tasks than the checkpoint's.
    """
    steps = checkpoint.get("task_steps", {})
    if steps and steps.keys() != checkpoint["tasks"].keys():
        raise UserError("the checkpoint is damaged: its task_steps are not of its tasks")
    groups: dict[int, list[str]] = {}
    for task, step in steps.items():
        groups.setdefault(step, []).append(task)
    # the checkpoint's own weights come last
    own = checkpoint["global_step"]
    return {step: groups[step] for step in sorted(groups, key=lambda step: (step == own, step))}


class SafeCheckpointIO(CheckpointIO):
    """Writes checkpoints beside the old one, flushes them, and renames them over it.

    So a full disk or a killed process leaves the last good checkpoint as it was.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Writes a checkpoint, whole or not at all."""
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
