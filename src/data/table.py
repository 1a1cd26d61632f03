"""Your own table: a CSV, TSV, Parquet or ARFF file that nobody prepared, with several columns to predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from src.batch import InputShape
from src.data.columns import Categorical, Column, Numeric, from_plain, to_plain
from src.data.datamodule import MultiTaskDataModule, Rows, Split
from src.data.files import ROLES, TableFiles
from src.data.inputs import BadColumn, InputReader, encode_inputs
from src.data.kinds import task_from_plain
from src.data.labels import Labels
from src.data.leaks import suspicions
from src.data.numbers import Written, find_formats
from src.data.reading import FileFormat, nearest, read_table
from src.data.record import letters, packed, read_schema, row_hashes, rows_of, sealed
from src.data.sides import sides
from src.data.targets import (
    TargetReader,
    columns_of_tasks,
    encode,
    is_pattern,
    refuse_unknown_settings,
)
from src.errors import UserError
from src.tasks import MultilabelClassification, Task

if TYPE_CHECKING:
    import pandas as pd


class Table(MultiTaskDataModule):
    """Tasks from the columns of a table; everything that is learnt about a column is learnt from the training rows.

    A run keeps its columns, its split and a hash of its files in its schema.json. Opened with that,
    the table is read as the run read it; another file is new rows, all of which are evaluated; a
    file that has changed since is refused.

    Args:
        path: A .csv, .tsv, .parquet or .arff file.
        targets: Columns to predict: a list, or {task: column or columns}; several columns form one
            task (multi-label if they hold 0 and 1, else a vector regression). A name may be a
            pattern, such as Class*.
        tasks: {task: what is set by hand}: the name of a kind (Regression), settings ({weight: 2}),
            or both ({class_path: Regression, init_args: {loss: huber}}); a Task object from Python.
        inputs: Columns to learn from; None: all that are neither targets nor named otherwise.
        drop: Columns that must not be inputs.
        categorical: Columns that are to be read as categories, whatever they look like.
        dates: What to do with columns of dates: refuse them, or expand them into year, month, day,
            weekday and hour.
        date_format: How dates are written, such as %d/%m/%Y, where their columns do not tell.
        missing: Words and numbers that mean that a value is missing, besides those that always do.
        missing_defaults: Whether an empty cell, ?, NA, n/a, NaN, null, None always mean it.
        decimal: The mark before decimals; None: found in the training rows.
        thousands: The mark between thousands; None: found in the training rows.
        format: csv, tsv, parquet or arff; None: what the file's name says.
        delimiter: FeatureExchange the columns of a text file, or 'spaces'; None: a comma, or a tab
            in .tsv files.
        names: Names of the columns of a text file without a header.
        id: Column that names the rows in predictions.
        group: Column of groups that must not be on two sides of the split.
        stratify: Columns whose values all sides of a random split have in proportion.
        split_column: Column that says train, val or test.
        val_path: File of validation rows; otherwise they are split off.
        test_path: File of test rows; otherwise they are split off.
        val_fraction: Share of the rows that validates.
        test_fraction: Share of the rows that tests.
        split_seed: Seed of the split; apart from the run's seed, so that runs with several seeds
            see the same test rows.
        schema_path: A run's schema.json: columns are read as that run read them, instead of anew.
        batch_size: Rows per step over all devices together.
        eval_batch_size: Rows per evaluation step over all devices.
        num_workers: Processes that prepare batches; 0 is fastest for data in memory.
        seed: Seed of the order of training batches.
    """

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
        test_fraction: float = 0.15,
        split_seed: int = 0,
        schema_path: str | None = None,
        batch_size: int = 256,
        eval_batch_size: int = 4096,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed)
        words = tuple(str(word) for word in missing or ())
        self.layout = FileFormat(
            format, delimiter, tuple(names) if names else None, words, missing_defaults
        )
        self.path, self.val_path, self.test_path = path, val_path, test_path
        self.decimal, self.thousands, self.date_format = decimal, thousands, date_format
        self.settings = tasks or {}
        self.inputs, self.drop, self.categorical, self.dates = (
            inputs,
            drop or [],
            categorical or [],
            dates,
        )
        self.id, self.group, self.stratify, self.split_column = (
            id,
            group,
            stratify or [],
            split_column,
        )
        self.val_fraction, self.test_fraction, self.split_seed = (
            val_fraction,
            test_fraction,
            split_seed,
        )
        self._check_settings(targets)
        self._saved = None if schema_path is None else read_schema(schema_path)
        if self._saved is None and not targets:
            raise UserError(
                "data.targets is missing: name the columns to predict, such as --data.targets '[income, hours]'"
            )
        self._targets_given = targets or {}
        if self._saved is None and not any(map(is_pattern, self._targets_given)):
            # names that cannot be are refused before a file is read
            refuse_unknown_settings(self.settings, columns_of_tasks(self._targets_given, None))

        given = {
            role: value for role, key in ROLES.items() if (value := getattr(self, key)) is not None
        }
        self.table_files = TableFiles(given, self.read, self._saved)
        self.table_files.hashes = lambda frame: row_hashes(
            encode_inputs(self.columns, frame, path, False)[0]
        )
        self.dropped: dict[str, str] = {}
        self._column_notes: list[str] = []
        self._inputs: dict[str, dict[str, torch.Tensor]] = {}
        self._targets: dict[tuple[str, str], torch.Tensor] = {}

    def _check_settings(self, targets: object) -> None:
        """Looks for settings that cannot be, alone or together."""
        if isinstance(targets, str):
            raise UserError(
                f"data.targets is '{targets}', where a list of columns is expected: ['{targets}']"
            )
        ways = {"group": self.group, "split_column": self.split_column, "stratify": self.stratify}
        chosen = [f"data.{name}" for name, value in ways.items() if value]
        if len(chosen) > 1:
            raise UserError(f"{' and '.join(chosen)} cannot both say how to split")
        for name, share in (
            ("val_fraction", self.val_fraction),
            ("test_fraction", self.test_fraction),
        ):
            if not 0 <= share < 1:
                raise UserError(f"data.{name} is {share}; a share lies in [0, 1)")
        if self.val_fraction + self.test_fraction >= 1:
            raise UserError(
                f"data.val_fraction {self.val_fraction} and data.test_fraction {self.test_fraction} leave no rows to train"
            )
        if self.decimal not in (None, ".", ","):
            raise UserError(f"data.decimal is '{self.decimal}'; it must be '.' or ','")
        if self.thousands not in (None, "", ".", ",", " ", "'") or (
            self.thousands and self.thousands == self.decimal
        ):
            raise UserError(
                f"data.thousands is '{self.thousands}'; it must be ',', '.', a space or an apostrophe"
            )

    # -- files -------------------------------------------------------------------------------------
    def read(self, path: str) -> pd.DataFrame:
        """Reads one file; a subclass for a particular data set may prepare it here."""
        return read_table(path, self.layout)

    @property
    def is_new(self) -> bool:
        """Whether ``path`` holds other rows than those of the run whose schema is given."""
        self.table_files.new_rows = self.new_rows
        return self.table_files.is_new

    @cached_property
    def main(self) -> pd.DataFrame:
        """The rows of ``path``, once it is known that the columns that settings name are there."""
        main = self.table_files.frame()
        labels = {column for columns in self.targets.values() for column in columns}
        for name, columns in (
            ("inputs", self.inputs or []),
            ("drop", self.drop),
            ("categorical", self.categorical),
            ("id", [self.id] if self.id else []),
            ("group", [self.group] if self.group else []),
            ("stratify", self.stratify),
            ("split_column", [self.split_column] if self.split_column else []),
            ("targets", sorted(labels)),
        ):
            for column in columns:
                if column not in main.columns:
                    hint = nearest(column, main.columns)
                    raise UserError(
                        f"{self.path}: data.{name} names '{column}', which is no column: {hint}"
                    )
        both = labels & set(self.inputs or [])
        if both:
            raise UserError(
                f"data.inputs names '{sorted(both)[0]}', which is a target: a column cannot be both"
            )
        return main

    # -- the split ---------------------------------------------------------------------------------
    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        """Which rows of ``path`` train, validate and test; those of ``val_path`` and ``test_path`` come besides."""
        if self.is_new:
            none = np.zeros(0, dtype=np.int64)
            return {"train": none, "val": none, "test": np.arange(len(self.table_files.frame()))}
        if self._saved is not None:
            return rows_of(self._saved["sides"])
        side, moved = sides(self)
        if moved:
            self._column_notes.append(
                f"rows moved to train, since no other row there has their class: {moved}"
            )
        rows = {name: np.flatnonzero(side == name) for name in ROLES}
        for name, part in rows.items():
            if not len(part) and (name == "train" or name not in self.table_files.paths):
                raise UserError(
                    f"{self.path}: the {name} split has no rows: {self._why_empty(name, moved)}"
                )
        return rows

    def _why_empty(self, name: str, moved: int) -> str:
        if self.split_column:
            return f"column '{self.split_column}' names none"
        if {"val": self.val_fraction, "test": self.test_fraction}.get(name) == 0:
            return f"data.{name}_fraction is 0, and data.{name}_path names no file"
        if self.group:
            return f"column '{self.group}' has {self.main[self.group].nunique()} groups, too few or too large ones"
        if moved > 2:
            why = "since no other row there has their class; of a target that is a number, set data.tasks.TARGET to Regression"
            return f"{moved} rows were moved to train, {why}"
        return f"{len(self.main)} rows are too few"

    @cached_property
    def written(self) -> Mapping[str, Written]:
        """How the numbers of each column are written, found in the training rows."""
        train = self.main.iloc[self.rows["train"]]
        columns = {str(name): train[name] for name in train.columns}
        comma_file = self.layout.has_commas(self.path)
        try:
            return find_formats(columns, self.decimal, self.thousands, comma_file)
        except ValueError as error:
            raise UserError(f"{self.path}: {error}") from None

    # -- tasks -------------------------------------------------------------------------------------
    @cached_property
    def _columns_of_tasks(self) -> dict[str, str | list[str]]:
        if self._saved is not None:
            labels = {
                name: Labels.from_plain(task["labels"])
                for name, task in self._saved["tasks"].items()
            }
            return {
                name: how.columns[0] if how.single else list(how.columns)
                for name, how in labels.items()
            }
        patterns = any(map(is_pattern, flat(self._targets_given)))
        columns = [str(name) for name in self.table_files.frame().columns] if patterns else None
        try:
            found = columns_of_tasks(self._targets_given, columns)
        except ValueError as error:
            raise UserError(f"{self.path}: {error}") from None
        refuse_unknown_settings(self.settings, found)
        return found

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
        """Whether each task is one column, and not a list of them."""
        return {name: isinstance(columns, str) for name, columns in self._columns_of_tasks.items()}

    @cached_property
    def _target_reader(self) -> TargetReader:
        return TargetReader(self.path, self.main, self.rows["train"], self.written, self.settings)

    @cached_property
    def labels(self) -> dict[str, Labels]:
        """How the labels of each task are read."""
        if self._saved is not None:
            return {
                name: Labels.from_plain(task["labels"])
                for name, task in self._saved["tasks"].items()
            }
        self.tasks  # noqa: B018, finds out
        return self._target_reader.labels

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """One task per target, with the label space of the training rows."""
        if self._saved is not None:
            return {
                name: task_from_plain(task["task"]) for name, task in self._saved["tasks"].items()
            }
        reader, single = self._target_reader, self.single
        tasks = {
            name: reader.task(name, columns, single[name]) for name, columns in self.targets.items()
        }
        for role in (
            self.table_files.paths
        ):  # a label that no class knows ends the run now, not when its split is read
            for name, task in tasks.items():
                self._targets[role, name] = encode(
                    task, reader.labels[name], *self._file(role), name, ""
                )
        return tasks

    def _file(self, role: str) -> tuple[pd.DataFrame, str]:
        return self.table_files.frame(role), self.table_files.paths[role]

    def encoded_targets(self, role: str, name: str) -> torch.Tensor:
        """Returns the targets of all rows of a file for one task."""
        if (role, name) not in self._targets:
            hint = "; rows without labels are for python -m src.predict"
            task = self.tasks[name]
            self._targets.setdefault(
                (role, name), encode(task, self.labels[name], *self._file(role), name, hint)
            )
        return self._targets[role, name]

    # -- inputs ------------------------------------------------------------------------------------
    @cached_property
    def columns(self) -> list[Column]:
        """What each input column becomes."""
        if self._saved is not None:
            return [from_plain(values) for values in self._saved["inputs"]]
        taken = {c for columns in self.targets.values() for c in columns} | {
            self.id,
            self.group,
            self.split_column,
        }
        wanted = self.inputs or [str(column) for column in self.main.columns if column not in taken]
        forced, rows = self.inputs is not None, self.rows["train"]
        reader = InputReader(
            self.main, rows, self.written, forced, self.categorical, self.dates, self.date_format
        )
        try:
            columns = reader.columns([name for name in wanted if name not in self.drop])
        except BadColumn as error:
            place = self.path if error.row is None else f"{self.path} row {rows[error.row] + 1}"
            raise UserError(f"{place}: column '{error.column}' {error}") from None
        except ValueError as error:
            raise UserError(f"{self.path}: {error}") from None
        self.dropped = reader.dropped
        self._column_notes += reader.notes
        if not columns:
            raise UserError(
                f"{self.path}: no input column is left; dropped: {', '.join(self.dropped) or 'none'}"
            )
        return columns

    @cached_property
    def input_shape(self) -> InputShape:
        """Numeric columns with their indicators, and the vocabularies of the categorical ones."""
        numeric = sum(1 + c.indicator for c in self.columns if isinstance(c, Numeric))
        return InputShape(
            (numeric,), tuple(c.size for c in self.columns if isinstance(c, Categorical))
        )

    def encoded_inputs(self, role: str) -> dict[str, torch.Tensor]:
        """Returns the inputs of all rows of a file."""
        if role not in self._inputs:
            frame, path = self._file(role)
            self._inputs[role], remarks = encode_inputs(
                self.columns, frame, path, self.allow_missing
            )
            self.remarks += remarks
        return self._inputs[role]

    # -- splits ------------------------------------------------------------------------------------
    def split(self, name: Split) -> Rows:
        """Returns a split; to predict is to predict every row of ``path``.

        Raises:
            UserError: New rows are asked for a split, of which they have none.
        """
        if name == "predict":
            return self._part("train", np.arange(len(self.table_files.frame())), labelled=False)
        if self.is_new and name != "test":
            raise UserError(
                f"{self.path} holds new rows, none of which is of the run's {name} split: leave --split out"
            )
        parts = [self._part("train", self.rows[name])] if len(self.rows[name]) else []
        if name != "train" and name in self.table_files.paths:
            parts.append(self._part(name, np.arange(len(self.table_files.frame(name)))))
        return parts[0] if len(parts) == 1 else parts[0].append(parts[1])

    def _part(self, role: str, rows: np.ndarray, labelled: bool = True) -> Rows:
        """Some rows of a file."""
        where = torch.from_numpy(rows)
        inputs = {key: values[where] for key, values in self.encoded_inputs(role).items()}
        targets = {
            name: self.encoded_targets(role, name)[where]
            for name in (self.tasks if labelled else {})
        }
        return Rows(inputs, targets, row_info=self._row_info(role, rows))

    def _row_info(self, role: str, rows: np.ndarray) -> dict[str, list[Any]]:
        """What stands beside predictions: a row's id, or its number counted from 1, and its side where it is the run's."""
        frame = self.table_files.frame(role)
        names: list[Any] = (rows + 1).tolist()
        if self.id and self.id in frame.columns:
            ids = frame[self.id].iloc[rows]
            names = ids.astype(object).where(ids.notna(), None).tolist()
        if self.is_new:
            return {"id": names}
        side = np.full(len(frame), role, dtype="<U5")
        if role == "train":
            for split, numbers in self.rows.items():
                side[numbers] = split
        return {"id": names, "split": side[rows].tolist()}

    def truth(self, name: Split) -> dict[str, dict[str, list[Any]]]:
        """Returns the labels of a split as they are written."""
        roles = {"train": self.rows[name]} if len(self.rows[name]) else {}
        if name != "train" and name in self.table_files.paths:
            roles[name] = np.arange(len(self.table_files.frame(name)))
        found: dict[str, dict[str, list[Any]]] = {}
        for task, labels in self.labels.items():
            classes = getattr(self.tasks[task], "classes", ())
            parts = [
                labels.values(self.table_files.frame(role).iloc[rows], classes)
                for role, rows in roles.items()
            ]
            values = np.concatenate(parts).reshape(-1, len(labels.columns))
            if isinstance(
                self.tasks[task], MultilabelClassification
            ):  # as they are predicted: 1 and 0, not 1.0 and 0.0
                values = np.array(
                    [[None if np.isnan(label) else int(label) for label in row] for row in values],
                    dtype=object,
                )
            names = ("",) if labels.single else labels.columns
            found[task] = {
                suffix: column.tolist() for suffix, column in zip(names, values.T, strict=True)
            }
        return found

    # -- the run's data ----------------------------------------------------------------------------
    def check_files(self, all_there: bool = True) -> None:
        if self._saved is not None and not self.is_new:
            for role, path in self.table_files.paths.items():
                if all_there or role == "train" or Path(path).exists():
                    self.table_files.own(role)

    def files(self) -> list[str]:
        saved = self._saved["files"] if self._saved is not None else {}
        return [*self.table_files.given.values(), *(record["path"] for record in saved.values())]

    def fingerprint(self) -> dict[str, Any]:
        return {
            "files": self.schema()["files"],
            "rows": {name: len(rows) for name, rows in self.rows.items()},
        }

    def schema(self) -> dict[str, Any]:
        """How columns are read, and which rows are on which side, for later commands."""
        if self._saved is not None:
            return self._saved
        labels = self.labels
        schema = {
            "inputs": [to_plain(column) for column in self.columns],
            "tasks": {
                n: {"labels": labels[n].to_plain(), "task": task.describe()}
                for n, task in self.tasks.items()
            },
            "dropped": self.dropped,
            "files": self.table_files.records,
            "sides": letters(self.rows),
            "hashes": packed(row_hashes(self.encoded_inputs("train"))),
        }
        return sealed(schema)

    # -- what a person is told ---------------------------------------------------------------------
    def notes(self) -> list[str]:
        """Each task with its kind and the reason, the inputs, what was dropped, and what a person would look at twice."""
        reasons = {} if self._saved is not None else self._target_reader.reasons
        tasks = [
            f"task {n}: {type(t).__name__} ({reasons.get(n, 'as in the schema')})"
            for n, t in self.tasks.items()
        ]
        kinds = [
            f"{sum(isinstance(c, k) for c in self.columns)} {k.__name__.lower()}"
            for k in (Numeric, Categorical)
        ]
        dropped = [f"dropped {name}: {reason}" for name, reason in self.dropped.items()]
        sizes = {name: len(self.split(name)) for name in ("train", "val", "test")}
        counts = (
            f"rows: {sizes['train']} to train, {sizes['val']} to validate, {sizes['test']} to test"
        )
        notes = [
            *tasks,
            f"inputs: {' and '.join(kinds)} columns",
            *dropped,
            *self.table_files.notes(),
        ]
        if self._saved is not None:
            return [*notes, counts]
        return [*notes, *self._target_reader.notes, *self._column_notes, counts, *suspicions(self)]

    def describe(self, name: Split) -> str:
        """Says which rows a split has, and how many of new rows have the inputs of rows that the run was trained on."""
        if not self.is_new:
            return super().describe(name)
        rows = self.split("test")
        again = int(
            np.isin(row_hashes(self.encoded_inputs("train")), self.table_files.trained_on()).sum()
        )
        seen = (
            f"; {again} of them have the inputs of rows that the run was trained on"
            if again
            else ""
        )
        return f"all {len(rows)} rows of {self.path}, a file that is not the run's{seen}"


def flat(targets: Mapping[str, str | list[str]] | Sequence[str]) -> list[str]:
    """The names of columns, or their patterns, of all tasks."""
    if not isinstance(targets, Mapping):
        return list(targets)
    return [
        name
        for value in targets.values()
        for name in ([value] if isinstance(value, str) else value)
    ]
