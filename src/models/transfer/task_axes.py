"""Finds which positions in the state of a sharing architecture belong to which task.

No architecture says so itself. But built for two tasks and for three, it shows where tasks lie: in
the dimensions that have grown, and in the numbers of modules that have come.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from src.models.encoders.columns import Axis
from src.models.sharing import Sharing
from src.models.transfer.named_tensors import NamedTensor

Shapes = dict[str, tuple[int, ...]]
Key = tuple[Hashable, ...]  # the parts of a name, the number of a task's module by the task's name


class Place(NamedTuple):
    """The name of a position: the k-th of a task, or of none, whose name is "" then."""

    task: str
    k: int


@dataclass(frozen=True)
class Counted:
    """Positions whose number is a function of T: ``each`` for each task, and others.

    Attributes:
        each: Positions of a task.
        others: Positions behind them that belong to no task; below 0 where the first tasks have
            none, as in a chain.
    """

    each: int
    others: int

    @classmethod
    def of_sizes(cls, two: int, three: int) -> "Counted":
        """Returns the count of positions from its values for two tasks and for three."""
        each = three - two
        return cls(each, two - 2 * each)

    def label(self, tasks: Sequence[str], size: int) -> tuple[Hashable, ...]:
        """Returns a name for each position."""
        skipped = max(0, -self.others)
        labels = [Place(task, k) for task in tasks for k in range(self.each)][skipped:]
        return (*labels, *(Place("", k) for k in range(size - len(labels))))


@dataclass(frozen=True)
class TaskAxes:
    """Where tasks lie in the state of an architecture.

    Attributes:
        dims: {entry for three tasks: {dimension: its positions}}.
        modules: {path of a list of modules: its positions}.
    """

    dims: Mapping[str, Mapping[int, Counted]]
    modules: Mapping[str, Counted]

    def describe(self, state: Mapping[str, Tensor], tasks: Sequence[str]) -> dict[Key, NamedTensor]:
        """Names the entries of a state, and the positions in them, after tasks.

        Args:
            state: {name below the architecture: entry}.
            tasks: The tasks, in the order of T.
        """
        lengths: dict[str, int] = {}
        for name in state:
            for path, number in self._find_numbers(name):
                lengths[path] = max(lengths.get(path, 0), number + 1)
        labels = {path: self.modules[path].label(tasks, size) for path, size in lengths.items()}

        found: dict[Key, NamedTensor] = {}
        for name, tensor in state.items():
            numbers = {path: labels[path][number] for path, number in self._find_numbers(name)}
            axes = {
                dim: Axis(counted.label(tasks, tensor.shape[dim]))
                for dim, counted in self.dims.get(self._one(name), {}).items()
            }
            found[name_by_task(name, numbers)] = NamedTensor(tensor, axes)
        return found

    def _find_numbers(self, name: str) -> list[tuple[str, int]]:
        parts = name.split(".")
        found = []
        for k, part in enumerate(parts):
            path = ".".join(parts[:k])
            if part.isdigit() and path in self.modules:
                found.append((path, int(part)))
        return found

    def _one(self, name: str) -> str:
        """Returns the name of the like entry of the first task, which every architecture has."""
        parts = name.split(".")
        for path, _ in self._find_numbers(name):
            parts[len(path.split("."))] = "0"
        return ".".join(parts)


def name_by_task(name: str, numbers: Mapping[str, Hashable]) -> Key:
    """Returns the parts of a name, in which labels stand for the numbers below some paths."""
    parts: list[Hashable] = [*name.split(".")]
    for path, label in numbers.items():
        parts[len(path.split("."))] = label
    return tuple(parts)


def find_task_axes(make: Callable[[Sequence[str]], Sharing]) -> TaskAxes:
    """Finds where tasks lie in the state of an architecture.

    Args:
        make: Makes the architecture for some tasks.

    Raises:
        UserError: It cannot be made for tasks of other names.
    """
    with torch.random.fork_rng(devices=[]):
        two, three = (measure_state(make(name_tasks(count))) for count in (2, 3))
    dims: dict[str, dict[int, Counted]] = {}
    for name in two.keys() & three.keys():
        sizes = zip(two[name], three[name], strict=True)
        dims[name] = {
            dim: Counted.of_sizes(*pair) for dim, pair in enumerate(sizes) if pair[0] != pair[1]
        }

    # numbers that only three tasks need are those of modules of a task
    lengths_two, lengths_three = (count_modules(shapes) for shapes in (two, three))
    modules = {
        path: Counted.of_sizes(lengths_two.get(path, 0), length)
        for path, length in lengths_three.items()
        if lengths_two.get(path, 0) != length
    }
    # below a module that is new, everything is
    outermost = {
        path: counted
        for path, counted in modules.items()
        if not any(path.startswith(f"{other}.") for other in modules)
    }
    return TaskAxes(dims, outermost)


def name_tasks(count: int) -> list[str]:
    """Returns names of tasks that exist nowhere."""
    return [f"task {k + 1}" for k in range(count)]


def measure_state(sharing: Sharing) -> Shapes:
    """Returns the shapes of the entries of a state."""
    return {name: tuple(tensor.shape) for name, tensor in sharing.state_dict().items()}


def count_modules(shapes: Shapes) -> dict[str, int]:
    """Returns {path: how many numbered modules or parameters lie below it}."""
    lengths: dict[str, int] = {}
    for name in shapes:
        parts = name.split(".")
        for k, part in enumerate(parts):
            if part.isdigit():
                path = ".".join(parts[:k])
                lengths[path] = max(lengths.get(path, 0), int(part) + 1)
    return lengths
