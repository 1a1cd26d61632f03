"""The tasks of a table: their columns, how their labels are read, and their encoded labels."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from src.data.kinds import task_from_plain
from src.data.tables.labels import Labels
from src.data.tables.row_weights import weigh_task
from src.data.tables.targets import (
    TargetReader,
    add_further_columns,
    encode_targets,
    find_columns_of_tasks,
    flatten_names,
    is_pattern,
    refuse_unknown_settings,
)
from src.errors import UserError

if TYPE_CHECKING:
    import torch

    from src.data.tables.table import Table
    from src.tasks import Task


class TableTasks:
    """The tasks of a table: found in its training rows, or as the schema of a run has them.

    Args:
        table: The table.
        given: Its targets, as the settings name them.
        saved: The tasks of a run's schema; None for a new run.
    """

    def __init__(
        self,
        table: Table,
        given: list[str] | dict[str, str | list[str]],
        saved: dict[str, Any] | None,
    ) -> None:
        self.table = table
        self.given = given
        self.saved = saved
        self._encoded: dict[tuple[str, str], torch.Tensor] = {}

    @cached_property
    def columns(self) -> dict[str, str | list[str]]:
        """The column, or the list of columns, of each task."""
        if self.saved is not None:
            found: dict[str, str | list[str]] = {}
            for name, labels in self.labels.items():
                found[name] = labels.columns[0] if labels.single else list(labels.columns)
            return found

        # the file is read for its columns' names only if a pattern needs them
        columns = None
        if any(map(is_pattern, flatten_names(self.given))):
            columns = [str(name) for name in self.table.table_files.frame().columns]
        try:
            found = find_columns_of_tasks(self.given, columns)
        except UserError as error:
            raise UserError(f"{self.table.path}: {error}") from None
        refuse_unknown_settings(self.table.settings, found)
        return add_further_columns(found, self.table.settings)

    @cached_property
    def reader(self) -> TargetReader:
        """Finds the tasks of a new run in the training rows."""
        table = self.table
        return TargetReader(
            table.path,
            table.main,
            table.rows["train"],
            table.written,
            table.settings,
            None if table.carried is None else table.carried.tasks,
        )

    @cached_property
    def labels(self) -> dict[str, Labels]:
        """How the labels of each task are read."""
        if self.saved is not None:
            saved = self.saved.items()
            return {name: Labels.from_plain(task["labels"]) for name, task in saved}
        self.tasks  # noqa: B018, fills the reader
        return self.reader.labels

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """One task per target, with the label space of the training rows."""
        if self.saved is not None:
            return {name: task_from_plain(task["task"]) for name, task in self.saved.items()}
        tasks = {}
        for name, columns in self.columns.items():
            task = self.reader.make_task(name, columns)
            tasks[name] = weigh_task(task, self.table.row_weight)

        # an unknown label of any split ends the run now, and not after training
        for role in self.table.table_files.paths:
            for name, task in tasks.items():
                labels = self.reader.labels[name]
                self._encoded[role, name] = self._encode(role, name, task, labels, "")
        return tasks

    def encode(self, role: str, name: str) -> torch.Tensor:
        """Returns the targets of all rows of a file for one task."""
        task = self.table.tasks[name]
        if (role, name) not in self._encoded:
            hint = "; rows without labels are for python -m src.predict"
            labels = self.table.labels[name]
            self._encoded[role, name] = self._encode(role, name, task, labels, hint)
        return self._encoded[role, name]

    def _encode(self, role: str, name: str, task: Task, labels: Labels, hint: str) -> torch.Tensor:
        files = self.table.table_files
        return encode_targets(task, labels, files.frame(role), files.paths[role], name, hint)
