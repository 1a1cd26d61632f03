"""Reads a table as the run did that its model starts from.

Columns are matched by name. A column that both have is read as the run read it, with the run's mean
and spread, or with its words and the new ones behind them. So a network that knows the run's
inputs reads these.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from src.data.tables.columns import (
    Categorical,
    Column,
    MemberColumn,
    Numeric,
    find_positions,
    from_plain,
    name_kind,
    to_words,
)
from src.data.tables.numbers import BadValue
from src.data.tables.reading import number_row
from src.data.tables.record import list_sources, read_schema
from src.data.tables.texts import Text
from src.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from src.data.tables.table import Table


SCALE = ("mean", "std")  # of standardised inputs


@dataclass(frozen=True)
class Carried:
    """The schema of a run, as far as another run takes it over.

    Attributes:
        source: The run, for messages.
        columns: How its input columns were read.
        tasks: {task: its description}.
        targets: Its columns of labels, which are inputs of no run that starts from it, unless they
            are named.
    """

    source: str
    columns: tuple[Column, ...]
    tasks: Mapping[str, Mapping[str, Any]]
    targets: frozenset[str]

    @classmethod
    def read(
        cls, schema: str, source: str, kinds: Sequence[type[Column]], of: str | None = None
    ) -> Carried:
        """Reads the schema of a run.

        Args:
            schema: The file.
            source: The run, for messages.
            kinds: The kinds of column that the table knows.
            of: The one whose schema is taken, of a run on several sources; None takes the columns
                of the first, and the tasks of all.

        Raises:
            UserError: It is damaged, or of other data.
        """
        names: list[str | None] = [of] if of is not None else [*list_sources(schema)] or [None]
        schemas = [read_schema(schema, kinds, name) for name in names]
        columns = tuple(from_plain(values, kinds) for values in schemas[0]["inputs"])
        tasks: dict[str, Mapping[str, Any]] = {}
        labels: set[str] = set()
        for saved in schemas:
            for name, record in saved["tasks"].items():
                tasks[name] = record["task"]
                labels.update(record["labels"]["columns"])
        read = {column.source for column in columns}
        return cls(source, columns, tasks, frozenset(labels - read))

    def drop_targets(self, names: Collection[str]) -> dict[str, str]:
        """Returns {column: why it is no input} of the columns that hold labels of the run."""
        why = f"a target of {self.source}: --data.inputs reads it"
        return {name: why for name in names if name in self.targets}


def keep_columns(table: Table, candidates: Collection[str]) -> list[Column]:
    """Returns the columns that are read as the run read them, in its order.

    Args:
        table: The table, of a new run.
        candidates: Columns that may be inputs.

    Raises:
        UserError: A column holds what the run's cannot hold.
    """
    if table.carried is None:
        return []
    train = table.main.iloc[table.rows["train"]]
    kept = [
        column
        for column in table.carried.columns
        if column.source in candidates and reads_alike(table, column)
    ]
    found = []
    for column in kept:
        try:
            found.append(extend(column, train[column.source]))
        except BadValue as error:
            place = f"{table.path} row {number_row(train, error.row)}"
            raise UserError(
                f"{place}: column '{column.source}' {error}; {table.carried.source} read it as a "
                f"{name_kind(type(column))} column: set --init_from.normalisation new, or "
                f"--data.drop '[{column.source}]'"
            ) from None
    return found


def reads_alike(table: Table, column: Column) -> bool:
    """Returns whether the settings let a column be read as the run read it."""
    name = column.source
    if isinstance(column, MemberColumn):
        # an image is found where it lies now, see ``carry_images``
        return isinstance(column, Text) and name in table.text
    if name in (*table.text, *table.images):
        return False
    return isinstance(column, Categorical) or name not in table.categorical


def extend(column: Column, series: pd.Series) -> Column:
    """Returns a column that knows the words of further rows, too, behind its own.

    Raises:
        BadValue: A value is none of a column of this kind.
    """
    if isinstance(column, Numeric):
        column.encode(series)
    if not isinstance(column, Categorical):
        return column
    words = to_words(series)
    unknown = words[find_positions(words, column.vocabulary) < 0]
    new: list[str | None] = sorted(unknown.dropna().unique().tolist())
    if unknown.isna().any():
        new.append(None)
    return replace(column, vocabulary=(*column.vocabulary, *new))


def carry_statistics(carried: Carried | None, columns: list[Column]) -> list[Column]:
    """Returns columns whose inputs, such as pixels, have the mean and spread that the run had.

    Inputs are matched by name, or as the only one of each.
    """
    if carried is None:
        return columns
    before = list_standardised(carried.columns)
    here = list_standardised(columns)
    if len(before) == len(here) == 1:
        before = dict(zip(here, before.values(), strict=True))
    found: list[Column] = []
    for column in columns:
        known = before.get(column.column)
        if column.column in here and type(known) is type(column):
            scale = {key: getattr(known, key) for key in SCALE}
            if len(scale["mean"]) == len(getattr(column, "mean", ())):
                column = replace(column, **scale)
        found.append(column)
    return found


def list_standardised(columns: Sequence[Column]) -> dict[str, MemberColumn]:
    """Returns the columns that are an input of their own and standardise it, by name."""
    return {c.column: c for c in columns if isinstance(c, MemberColumn) and hasattr(c, "mean")}


def describe_carried(carried: Carried, columns: Sequence[Column]) -> str:
    """Says which columns are read as in the run, which are new and which are gone."""
    before = {column.column: column for column in carried.columns}
    kept = [c for c in columns if type(before.get(c.column)) is type(c)]
    names = {column.column for column in columns}
    new = [c.column for c in columns if c.column not in before or c not in kept]
    gone = [name for name in before if name not in names]
    words = [
        f"{c.column} ({', '.join(map(str, c.vocabulary[len(b.vocabulary) :][:6]))})"
        for c in kept
        if isinstance(c, Categorical)
        and isinstance(b := before[c.column], Categorical)
        and len(c.vocabulary) > len(b.vocabulary)
    ]
    parts = [f"{len(kept)} columns are read as {carried.source} read them"]
    parts += [f"new: {', '.join(new)}"] if new else []
    parts += [f"gone: {', '.join(gone)}"] if gone else []
    parts += [f"with new words: {'; '.join(words)}"] if words else []
    return "; ".join(parts)
