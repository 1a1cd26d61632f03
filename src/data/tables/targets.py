"""The tasks of a table: the columns that each predicts, its kind, and how its labels are read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from src.data.kinds import (
    build_task,
    find_declared_kind,
    find_further_columns,
    parse_declaration,
    read_forms,
)
from src.data.tables.bounds import find_bound, remove_marks
from src.data.tables.inputs import describe_case_variants
from src.data.tables.labels import Labels, describe_bound, get_format, infer_kind, list_few
from src.data.tables.number_formats import Written
from src.data.tables.numbers import BadValue, NumberFormat, describe_words_for_missing
from src.data.tables.reading import number_row
from src.errors import UserError, suggest_or_list
from src.tasks import BadLabel, BinaryClassification, Task
from src.tasks.labels import is_known
from src.tasks.scale import carry_scale

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

Targets = list[str] | dict[str, str | list[str]]
FARTHEST = 1e15  # largest encoded label; squares of larger ones overflow in single precision


def is_pattern(name: object) -> bool:
    """Returns whether the name of a target stands for several columns."""
    return isinstance(name, str) and "*" in name


def match_columns(pattern: str, columns: Sequence[str] | None) -> list[str]:
    """Returns the columns that the name of a target means: itself, or all that fit a pattern.

    Raises:
        UserError: No column fits.
    """
    if not is_pattern(pattern) or columns is None:
        return [pattern]

    # a column may have the very name, with a star in it
    if pattern in columns:
        return [pattern]
    form = re.escape(pattern).replace(r"\*", ".*")
    found = [column for column in columns if re.fullmatch(form, column)]
    if not found:
        raise UserError(f"data.targets has the pattern '{pattern}', which no column fits")
    return found


def find_columns_of_tasks(
    given: Targets, columns: Sequence[str] | None
) -> dict[str, str | list[str]]:
    """Returns the column, or the list of columns, of each task.

    Args:
        given: Names or patterns of columns, as a list or by the names of tasks.
        columns: The columns of the table; None to leave patterns as they are.

    Raises:
        UserError: Two tasks would have one name, or no column fits a pattern.
    """
    if isinstance(given, dict):
        result: dict[str, str | list[str]] = {}
        for name, value in given.items():
            if isinstance(value, str) and not is_pattern(value):
                result[name] = value
                continue
            patterns = [value] if isinstance(value, str) else value
            matches: list[str] = []
            for pattern in patterns:
                matches += match_columns(pattern, columns)
            result[name] = matches
        return result

    found = [column for name in given for column in match_columns(name, columns)]
    names: dict[str, str | list[str]] = {make_task_name(column): column for column in found}
    if len(names) < len(found):
        raise UserError(
            "data.targets holds names that differ in punctuation alone: "
            f"{', '.join(found)}; give {{task: column}}"
        )
    return names


def make_task_name(column: str) -> str:
    """Turns a column's name into a task's name, of letters, digits, '-' and '_'.

    Tasks' names become keys and file names.
    """
    allowed = [c if c.isalnum() or c in "-_" else "_" for c in column.strip()]
    return "".join(allowed).strip("_") or "task"


def flatten_names(targets: Targets) -> list[str]:
    """Returns the names of the columns of all tasks, or their patterns."""
    if not isinstance(targets, dict):
        return list(targets)
    names: list[str] = []
    for value in targets.values():
        names += [value] if isinstance(value, str) else value
    return names


class TargetReader:
    """Finds the kind and the label space of each task, from the training rows alone.

    Args:
        path: The file, for messages.
        frame: Its rows.
        rows: The numbers of the training rows.
        written: How the numbers of each column are written.
        settings: {task: its kind or settings}, as the user gives them.
        carried: {task: its description} of the run that the model starts from.

    Attributes:
        labels: {task: how its labels are read}.
        reasons: {task: why it is of its kind, in words}.
        notes: What a person should know of how labels are read, one line each.
    """

    def __init__(
        self,
        path: str,
        frame: pd.DataFrame,
        rows: np.ndarray,
        written: Mapping[str, Written],
        settings: Mapping[str, Any],
        carried: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.carried = carried or {}
        self.path = path
        self.frame = frame
        self.rows = rows
        self.written = written
        self.settings = settings
        self.train = frame.iloc[rows]
        self.labels: dict[str, Labels] = {}
        self.reasons: dict[str, str] = {}
        self.notes: list[str] = []

    def make_task(self, name: str, given: str | list[str]) -> Task:
        """Returns a task with its label space.

        Args:
            name: The task's name.
            given: Its column, or the list of its columns.

        Raises:
            UserError: The labels fit no kind, or not the kind in the settings.
        """
        single = isinstance(given, str)
        columns = [given] if isinstance(given, str) else given
        where = f"{self.path}: target '{name}' ({', '.join(columns)})"
        if single:
            where = f"{self.path}: target '{columns[0]}'"
        # a single slip must not turn a regression into classes of every number
        self._refuse_slips(columns, name)
        try:
            if not self.train[columns].notna().to_numpy().any():
                raise UserError("has no label in the training split")
            task, reason = self._choose_kind(name, columns)
            labels = self._choose_reading(task, columns, single)
            self.labels[name] = labels
            values = read_values(task, labels, self.train)
            unfitted = task
            task = task.fit(values, columns)
            if name in self.carried:
                task = carry_scale(task, unfitted, self.carried[name])
            positive = describe_positive_class(task, values)
        except (BadLabel, BadValue) as error:
            row = number_row(self.train, error.row)
            hint = self._hint_at_bounds(columns, name)
            raise UserError(f"{self.path} row {row}: target '{name}' {error}{hint}") from None
        except ValueError as error:
            raise UserError(f"{where} {error}") from None

        # notes are for people: they are made only after all has gone well
        missing = 1 - is_known(values).mean()
        gaps = f", {missing:.1%} of the labels missing" if missing else ""
        self.reasons[name] = f"{reason}{positive}{gaps}"
        self._note(name, columns, labels)
        return task

    def _choose_kind(self, name: str, columns: list[str]) -> tuple[Task, str]:
        """Returns an unfitted task, and why it is of its kind."""
        given = self.settings.get(name, {})
        if isinstance(given, Task):
            return given, "set by hand"
        kind, settings = parse_declaration(given)
        if kind is not None:
            return build_task(kind, settings), "set by hand"

        kind, reason = infer_kind(self.train[columns], self.written)
        if isinstance(settings.get("classes"), list):
            # the order in the settings counts
            reason = f"{reason.partition(':')[0]}: {list_few(tuple(settings['classes']))}"
        return build_task(kind, settings), reason

    def _choose_reading(self, task: Task, columns: list[str], single: bool) -> Labels:
        """Returns how the labels of a task are read."""
        forms = read_forms(task, len(columns))
        classes = set(forms) == {"class"}
        written = [self.written[column] for column in columns]

        # classes stay as written, so that a doubtful mark does not matter for them
        numbers = [each for each, form in zip(written, forms, strict=True) if form != "class"]
        doubts = [each.doubt for each in numbers if each.doubt is not None]
        if doubts:
            mark = doubts[0].thousands
            raise UserError(
                f"has numbers with a '{mark}', which may be followed by decimals or by thousands: "
                f"set --data.decimal '{mark}' or --data.thousands '{mark}'"
            )
        formats: tuple[NumberFormat, ...] = ()
        if not classes or all(each.share == 1 for each in written):
            formats = tuple(get_format(each) for each in written)
        return Labels(tuple(columns), single, classes, formats)

    def _hint_at_bounds(self, columns: list[str], name: str) -> str:
        """Returns what a message about a text among numbers adds where bounds are among them."""
        for column in columns:
            if find_bound(self.train[column], self.written[column].format) is not None:
                return f"; bounds are read by data.tasks.{name} CensoredRegression"
        return ""

    def _refuse_slips(self, columns: list[str], name: str) -> None:
        """Names the row of a text in a column of numbers, which would turn all into classes."""
        try:
            kind = find_declared_kind(self.settings.get(name, {}))
        except UserError:
            # said when the task is made
            return
        forms = ("number",) * len(columns) if kind is None else read_forms(kind, len(columns))
        for column, form in zip(columns, forms, strict=True):
            how = self.written[column]
            if form != "number" or how.format is None or not 0.9 <= how.share < 1:
                continue
            try:
                how.format.numbers(remove_marks(self.train[column]))
                bound = find_bound(self.train[column], how.format)
                if bound is not None:
                    raise UserError(f"{self.path}: target '{name}' {describe_bound(bound)}")
            except BadValue as error:
                raise UserError(
                    f"{self.path} row {number_row(self.train, error.row)}: column '{column}' "
                    f"{error}; if it means a missing value, add it to data.missing; "
                    f"if the labels are classes, set data.tasks.{name} to Classification"
                ) from None

    def _note(self, name: str, columns: list[str], labels: Labels) -> None:
        found = [describe_case_variants(self.train[columns[0]])] if labels.classes else []
        if labels.classes and name not in self.settings:
            bound = find_bound(self.train[columns[0]], self.written[columns[0]].format)
            found.append(f"note: {describe_bound(bound)}" if bound is not None else "")
        for column, form in zip(columns, labels.formats, strict=False):
            found.append("" if form.plain else str(form))
            found.append(describe_words_for_missing(self.frame[column]))
        self.notes += [f"target '{name}': {note}" for note in found if note]


def refuse_unknown_settings(settings: Mapping[str, Any], names: Mapping[str, Any]) -> None:
    """Refuses settings of a task that does not exist.

    Raises:
        UserError: There are some.
    """
    for name in settings:
        if name not in names:
            hint = suggest_or_list(name, names)
            raise UserError(f"data.tasks names '{name}', which is no target: {hint}")


def describe_positive_class(task: Task, values: np.ndarray) -> str:
    """Says which class of a binary task is positive, and whether most labels are; '' for others."""
    if not isinstance(task, BinaryClassification):
        return ""
    share = float(task.encode(values).nanmean())
    negative, positive = task.classes
    if share <= 0.5:
        return f"; positive: {positive}"
    return (
        f"; positive: {positive}, the majority ({share:.0%}), "
        f"unless its setting classes is [{positive}, {negative}]"
    )


def read_values(task: Task, labels: Labels, frame: pd.DataFrame) -> np.ndarray:
    """Reads the labels of a task, in the form that it encodes.

    Raises:
        BadValue: A text is no number.
    """
    forms = read_forms(task, len(labels.columns))
    return labels.values(frame, getattr(task, "classes", ()), forms)


def add_further_columns(
    found: Mapping[str, str | list[str]], settings: Mapping[str, Any]
) -> dict[str, str | list[str]]:
    """Adds the columns that a task's settings name, such as an exposure, behind its target's.

    Args:
        found: {task: its column or columns}.
        settings: {task: its kind or settings}, as the user gives them.
    """
    added: dict[str, str | list[str]] = {}
    for name, given in found.items():
        further = find_further_columns(settings.get(name, {})).values()
        columns = [given] if isinstance(given, str) else list(given)
        more = [column for column in further if column not in columns]
        added[name] = [*columns, *more] if more else given
    return added


def encode_targets(
    task: Task, labels: Labels, frame: pd.DataFrame, path: str, name: str, hint: str
) -> Tensor:
    """Encodes the labels of all rows of a file for one task.

    Args:
        task: The task.
        labels: How its labels are read.
        frame: The rows.
        path: The file, for messages.
        name: The task's name, for messages.
        hint: What a message about a missing column adds.

    Returns:
        (N,) or (N, L)

    Raises:
        UserError: A column is missing, or the task cannot have a label.
    """
    for column in labels.columns:
        if column not in frame.columns:
            near = suggest_or_list(column, frame.columns)
            raise UserError(f"{path}: lacks the target column '{column}': {near}{hint}")
    try:
        values = read_values(task, labels, frame)
        encoded = task.encode(values)
    except (BadLabel, BadValue) as error:
        row = number_row(frame, error.row)
        raise UserError(f"{path} row {row}: target '{name}' {error}") from None

    if encoded.is_floating_point() and len(far := (encoded.abs() > FARTHEST).nonzero()):
        place = tuple(far[0].tolist())
        number = values[place] if values.ndim == encoded.ndim else encoded[place].item()
        raise UserError(
            f"{path} row {number_row(frame, place[0])}: target '{name}' holds {number:g}, "
            "so far from the training labels that no loss is finite"
        )
    return encoded
