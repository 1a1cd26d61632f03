"""The tasks of a table: which columns each predicts, of which kind it is, and how its labels are read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from src.data.inputs import case_variants
from src.data.kinds import declared, with_settings
from src.data.labels import Labels, infer_kind, number_format, shown
from src.data.numbers import BadValue, Written, words_for_none
from src.data.reading import nearest
from src.errors import UserError
from src.tasks import BadLabel, BinaryClassification, Classification, Task
from src.tasks.labels import is_known

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

Targets = list[str] | dict[str, str | list[str]]
FARTHEST = (
    1e15  # of a label as a task encodes it: squares of larger ones overflow in single precision
)


def is_pattern(name: object) -> bool:
    """Whether the name of a target stands for several columns."""
    return isinstance(name, str) and "*" in name


def matching(pattern: str, columns: Sequence[str] | None) -> list[str]:
    """The columns that the name of a target means: itself, or those that fit a pattern.

    Raises:
        UserError: There are none.
    """
    if not is_pattern(pattern) or columns is None:
        return [pattern]
    form = re.escape(pattern).replace(r"\*", ".*")
    found = (
        [pattern]
        if pattern in columns
        else [column for column in columns if re.fullmatch(form, column)]
    )
    if not found:
        raise UserError(f"data.targets has the pattern '{pattern}', which no column fits")
    return found


def columns_of_tasks(given: Targets, columns: Sequence[str] | None) -> dict[str, str | list[str]]:
    """Returns the column, or the list of columns, of each task.

    Args:
        given: Names or patterns of columns, alone or by the names of tasks.
        columns: The columns of the table; None: leave patterns as they are.

    Raises:
        UserError: Two tasks would have one name, or no column fits a pattern.
    """
    if isinstance(given, dict):
        result: dict[str, str | list[str]] = {}
        for name, value in given.items():
            if isinstance(value, str) and not is_pattern(value):
                result[name] = value
            else:
                patterns = [value] if isinstance(value, str) else value
                result[name] = [
                    column for pattern in patterns for column in matching(pattern, columns)
                ]
        return result
    found = [column for name in given for column in matching(name, columns)]
    names: dict[str, str | list[str]] = {task_name(column): column for column in found}
    if len(names) < len(found):
        raise UserError(
            f"data.targets holds names that differ in punctuation alone: {', '.join(found)}; give {{task: column}}"
        )
    return names


def task_name(column: str) -> str:
    """A column's name as a task's name: letters, digits, '-' and '_' alone, since it becomes part of keys and file names."""
    return (
        "".join(c if c.isalnum() or c in "-_" else "_" for c in column.strip()).strip("_") or "task"
    )


class TargetReader:
    """Finds the kind and the label space of each task, from the training rows alone.

    Args:
        path: The file, for messages.
        frame: Its rows.
        rows: Which of them train.
        written: How the numbers of each column are written.
        settings: {task: what is set by hand}.
    """

    def __init__(
        self,
        path: str,
        frame: pd.DataFrame,
        rows: np.ndarray,
        written: Mapping[str, Written],
        settings: Mapping[str, Any],
    ) -> None:
        self.path, self.frame, self.rows, self.written, self.settings = (
            path,
            frame,
            rows,
            written,
            settings,
        )
        self.train = frame.iloc[rows]
        self.labels: dict[str, Labels] = {}
        self.reasons: dict[str, str] = {}
        self.notes: list[str] = []

    def task(self, name: str, columns: list[str], single: bool) -> Task:
        """Returns a task with its label space.

        Raises:
            UserError: The labels fit no kind, or not the one that was set by hand.
        """
        where = (
            f"{self.path}: target '{columns[0]}'"
            if single
            else f"{self.path}: target '{name}' ({', '.join(columns)})"
        )
        for column in columns:
            self._refuse_slips(column, name)
        try:
            if not self.train[columns].notna().to_numpy().any():
                raise UserError("has no label in the training split")
            task, reason = self._of_kind(name, columns)
            self.labels[name] = labels = self._how_read(task, columns, single)
            values = labels.values(self.train, getattr(task, "classes", ()))
            task = task.fit(values, columns)
            positive = positive_class(task, values)
        except (BadLabel, BadValue) as error:
            raise UserError(
                f"{self.path} row {self.rows[error.row] + 1}: target '{name}' {error}"
            ) from None
        except ValueError as error:
            raise UserError(f"{where} {error}") from None
        share = 1 - is_known(values).mean()
        gaps = f", {share:.1%} of the labels missing" if share else ""
        self.reasons[name] = f"{reason}{positive}{gaps}"
        self._note(name, columns, labels)
        return task

    def _of_kind(self, name: str, columns: list[str]) -> tuple[Task, str]:
        given = self.settings.get(name, {})
        if isinstance(given, Task):
            return given, "set by hand"
        kind, settings = declared(given)
        kind, reason = (
            (kind, "set by hand") if kind else infer_kind(self.train[columns], self.written)
        )
        if isinstance(settings.get("classes"), list) and reason != "set by hand":
            # in the order that counts
            reason = f"{reason.partition(':')[0]}: {shown(tuple(settings['classes']))}"
        return with_settings(kind, settings), reason

    def _how_read(self, task: Task, columns: list[str], single: bool) -> Labels:
        classes = isinstance(task, Classification | BinaryClassification)
        doubts = [doubt for column in columns if (doubt := self.written[column].doubt) is not None]
        if doubts and not classes:
            mark = doubts[0].thousands
            raise UserError(
                f"has numbers with a '{mark}', behind which decimals or thousands may stand: set --data.decimal '{mark}' or "
                f"--data.thousands '{mark}'"
            )
        numbers = all(self.written[column].share == 1 for column in columns)
        formats = (
            tuple(number_format(self.written[column]) for column in columns)
            if numbers or not classes
            else ()
        )
        return Labels(tuple(columns), single, classes, formats)

    def _refuse_slips(self, column: str, name: str) -> None:
        """Names the row of a text in a column of numbers, which would make classes of all of them."""
        how = self.written[column]
        if how.format is None or not 0.9 <= how.share < 1:
            return
        try:
            how.format.numbers(self.train[column])
        except BadValue as error:
            raise UserError(
                f"{self.path} row {self.rows[error.row] + 1}: column '{column}' {error}; if it means a missing value, add it to "
                f"data.missing; if the labels are classes, set data.tasks.{name} to Classification"
            ) from None

    def _note(self, name: str, columns: list[str], labels: Labels) -> None:
        said = [case_variants(self.train[columns[0]])] if labels.classes else []
        for column, form in zip(columns, labels.formats, strict=False):
            said += [str(form) if not form.plain else "", words_for_none(self.frame[column])]
        self.notes += [f"target '{name}': {note}" for note in said if note]


def refuse_unknown_settings(settings: Mapping[str, Any], names: Mapping[str, Any]) -> None:
    """Looks for settings of a task that is none.

    Raises:
        UserError: There is one.
    """
    for name in settings:
        if name not in names:
            raise UserError(
                f"data.tasks names '{name}', which is no target: {nearest(name, names)}"
            )


def positive_class(task: Task, values: np.ndarray) -> str:
    """Says which class of a binary task is positive, and whether most labels are."""
    if not isinstance(task, BinaryClassification):
        return ""
    share = float(task.encode(values).nanmean())
    positive, negative = task.classes[1], task.classes[0]
    if share <= 0.5:
        return f"; positive: {positive}"
    return f"; positive: {positive}, the majority ({share:.0%}), unless its setting classes is [{positive}, {negative}]"


def encode(
    task: Task, labels: Labels, frame: pd.DataFrame, path: str, name: str, hint: str
) -> Tensor:
    """The targets of all rows of a file for one task.

    Raises:
        UserError: A column is not there, or a label cannot be.
    """
    for column in labels.columns:
        if column not in frame.columns:
            raise UserError(
                f"{path}: lacks the target column '{column}': {nearest(column, frame.columns)}{hint}"
            )
    try:
        values = labels.values(frame, getattr(task, "classes", ()))
        encoded = task.encode(values)
    except (BadLabel, BadValue) as error:
        raise UserError(f"{path} row {error.row + 1}: target '{name}' {error}") from None
    if encoded.is_floating_point() and len(far := (encoded.abs() > FARTHEST).nonzero()):
        place = tuple(far[0].tolist())
        far_off = f"holds {values[place]:g}, so far from the training labels that no loss is finite"
        raise UserError(f"{path} row {place[0] + 1}: target '{name}' {far_off}")
    return encoded
