"""Your own table: an unprepared CSV, TSV, Parquet or ARFF file with several columns to predict."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from src.batch import InputShape
from src.data.columns import Column, from_plain, measure_columns
from src.data.datamodule import MultiTaskDataModule
from src.data.file_format import FileFormat
from src.data.files import ROLES, TableFiles
from src.data.input_encoding import encode_inputs
from src.data.inputs import read_inputs
from src.data.kinds import task_from_plain
from src.data.labels import Labels
from src.data.leaks import find_suspicions
from src.data.number_formats import Written, find_formats_of_table
from src.data.reading import read_table
from src.data.record import hash_rows, make_fingerprint, make_schema, read_schema, unpack_sides
from src.data.rows import Rows, Split
from src.data.sides import find_rows_of_sides
from src.data.table_notes import describe_new_rows, describe_table
from src.data.table_rows import find_rows, identify_rows, read_labels
from src.data.table_settings import TEST_FRACTION, check_columns, check_settings, find_test_share
from src.data.targets import (
    TargetReader,
    encode_targets,
    find_columns_of_tasks,
    flatten_names,
    is_pattern,
    refuse_unknown_settings,
)
from src.errors import UserError
from src.tasks import Task

if TYPE_CHECKING:
    import pandas as pd


class Table(MultiTaskDataModule):
    """Tasks from the columns of a table; all that is learnt of a column is learnt in training rows.

    A run keeps its columns, its split and hashes of its files in its schema.json. Given that, the
    table is read as the run read it. Another file holds new rows, and all of them are evaluated; a
    file that has changed since is refused.

    Args:
        path: A .csv, .tsv, .parquet or .arff file.
        targets: Columns to predict: a list, or {task: column or columns}. Several columns form one
            task (multi-label if they hold 0 and 1, else a vector regression). A name may be a
            pattern, such as Class*.
        tasks: {task: its kind or settings}: the name of a kind (Regression), settings
            ({weight: 2}), or both ({class_path: Regression, init_args: {loss: huber}}); a Task
            object from Python.
        inputs: Columns to learn from; None for all that no other setting names.
        drop: Columns that must not be inputs.
        categorical: Columns to read as categories, whatever they look like.
        dates: What to do with columns of dates: refuse them, or expand them into year, month, day,
            weekday and hour.
        date_format: How dates are written, such as %d/%m/%Y, where their columns do not tell.
        missing: Words and numbers that mean that a value is missing, besides the usual ones.
        missing_defaults: Whether the usual ones mean it: an empty cell, ?, NA, NaN, null, None ...
        decimal: The mark before decimals; None to find it in the training rows.
        thousands: The mark between thousands; None to find it in the training rows.
        format: csv, tsv, parquet or arff; None for what the file's name says.
        delimiter: The mark between the columns of a text file, or 'spaces'; None for a comma, or a
            tab in .tsv files.
        names: Names of the columns of a text file without a header.
        id: Column that names the rows in predictions.
        group: Column of groups that must stay on one side of the split.
        stratify: Columns whose values all sides of a random split have in proportion.
        split_column: Column that says train, val or test.
        val_path: File of validation rows; otherwise they are split off.
        test_path: File of test rows; otherwise they are split off.
        val_fraction: Share of the rows that validates.
        test_fraction: Share of the rows that tests.
        folds: Number of folds; one of them tests, and test_fraction has no effect. Folds keep
            groups whole, and strata in proportion.
        fold: The fold that tests, from 0.
        split_seed: Seed of the split. It is not the run's seed, so that runs with several seeds are
            tested on the same rows.
        schema_path: A run's schema.json, whose columns are read as that run read them.
        batch_size: Rows per step over all devices together.
        eval_batch_size: Rows per evaluation step over all devices.
        num_workers: Processes that prepare batches; 0 is fastest for data in memory.
        seed: Seed of the order of training batches.
    """

    can_fold = True

    def __init__(
        self,
        path: str,
        targets: list[str] | dict[str, str | list[str]] | None = None,
        tasks: dict[str, Any] | None = None,
        inputs: list[str] | None = None,
        drop: list[str] | None = None,
        categorical: list[str] | None = None,
        dates: Literal["refuse", "expand"] = "refuse",
        date_format: str | None = None,
        missing: list[str] | None = None,
        missing_defaults: bool = True,
        decimal: str | None = None,
        thousands: str | None = None,
        format: str | None = None,
        delimiter: str | None = None,
        names: list[str] | None = None,
        id: str | None = None,
        group: str | None = None,
        stratify: list[str] | None = None,
        split_column: str | None = None,
        val_path: str | None = None,
        test_path: str | None = None,
        val_fraction: float = 0.15,
        test_fraction: float = TEST_FRACTION,
        folds: int | None = None,
        fold: int = 0,
        split_seed: int = 0,
        schema_path: str | None = None,
        batch_size: int = 256,
        eval_batch_size: int = 4096,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed)
        words = tuple(str(word) for word in missing or ())
        columns = tuple(names) if names else None
        self.layout = FileFormat(format, delimiter, columns, words, missing_defaults)
        self.path = path
        self.val_path = val_path
        self.test_path = test_path
        self.settings = tasks or {}

        # how columns are read
        self.inputs = inputs
        self.drop = drop or []
        self.categorical = categorical or []
        self.dates = dates
        self.date_format = date_format
        self.decimal = decimal
        self.thousands = thousands

        # how rows are split
        self.id = id
        self.group = group
        self.stratify = stratify or []
        self.split_column = split_column
        self.val_fraction = val_fraction
        self.folds = folds
        self.fold = fold
        self.test_fraction = find_test_share(folds, fold, test_fraction)
        self.split_seed = split_seed
        check_settings(self, targets)

        self._saved = None if schema_path is None else read_schema(schema_path)
        if self._saved is None and not targets:
            raise UserError(
                "data.targets is missing: "
                "name the columns to predict, such as --data.targets '[income, hours]'"
            )
        self._targets_given = targets or {}
        if self._saved is None and not any(map(is_pattern, self._targets_given)):
            # impossible names are refused before a file is read
            refuse_unknown_settings(self.settings, find_columns_of_tasks(self._targets_given, None))

        paths = {role: getattr(self, key) for role, key in ROLES.items()}
        self.table_files = TableFiles(
            {role: value for role, value in paths.items() if value is not None},
            self.read,
            self._saved,
            lambda: self.new_rows,
            self._hash_inputs,
        )
        self.dropped: dict[str, str] = {}
        self._column_notes: list[str] = []
        self._inputs: dict[str, dict[str, torch.Tensor]] = {}
        self._targets: dict[tuple[str, str], torch.Tensor] = {}

    # -- files -------------------------------------------------------------------------------------
    def read(self, path: str) -> pd.DataFrame:
        """Reads one file; a subclass for a particular data set may prepare it here."""
        return read_table(path, self.layout)

    @property
    def is_new(self) -> bool:
        """Whether ``path`` holds other rows than those of the run whose schema is given."""
        return self.table_files.is_new

    @cached_property
    def main(self) -> pd.DataFrame:
        """The rows of ``path``, in which all columns that settings name exist."""
        frame = self.table_files.frame()
        check_columns(self, frame)
        return frame

    def _hash_inputs(self, frame: pd.DataFrame) -> np.ndarray:
        return hash_rows(encode_inputs(self.columns, frame, self.path, allow_missing=False)[0])

    # -- the split ---------------------------------------------------------------------------------
    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        """The numbers of the rows of ``path`` that train, validate and test.

        The rows of ``val_path`` and ``test_path`` come in addition.
        """
        # all of other rows are evaluated
        if self.is_new:
            none = np.zeros(0, dtype=np.int64)
            return {"train": none, "val": none, "test": np.arange(len(self.table_files.frame()))}
        if self._saved is not None:
            return unpack_sides(self._saved["sides"])

        rows, notes = find_rows_of_sides(self)
        self._column_notes += notes
        return rows

    @cached_property
    def written(self) -> Mapping[str, Written]:
        """How the numbers of each column are written, found in the training rows."""
        return find_formats_of_table(self)

    # -- tasks -------------------------------------------------------------------------------------
    @cached_property
    def _columns_of_tasks(self) -> dict[str, str | list[str]]:
        if self._saved is not None:
            found: dict[str, str | list[str]] = {}
            for name, labels in self._saved_labels().items():
                found[name] = labels.columns[0] if labels.single else list(labels.columns)
            return found

        # the file is read for its columns' names only if a pattern needs them
        columns = None
        if any(map(is_pattern, flatten_names(self._targets_given))):
            columns = [str(name) for name in self.table_files.frame().columns]
        try:
            found = find_columns_of_tasks(self._targets_given, columns)
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from None
        refuse_unknown_settings(self.settings, found)
        return found

    def _saved_labels(self) -> dict[str, Labels]:
        assert self._saved is not None
        tasks = self._saved["tasks"]
        return {name: Labels.from_plain(task["labels"]) for name, task in tasks.items()}

    @property
    def targets(self) -> dict[str, list[str]]:
        """The columns of each task."""
        found = self._columns_of_tasks
        return {
            name: [columns] if isinstance(columns, str) else columns
            for name, columns in found.items()
        }

    @property
    def single(self) -> dict[str, bool]:
        """Whether each task is given as one column, and not as a list of columns."""
        return {name: isinstance(columns, str) for name, columns in self._columns_of_tasks.items()}

    @cached_property
    def _target_reader(self) -> TargetReader:
        return TargetReader(self.path, self.main, self.rows["train"], self.written, self.settings)

    @cached_property
    def labels(self) -> dict[str, Labels]:
        """How the labels of each task are read."""
        if self._saved is not None:
            return self._saved_labels()
        self.tasks  # noqa: B018, fills the reader
        return self._target_reader.labels

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """One task per target, with the label space of the training rows."""
        if self._saved is not None:
            saved = self._saved["tasks"]
            return {name: task_from_plain(task["task"]) for name, task in saved.items()}
        reader = self._target_reader
        tasks = {}
        for name, columns in self._columns_of_tasks.items():
            tasks[name] = reader.make_task(name, columns)

        # an unknown label of any split ends the run now, and not after training
        for role in self.table_files.paths:
            for name, task in tasks.items():
                encoded = encode_targets(task, reader.labels[name], *self._file(role), name, "")
                self._targets[role, name] = encoded
        return tasks

    def _file(self, role: str) -> tuple[pd.DataFrame, str]:
        return self.table_files.frame(role), self.table_files.paths[role]

    def encode_targets_of(self, role: str, name: str) -> torch.Tensor:
        """Returns the targets of all rows of a file for one task."""
        task = self.tasks[name]
        if (role, name) not in self._targets:
            hint = "; rows without labels are for python -m src.predict"
            encoded = encode_targets(task, self.labels[name], *self._file(role), name, hint)
            self._targets[role, name] = encoded
        return self._targets[role, name]

    # -- inputs ------------------------------------------------------------------------------------
    @cached_property
    def columns(self) -> list[Column]:
        """The encoder of each input column."""
        if self._saved is not None:
            return [from_plain(values) for values in self._saved["inputs"]]
        reader, columns = read_inputs(self)
        self.dropped = reader.dropped
        self._column_notes += reader.notes
        if not columns:
            dropped = ", ".join(self.dropped) or "none"
            raise UserError(f"{self.path}: no input column is left; dropped: {dropped}")
        return columns

    @cached_property
    def input_shape(self) -> InputShape:
        """Numeric columns with their indicators, and the vocabularies of categorical columns."""
        return measure_columns(self.columns)

    def encode_inputs_of(self, role: str) -> dict[str, torch.Tensor]:
        """Returns the inputs of all rows of a file."""
        # read once for all splits of a file
        if role not in self._inputs:
            frame, path = self._file(role)
            inputs, remarks = encode_inputs(self.columns, frame, path, self.allow_missing)
            self._inputs[role] = inputs
            self.remarks += remarks
        return self._inputs[role]

    # -- splits ------------------------------------------------------------------------------------
    def split(self, name: Split) -> Rows:
        """Returns a split; prediction takes every row of ``path``.

        Raises:
            UserError: A split of new rows is asked for, which have none.
        """
        # prediction needs no labels, and does not read them
        if name == "predict":
            return self._make_rows(
                "train", np.arange(len(self.table_files.frame())), labelled=False
            )
        if self.is_new and name != "test":
            raise UserError(
                f"{self.path} holds new rows, and none of them is of the run's {name} split: "
                "leave --split out"
            )
        first, *others = (self._make_rows(*section) for section in find_rows(self, name).items())
        return first.append(others[0]) if others else first

    def _make_rows(self, role: str, rows: np.ndarray, labelled: bool = True) -> Rows:
        """Returns some rows of a file."""
        where = torch.from_numpy(rows)
        inputs = {key: values[where] for key, values in self.encode_inputs_of(role).items()}
        targets = {}
        if labelled:
            targets = {name: self.encode_targets_of(role, name)[where] for name in self.tasks}
        return Rows(inputs, targets, row_info=identify_rows(self, role, rows))

    def truth(self, name: Split) -> dict[str, dict[str, list[Any]]]:
        return read_labels(self, name)

    # -- the run's data ----------------------------------------------------------------------------
    def check_files(self, all_there: bool = True) -> None:
        if self._saved is not None and not self.is_new:
            for role, path in self.table_files.paths.items():
                if all_there or role == "train" or Path(path).exists():
                    self.table_files.find(role)

    def files(self) -> list[str]:
        saved = self._saved["files"] if self._saved is not None else {}
        return [*self.table_files.given.values(), *(record["path"] for record in saved.values())]

    def fingerprint(self) -> dict[str, Any]:
        return make_fingerprint(self)

    def schema(self) -> dict[str, Any]:
        """Returns how columns are read, and which rows are on which side, for later commands."""
        return self._saved or make_schema(self)

    # -- notes -------------------------------------------------------------------------------------
    def notes(self) -> list[str]:
        """Returns the tasks and why they are of their kind, the inputs, and what is suspicious."""
        if self._saved is not None:
            return describe_table(self, {})
        notes = describe_table(self, self._target_reader.reasons)
        counts = notes.pop()
        found = [*self._target_reader.notes, *self._column_notes, counts, *find_suspicions(self)]
        return [*notes, *found]

    def describe(self, name: Split) -> str:
        return describe_new_rows(self) if self.is_new else super().describe(name)
