"""Your own table: an unprepared CSV, TSV, Parquet or ARFF file with several columns to predict.

A subclass with inputs of its own defines their kind, a ``MemberColumn`` of ``columns.py``, names it
in ``column_kinds``, and returns it from ``read_columns``. All else follows from the columns: the
shape of the inputs, their encoding, and the schema. A subclass may also split its rows in another
way (``assign_rows``), or serve them from another data set (``make_rows``).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from src.batch import InputShape
from src.data.audit.finding import Finding, write_notes
from src.data.dependent_labels import describe_dependence
from src.data.rows import Inputs, Rows, Split, take_rows
from src.data.tables.audit.table_audit import audit_table
from src.data.tables.carried import Carried, carry_statistics, describe_carried, keep_columns
from src.data.tables.columns import Column, from_plain, measure_columns
from src.data.tables.files import ROLES, TableFiles
from src.data.tables.image_column import Image
from src.data.tables.input_encoding import encode_inputs
from src.data.tables.inputs import list_candidates, read_inputs
from src.data.tables.labels import Labels
from src.data.tables.members import (
    RowsWithImages,
    check_images,
    find_images,
    hash_image_files,
    place_images,
    read_members,
)
from src.data.tables.notes import describe_new_rows, describe_table
from src.data.tables.number_formats import Written, find_formats_of_table
from src.data.tables.reading import read_table
from src.data.tables.record import hash_rows, make_fingerprint, make_schema, unpack_sides
from src.data.tables.row_reader import RowReader
from src.data.tables.row_weights import describe_weights, read_weights
from src.data.tables.rows import find_rows, identify_rows, read_labels, read_words
from src.data.tables.sensitive import SensitiveGroups, describe_groups, find_groups, read_groups
from src.data.tables.settings import TableSettings, check_columns
from src.data.tables.sides import find_rows_of_sides
from src.data.tables.tasks import TableTasks
from src.errors import UserError
from src.tasks import Task

if TYPE_CHECKING:
    import pandas as pd


class Table(TableSettings):
    """Tasks from the columns of a table; all that is learnt of a column is learnt in training rows.

    A run keeps its columns, its split and hashes of its files in its schema.json. Given that, the
    table is read as the run read it. Another file holds new rows, and all of them are evaluated; a
    file that has changed since is refused.
    """

    # -- files -------------------------------------------------------------------------------------
    def read(self, path: str) -> pd.DataFrame:
        """Reads one file; a subclass for a particular data set may prepare it here."""
        return read_table(path, self.layout)

    @cached_property
    def table_files(self) -> TableFiles:
        """The files, each read once."""
        paths = {role: getattr(self, key) for role, key in ROLES.items()}
        return TableFiles(
            {role: value for role, value in paths.items() if value is not None},
            self.read,
            self.saved,
            lambda: self.new_rows,
            self._hash_inputs,
        )

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
        if self.saved is not None:
            return unpack_sides(self.saved["sides"])
        return self.assign_rows()

    def assign_rows(self) -> dict[str, np.ndarray]:
        """Splits the rows of ``path`` of a new run; a subclass may split them in another way."""
        rows, notes = find_rows_of_sides(self)
        self.column_notes += notes
        return rows

    @cached_property
    def written(self) -> Mapping[str, Written]:
        """How the numbers of each column are written, found in the training rows."""
        return find_formats_of_table(self)

    # -- tasks -------------------------------------------------------------------------------------
    @cached_property
    def task_columns(self) -> TableTasks:
        """The columns of the tasks, and how they are read."""
        saved = None if self.saved is None else self.saved["tasks"]
        return TableTasks(self, self.targets_given, saved)

    @property
    def targets(self) -> dict[str, list[str]]:
        """The columns of each task."""
        found = self.task_columns.columns.items()
        return {name: [given] if isinstance(given, str) else given for name, given in found}

    @property
    def single(self) -> dict[str, bool]:
        """Whether each task is given as one column, and not as a list of columns."""
        found = self.task_columns.columns.items()
        return {name: isinstance(columns, str) for name, columns in found}

    @property
    def labels(self) -> dict[str, Labels]:
        """How the labels of each task are read."""
        return self.task_columns.labels

    @property
    def tasks(self) -> dict[str, Task]:
        """One task per target, with the label space of the training rows."""
        return self.task_columns.tasks

    def encode_targets_of(self, role: str, name: str) -> torch.Tensor:
        """Returns the targets of all rows of a file for one task."""
        return self.task_columns.encode(role, name)

    # -- inputs ------------------------------------------------------------------------------------
    def start_from(self, schema: str, source: str, of: str | None = None) -> None:
        if self.saved is None:
            self.carried = Carried.read(schema, source, self.column_kinds, of)

    @cached_property
    def columns(self) -> list[Column]:
        """The encoder of each input column."""
        if self.saved is not None:
            saved = [from_plain(values, self.column_kinds) for values in self.saved["inputs"]]
            return [place_images(self, c) if isinstance(c, Image) else c for c in saved]
        columns = carry_statistics(self.carried, self.read_columns())
        if not columns:
            dropped = ", ".join(self.dropped) or "none"
            raise UserError(f"{self.path}: no input column is left; dropped: {dropped}")
        return columns

    def read_columns(self) -> list[Column]:
        """Learns the encoder of each input column from the training rows of a new run."""
        if self.carried is not None and self.inputs is None:
            self.dropped |= self.carried.drop_targets(list_candidates(self))
        kept = keep_columns(self, list_candidates(self))
        read = [column.source for column in kept]
        reader, columns = read_inputs(self, read)
        self.dropped |= reader.dropped
        self.column_notes += reader.notes
        return [*kept, *columns, *read_members(self, read)]

    @cached_property
    def input_shape(self) -> InputShape:
        """Numeric columns with their indicators, the vocabularies of categorical columns, ..."""
        return measure_columns(self.columns)

    @cached_property
    def _inputs(self) -> dict[str, Inputs]:
        return {}

    def encode_inputs_of(self, role: str) -> Inputs:
        """Returns the inputs of all rows of a file."""
        # read once for all splits of a file
        if role not in self._inputs:
            frame = self.table_files.frame(role)
            path = self.table_files.paths[role]
            inputs, remarks = encode_inputs(self.columns, frame, path, self.allow_missing)
            self._inputs[role] = inputs
            self.remarks += remarks
        return self._inputs[role]

    def row_reader(self) -> RowReader:
        known = [] if self.saved is None else self.saved["files"]["train"]["columns"]
        return RowReader(self.columns, known, self.layout, self.allow_missing)

    # -- splits ------------------------------------------------------------------------------------
    def split(self, name: Split) -> Rows:
        """Returns a split; prediction takes every row of ``path``.

        Raises:
            UserError: A split of new rows is asked for, which have none.
        """
        # prediction needs no labels, and does not read them
        if name == "predict":
            every = self.keep_usable("train", np.arange(len(self.table_files.frame())))
            return self.make_rows("train", every, labelled=False)
        if self.is_new and name != "test":
            raise UserError(
                f"{self.path} holds new rows, and none of them is of the run's {name} split: "
                "leave --split out"
            )
        first, *others = (self.make_rows(*section) for section in find_rows(self, name).items())
        return first.append(others[0]) if others else first

    def make_rows(self, role: str, rows: np.ndarray, labelled: bool = True) -> Rows:
        """Returns some rows of a file; a subclass may return another kind of Rows."""
        where = torch.from_numpy(rows)
        inputs = take_rows(self.encode_inputs_of(role), where)
        targets = {}
        weights = {}
        extras = {}
        if labelled:
            targets = {name: self.encode_targets_of(role, name)[where] for name in self.tasks}
            weights = read_weights(self, role, rows)
            extras = read_groups(self, role, rows)
        kind = RowsWithImages if self.images else Rows
        return kind(inputs, targets, extras, identify_rows(self, role, rows), weights)

    def keep_usable(self, role: str, rows: np.ndarray) -> np.ndarray:
        """Returns the rows (N,) of a file without the ones whose image is broken."""
        if self.skips_images:
            for images in find_images(self.encode_inputs_of(role)).values():
                rows = rows[images.usable[rows]]
        return rows

    @cached_property
    def groups_of_rows(self) -> SensitiveGroups | None:
        """The groups of people that ``sensitive`` tells apart; None where it names no column."""
        return find_groups(self)

    @property
    def sensitive_groups(self) -> tuple[str, ...]:
        groups = self.groups_of_rows
        return () if groups is None else groups.names

    def column_words(self, split: Split, column: str) -> list[str | None]:
        return read_words(self, split, column)

    def truth(self, name: Split) -> dict[str, dict[str, list[Any]]]:
        return read_labels(self, name)

    # -- the run's data ----------------------------------------------------------------------------
    def check_files(self, all_there: bool = True) -> None:
        if self.saved is not None and not self.is_new:
            for role, path in self.table_files.paths.items():
                if all_there or role == "train" or Path(path).exists():
                    self.table_files.find(role)
            if self.images and all_there:
                check_images(self)

    def files(self) -> list[str]:
        saved = self.saved["files"] if self.saved is not None else {}
        return [*self.table_files.given.values(), *(record["path"] for record in saved.values())]

    def fingerprint(self) -> dict[str, Any]:
        return make_fingerprint(self)

    def schema(self) -> dict[str, Any]:
        """Returns how columns are read, and which rows are on which side, for later commands."""
        if self.saved is None and self.images:
            for role, record in self.table_files.records.items():
                record["images"] = hash_image_files(self.encode_inputs_of(role))
        return self.saved or make_schema(self)

    # -- notes -------------------------------------------------------------------------------------
    def notes(self) -> list[str]:
        """Returns the tasks and why they are of their kind, the inputs, and what is suspicious."""
        if self.saved is not None:
            return describe_table(self, {})
        reader = self.task_columns.reader
        notes = describe_table(self, reader.reasons)
        counts = notes.pop()
        dependence = describe_dependence(self.tasks, self.split("train").targets)
        further = [*reader.notes, *dependence, *describe_weights(self), *self.column_notes]
        further += describe_groups(self)
        if self.carried is not None:
            further.append(describe_carried(self.carried, self.columns))
        if self.skips_images:
            further += self.remarks
        return [*notes, *further, counts, *write_notes(self.audit())]

    def audit(self, thorough: bool = False) -> list[Finding]:
        return audit_table(self, thorough)

    def describe(self, name: Split) -> str:
        return describe_new_rows(self) if self.is_new else super().describe(name)
