"""Groups of people that training compares: the columns of a table that tell them.

The columns are read beside the inputs, and need be none of them. Each combination of their words in
the training rows is a group. A run's schema keeps the groups, so that a later command knows their
number without the columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from src.batch import SENSITIVE
from src.data.tables.columns import to_words
from src.errors import UserError
from src.files.typed import Such
from src.tasks.labels import MISSING

if TYPE_CHECKING:
    import pandas as pd

    from src.data.tables.table import Table

MOST_GROUPS = 64  # of more groups, most have too few rows in a batch
SHOWN = 8

Words = tuple[str | None, ...]


class SensitiveRecord(TypedDict):
    """The entry of the groups in a schema."""

    columns: Annotated[list[str], Such("at least one", bool)]
    groups: Annotated[list[list[str | None]], Such("at least two", lambda found: len(found) > 1)]


@dataclass(frozen=True)
class SensitiveGroups:
    """The groups of a table's rows.

    Attributes:
        columns: The columns that tell them.
        words: The words of each group in these columns, in order; None is a missing value, which
            is a word like any other.
    """

    columns: tuple[str, ...]
    words: tuple[Words, ...]

    @classmethod
    def fit(cls, columns: Sequence[str], train: pd.DataFrame) -> SensitiveGroups:
        """Finds the groups of training rows.

        Raises:
            UserError: There is one group, or more than can be compared.
        """
        found = set(read_rows(columns, train))
        listed = ", ".join(columns)
        if len(found) < 2:
            raise UserError(
                f"data.sensitive [{listed}] makes one group of the training rows, which leaves "
                "nothing to compare: name columns with several values"
            )
        if len(found) > MOST_GROUPS:
            raise UserError(
                f"data.sensitive [{listed}] makes {len(found)} groups of the training rows, and at "
                f"most {MOST_GROUPS} can be compared: name fewer columns, or columns of a few words"
            )
        # a missing value comes last
        ordered = sorted(found, key=lambda words: [(word is None, word or "") for word in words])
        return cls(tuple(columns), tuple(ordered))

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> SensitiveGroups:
        """Returns the groups that a schema holds."""
        return cls(tuple(record["columns"]), tuple(tuple(words) for words in record["groups"]))

    def to_record(self) -> dict[str, Any]:
        """Returns the entry of the groups in a schema."""
        return {"columns": list(self.columns), "groups": [list(words) for words in self.words]}

    @property
    def names(self) -> tuple[str, ...]:
        """The groups as people say them."""
        return tuple(", ".join(word or "(missing)" for word in words) for words in self.words)

    def encode(self, frame: pd.DataFrame) -> Tensor:
        """Returns the number of each row's group (N,); ``MISSING`` where training saw no such."""
        if not set(self.columns) <= set(frame.columns):
            return torch.full((len(frame),), MISSING)
        numbers = {words: number for number, words in enumerate(self.words)}
        codes = [numbers.get(words, MISSING) for words in read_rows(self.columns, frame)]
        return torch.tensor(codes, dtype=torch.int64)


def read_rows(columns: Sequence[str], frame: pd.DataFrame) -> list[Words]:
    """Returns the words of each row in some columns, None where missing."""
    read = []
    for column in columns:
        words = to_words(frame[column])
        read.append(words.astype(object).where(words.notna(), None).tolist())
    return list(zip(*read, strict=True))


def find_groups(table: Table) -> SensitiveGroups | None:
    """Returns the groups of a table: those of its schema, or else of its training rows."""
    if table.saved is not None:
        record = table.saved.get("sensitive")
        return None if record is None else SensitiveGroups.from_record(record)
    if not table.sensitive:
        return None
    try:
        return SensitiveGroups.fit(table.sensitive, table.main.iloc[table.rows["train"]])
    except UserError as error:
        raise UserError(f"{table.path}: {error}") from None


def read_groups(table: Table, role: str, rows: np.ndarray) -> dict[str, Tensor]:
    """Returns what rides along with some rows of a file: their groups, where there are any."""
    groups = table.groups_of_rows
    if groups is None:
        return {}
    return {SENSITIVE: groups.encode(table.table_files.frame(role).iloc[rows])}


def describe_groups(table: Table) -> list[str]:
    """Returns a line on the groups of the training rows, and whether the network sees them."""
    groups = table.groups_of_rows
    if groups is None:
        return []
    codes = groups.encode(table.main.iloc[table.rows["train"]])
    counts = codes.bincount(minlength=len(groups.words)).tolist()
    pairs = sorted(zip(groups.names, counts, strict=True), key=lambda pair: -pair[1])
    shown = [f"{name} {count}" for name, count in pairs[:SHOWN]]
    if len(pairs) > SHOWN:
        shown.append(f"{len(pairs) - SHOWN} smaller ones down to {pairs[-1][1]}")

    sources = {column.source for column in table.columns}
    inputs = [column for column in groups.columns if column in sources]
    seen = "no inputs"
    if inputs:
        verb = "is an input" if len(inputs) == 1 else "are inputs"
        seen = f"{', '.join(inputs)} {verb}, too, unless data.drop or data.inputs says otherwise"
    listed = ", ".join(groups.columns)
    return [f"groups by {listed}, in training rows: {'; '.join(shown)} ({seen})"]
