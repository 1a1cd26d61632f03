"""Your own table: a CSV, TSV or Parquet file that nobody prepared, with several columns to predict."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from src.batch import InputShape
from src.data.columns import (
    DATE_PARTS,
    BadValue,
    Categorical,
    Column,
    Numeric,
    expand_dates,
    from_plain,
    looks_like_dates,
    numeric_share,
    to_numbers,
    to_plain,
    to_words,
)
from src.data.datamodule import MultiTaskDataModule, Rows, Split
from src.data.labels import declared, infer_kind, label_values, task_from_plain, with_settings
from src.data.reading import MISSING_WORDS, nearest, read_table
from src.data.splits import column_split, group_split, joint_strata, random_split
from src.tasks import BadLabel, Task
from src.tasks.task import known

if TYPE_CHECKING:
    import pandas as pd


class Table(MultiTaskDataModule):
    """Tasks from the columns of a table; everything that is learnt about a column is learnt from the training rows.

    Args:
        path: A .csv, .tsv or .parquet file.
        targets: Columns to predict: a list, or {task: column or columns}; several columns form one task (multi-label if they hold
            0 and 1, else a vector regression).
        tasks: {task: what is set by hand}: the name of a kind (Regression), settings ({weight: 2}), or both
            ({class_path: Regression, init_args: {loss: huber}}); a Task object from Python.
        inputs: Columns to learn from; None: all that are neither targets nor named otherwise.
        drop: Columns that must not be inputs.
        categorical: Columns of numbers that are to be read as categories.
        dates: What to do with columns of dates: refuse them, or expand them into year, month, day, weekday and hour.
        missing: Words that mean that a value is missing.
        delimiter: Between the columns of a text file; None: a comma, or a tab in .tsv files.
        id: Column that names the rows in predictions.
        group: Column of groups that must not be on two sides of the split.
        split_column: Column that says train, val or test.
        val_path: File of validation rows; otherwise they are split off.
        test_path: File of test rows; otherwise they are split off.
        val_fraction: Share of the rows that validates.
        test_fraction: Share of the rows that tests.
        split_seed: Seed of the split; apart from the run's seed, so that runs with several seeds see the same test rows.
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
        missing: list[Any] | None = None,
        delimiter: str | None = None,
        id: str | None = None,
        group: str | None = None,
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
        self.path, self.schema_path = path, schema_path
        self.missing = list(MISSING_WORDS) if missing is None else [str(word) for word in missing]
        self.delimiter = delimiter
        self.settings = tasks or {}
        self.inputs, self.drop, self.categorical, self.dates = inputs, drop or [], categorical or [], dates
        self.id, self.group, self.split_column = id, group, split_column
        self.val_path, self.test_path = val_path, test_path
        self.val_fraction, self.test_fraction, self.split_seed = val_fraction, test_fraction, split_seed
        self.reasons: dict[str, str] = {}
        self.dropped: dict[str, str] = {}
        if group and split_column:
            raise ValueError("data.group and data.split_column cannot both say how to split")
        for name, share in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
            if not 0 <= share < 1:
                raise ValueError(f"data.{name} is {share}; a share lies in [0, 1)")
        if val_fraction + test_fraction >= 1:
            raise ValueError(f"data.val_fraction {val_fraction} and data.test_fraction {test_fraction} leave no rows to train")
        self._saved: dict[str, Any] | None = None
        if schema_path is not None:
            import json

            try:
                self._saved = json.loads(Path(schema_path).read_text())
            except ValueError as error:
                raise ValueError(f"{schema_path} is damaged: {error}") from None
            targets = {name: task["columns"] for name, task in self._saved["tasks"].items()}
        if isinstance(targets, str):
            raise ValueError(f"data.targets is '{targets}', where a list of columns is expected: ['{targets}']")
        if not targets:
            raise ValueError("data.targets is missing: name the columns to predict, such as --data.targets '[income, hours]'")
        names = targets if isinstance(targets, dict) else {task_name(c): c for c in targets}
        if len(names) < len(targets):
            raise ValueError(
                f"data.targets holds names that differ in punctuation alone: {', '.join(targets)}; give {{task: column}}"
            )
        self.single = {name: isinstance(columns, str) for name, columns in names.items()}
        self.targets = {name: [columns] if isinstance(columns, str) else list(columns) for name, columns in names.items()}
        for name in self.settings:
            if name not in self.targets:
                raise ValueError(f"data.tasks names '{name}', which is no target: {nearest(name, self.targets)}")

    # -- reading ----------------------------------------------------------------------------------------------------------------
    def read(self, path: str) -> pd.DataFrame:
        """Reads one file; a subclass for a particular data set may prepare it here."""
        return read_table(path, self.delimiter, self.missing)

    @cached_property
    def _files(self) -> dict[str, pd.DataFrame]:
        """The files as read, by what they hold."""
        paths = {"train": self.path, "val": self.val_path, "test": self.test_path}
        return {name: self.read(path) for name, path in paths.items() if path is not None}

    def _place(self, row: int) -> str:
        """A row of the joined table as a person finds it: file and row, counted from 1 after the header."""
        for name, frame in self._files.items():
            if row < len(frame):
                return f"{ {'train': self.path, 'val': self.val_path, 'test': self.test_path}[name] } row {row + 1}"
            row -= len(frame)
        raise AssertionError("a row beyond all files")

    @cached_property
    def frame(self) -> pd.DataFrame:
        """All rows of all files, with dates expanded."""
        import pandas as pd

        main = self._files["train"]
        labels = {c for columns in self.targets.values() for c in columns}
        for name, columns in (
            ("targets", labels),
            ("inputs", self.inputs or []),
            ("drop", self.drop),
            ("categorical", self.categorical),
            ("id", [self.id] if self.id else []),
            ("group", [self.group] if self.group else []),
            ("split_column", [self.split_column] if self.split_column else []),
        ):
            for column in columns:
                if column not in main.columns and not (name == "targets" and self._saved):
                    raise ValueError(
                        f"{self.path}: data.{name} names '{column}', which is no column: {nearest(column, main.columns)}"
                    )
        both = labels & set(self.inputs or [])
        if both:
            raise ValueError(f"data.inputs names '{sorted(both)[0]}', which is a target: a column cannot be both")
        for path, frame in zip((self.val_path, self.test_path), (self._files.get("val"), self._files.get("test")), strict=True):
            if frame is not None:
                for column in main.columns:
                    if column not in frame.columns:
                        raise ValueError(f"{path}: lacks the column '{column}' of {self.path}: {nearest(column, frame.columns)}")
        return pd.concat([frame[main.columns] for frame in self._files.values()], ignore_index=True)

    @cached_property
    def _rows(self) -> dict[str, np.ndarray]:
        """Which rows of ``frame`` belong to which split."""
        import pandas as pd

        sizes = {name: len(frame) for name, frame in self._files.items()}
        first = sizes["train"]
        val = 0.0 if self.val_path else self.val_fraction
        test = 0.0 if self.test_path else self.test_fraction
        main = self.frame.iloc[:first]
        if self.split_column:
            try:
                side = column_split(main[self.split_column].tolist())
            except ValueError as error:
                raise ValueError(f"{self.path}: column '{self.split_column}' {error}") from None
        elif self.group:
            groups = to_words(main[self.group])
            if None in groups:
                raise ValueError(f"{self._place(groups.index(None))}: column '{self.group}' is missing; each row needs its group")
            side = group_split(np.array(groups, dtype=str), val, test, self.split_seed)
        else:
            columns = [main[c] for cs in self.targets.values() for c in cs if c in main.columns]
            labels = [pd.factorize(column, use_na_sentinel=False)[0] for column in columns]
            labels = [codes for codes in labels if codes.max() < 20]
            rare = np.zeros(first, dtype=bool)
            for codes in labels:
                rare |= np.bincount(codes)[codes] < 3
            strata = joint_strata(labels, most=max(2, first // 50))
            side = random_split(first, val, test, self.split_seed, strata, rare)
        rows = {name: np.flatnonzero(side == name) for name in ("train", "val", "test")}
        for name in ("val", "test"):
            if name in sizes:
                start = first + (sizes["val"] if name == "test" and "val" in sizes else 0)
                rows[name] = np.concatenate([rows[name], np.arange(start, start + sizes[name])])
        for name, part in rows.items():
            if not len(part):
                share = {"val": self.val_fraction, "test": self.test_fraction}.get(name)
                how = f"{len(self.frame)} rows are too few"
                if share == 0:
                    how = f"data.{name}_fraction is 0, and data.{name}_path names no file"
                if self.split_column:
                    how = f"column '{self.split_column}' names none"
                elif self.group:
                    how = f"column '{self.group}' has {main[self.group].nunique()} groups, too few or too large ones"
                raise ValueError(f"{self.path}: the {name} split has no rows: {how}")
        return rows

    # -- tasks ------------------------------------------------------------------------------------------------------------------
    @cached_property
    def tasks(self) -> dict[str, Task]:
        """One task per target, with the label space of the training rows."""
        if self._saved:
            return {name: task_from_plain(task["task"]) for name, task in self._saved["tasks"].items()}
        tasks = {name: self._task(name) for name in self.targets}
        for name, task in tasks.items():  # a label that no class knows ends the run now, not when its split is read
            self._encode(task, name, np.arange(len(self.frame)))
        return tasks

    def _task(self, name: str) -> Task:
        columns, single = self.targets[name], self.single[name]
        where = f"{self.path}: target '{columns[0]}'" if single else f"{self.path}: target '{name}' ({', '.join(columns)})"
        for column in columns:
            if 0.9 <= numeric_share(self.frame[column]) < 1:  # numbers with a slip, not a class
                self._numbers(column)
        train = self.frame.iloc[self._rows["train"]]
        values = label_values(train, columns, single)
        if not known(values).any():
            raise ValueError(f"{where} has no label in the training split")
        given = self.settings.get(name, {})
        try:
            if isinstance(given, Task):
                task, reason = given, "set by hand"
            else:
                kind, settings = declared(given)
                kind, reason = (kind, "set by hand") if kind else infer_kind(values, train, columns)
                task = with_settings(kind, settings)
            task = task.fit(values, columns)
        except BadLabel as error:
            raise ValueError(f"{self._place(self._rows['train'][error.row])}: target '{name}' {error}") from None
        except ValueError as error:
            raise ValueError(f"{where} {error}") from None
        share = 1 - known(values).mean()
        gaps = f", {share:.1%} of the labels missing" if share else ""
        self.reasons[name] = f"{reason}{gaps}"
        return task

    # -- inputs -----------------------------------------------------------------------------------------------------------------
    @cached_property
    def columns(self) -> list[Column]:
        """What each input column becomes."""
        if self._saved:
            return [from_plain(values) for values in self._saved["inputs"]]
        taken = {c for columns in self.targets.values() for c in columns} | {self.id, self.group, self.split_column}
        wanted = self.inputs or [c for c in self.frame.columns if c not in taken]
        columns: list[Column] = []
        for name in wanted:
            if name not in self.drop:
                columns += self._column(name)
        if not columns:
            raise ValueError(f"{self.path}: no input column is left; dropped: {', '.join(self.dropped) or 'none'}")
        return columns

    def _column(self, name: str) -> list[Column]:
        """Reads one input column: none if it is dropped, several if it is a date."""
        series = self.frame[name]
        train = series.iloc[self._rows["train"]]
        forced = self.inputs is not None
        distinct = train.nunique()
        if distinct == 0 or (distinct == 1 and not train.isna().any()):
            self.dropped[name] = "constant in the training rows"
            return []
        if name in self.categorical:
            return [Categorical.fit(train)]
        share = numeric_share(series)
        if share == 1.0:
            numbers = self._numbers(name)
            if not forced and len(numbers) > 2 and (np.diff(numbers) == 1).all():
                self.dropped[name] = "counts the rows"
                return []
            return [Numeric.fit(train)]
        if looks_like_dates(series):
            if self.dates == "refuse":
                raise ValueError(f"{self.path}: column '{name}' holds dates: set --data.dates expand, or --data.drop '[{name}]'")
            parts = expand_dates(series)
            for part, values in parts.items():
                self.frame[part] = values.to_numpy()
            return [column for part in parts for column in self._column(part)]
        if share >= 0.9:
            self._numbers(name)  # says which row
        if not forced and len(train) > 20 and distinct > len(train) / 2:
            self.dropped[name] = f"{distinct} different texts in {len(train)} rows: an identifier or free text"
            return []
        return [Categorical.fit(train)]

    def _numbers(self, name: str) -> np.ndarray:
        """A column as numbers, over all rows of all files."""
        try:
            return to_numbers(self.frame[name])
        except BadValue as error:
            word = f"; if it means a missing value, add it to data.missing; if '{name}' is no number, to data.categorical"
            raise ValueError(f"{self._place(error.row)}: column '{name}' {error}{word if 'number' in str(error) else ''}") from None

    @cached_property
    def input_shape(self) -> InputShape:
        """Numeric columns with their indicators, and the vocabularies of the categorical ones."""
        numeric = sum(1 + c.indicator for c in self.columns if isinstance(c, Numeric))
        return InputShape((numeric,), tuple(c.size for c in self.columns if isinstance(c, Categorical)))

    # -- splits -----------------------------------------------------------------------------------------------------------------
    def split(self, name: Split) -> Rows:
        """Returns a split; to predict is to predict every row of ``path``."""
        rows = np.arange(len(self._files["train"])) if name == "predict" else self._rows[name]
        part = self.frame.iloc[rows]
        targets = {} if name == "predict" else {task: self._targets(task, rows) for task in self.tasks}
        return Rows(self._inputs(part, rows), targets)

    def _inputs(self, part: pd.DataFrame, rows: np.ndarray) -> dict[str, torch.Tensor]:
        dense, categorical = [np.zeros((len(part), 0), np.float32)], [np.zeros((len(part), 0), np.int64)]
        for column in self.columns:
            if column.column not in part.columns:
                self._expand(column.column)
                part = self.frame.iloc[rows]
            try:
                values = column.encode(part[column.column])
            except BadValue as error:
                raise ValueError(f"{self._place(int(rows[error.row]))}: column '{column.column}' {error}") from None
            if isinstance(column, Numeric):
                dense.append(values)
            else:
                categorical.append(values[:, None])
        return {
            "dense": torch.from_numpy(np.concatenate(dense, 1)),
            "categorical": torch.from_numpy(np.concatenate(categorical, 1)),
        }

    def _expand(self, name: str) -> None:
        """Brings a column into the table that a schema asks for: a part of a date, or one that this file lacks."""
        source, _, part = name.rpartition(".")
        lacking = name if part not in DATE_PARTS else source
        if lacking == name or source not in self.frame.columns:
            raise ValueError(f"{self.path}: lacks the input column '{lacking}': {nearest(lacking, self.frame.columns)}")
        for part, values in expand_dates(self.frame[source]).items():
            self.frame[part] = values.to_numpy()

    def _targets(self, name: str, rows: np.ndarray) -> torch.Tensor:
        columns = self.targets[name]
        for column in columns:
            if column not in self.frame.columns:
                hint = "; rows without labels are for python -m src.predict" if self._saved else ""
                raise ValueError(f"{self.path}: lacks the target column '{column}': {nearest(column, self.frame.columns)}{hint}")
        return self._encode(self.tasks[name], name, rows)

    def _encode(self, task: Task, name: str, rows: np.ndarray) -> torch.Tensor:
        """Labels of some rows as a task's targets."""
        values = label_values(self.frame.iloc[rows], self.targets[name], self.single[name])
        try:
            return task.encode(values)
        except BadLabel as error:
            raise ValueError(f"{self._place(int(rows[error.row]))}: target '{name}' {error}") from None

    def notes(self) -> list[str]:
        """Each task with its kind and the reason, the inputs, and what was dropped."""
        tasks = [f"task {n}: {type(t).__name__} ({self.reasons.get(n, 'as in the schema')})" for n, t in self.tasks.items()]
        kinds = [f"{sum(isinstance(c, k) for c in self.columns)} {k.__name__.lower()}" for k in (Numeric, Categorical)]
        sizes = ", ".join(
            f"{len(rows)} to {verb}" for verb, rows in zip(("train", "validate", "test"), self._rows.values(), strict=True)
        )
        dropped = [f"dropped {name}: {reason}" for name, reason in self.dropped.items()]
        return [*tasks, f"inputs: {' and '.join(kinds)} columns", *dropped, f"rows: {sizes}"]

    def sample_ids(self) -> Sequence[Any]:
        """Names of the rows to predict: the id column, or their numbers counted from 1."""
        frame = self._files["train"]
        return frame[self.id].tolist() if self.id else range(1, len(frame) + 1)

    def schema(self) -> dict[str, Any]:
        """How columns are read, for later runs on new rows."""
        return {
            "inputs": [to_plain(column) for column in self.columns],
            "tasks": {
                name: {"columns": self.targets[name][0] if self.single[name] else self.targets[name], "task": task.describe()}
                for name, task in self.tasks.items()
            },
            "dropped": self.dropped,
        }


def task_name(column: str) -> str:
    """A column's name as a task's name: letters, digits, '-' and '_' alone, since it becomes part of keys and file names."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in column.strip()).strip("_") or "task"
