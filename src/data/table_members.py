"""The texts and images among the columns of a table, each an input of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lightning.fabric.utilities.rank_zero import rank_zero_warn

from src.data.columns import MemberColumn
from src.data.image_column import Image
from src.data.numbers import BadValue, is_texts
from src.data.reading import number_row
from src.data.texts import FEWEST, Text, fit_text
from src.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from src.data.table import Table
    from src.data.table_settings import TableSettings

VOCABULARY = 8000
MAX_TOKENS = 128
IMAGE_SIZE = 64


def check_member_settings(table: TableSettings) -> None:
    """Checks the settings of texts and images before any file is read.

    Raises:
        UserError: A setting is out of range, or a column is meant in two ways.
    """
    for name, least in (("vocabulary", FEWEST), ("max_tokens", 1), ("image_size", 1)):
        value = getattr(table, name)
        if value < least:
            why = ", since each byte is a token" if name == "vocabulary" else ""
            raise UserError(f"data.{name} is {value}; it must be at least {least}{why}")

    taken: dict[str, str] = {}
    others = {"categorical": table.categorical, "drop": table.drop}
    for use, columns in {"text": table.text, "images": table.images, **others}.items():
        for column in columns:
            before = taken.get(column)
            # a column may well be in the last two of these, and is dropped then
            if before in ("text", "images") and before != use:
                raise UserError(
                    f"data.{before} and data.{use} both name '{column}': leave out one of them"
                )
            taken[column] = use

    if table.tokenizer is not None and not table.text:
        rank_zero_warn("data.tokenizer has no effect: data.text names no column")
    elif table.tokenizer is not None and table.vocabulary != VOCABULARY:
        rank_zero_warn("data.vocabulary has no effect: data.tokenizer brings its own")
    if table.image_root is not None and not table.images:
        rank_zero_warn("data.image_root has no effect: data.images names no column")


def read_members(table: Table) -> list[MemberColumn]:
    """Learns how texts and images become inputs from the training rows of a table.

    Raises:
        UserError: A column holds something else.
    """
    train = table.main.iloc[table.rows["train"]]
    columns: list[MemberColumn] = []
    for name in table.text:
        with name_column(table, name, train):
            columns.append(read_text(table, name, train[name]))
    for name in table.images:
        column = Image(name, table.image_root or "", table.image_size, table.image_size)
        columns.append(column.fit(table.main[name], table.path, table.rows["train"]))
    return columns


def read_text(table: Table, name: str, series: pd.Series) -> Text:
    """Learns the tokenizer of a column.

    Raises:
        UserError: The column holds no texts.
    """
    if table.written[name].share == 1 or not is_texts(series):
        raise UserError("holds numbers, not texts: leave it out of data.text")
    column, note = fit_text(name, series, table.vocabulary, table.max_tokens, table.tokenizer)
    table.column_notes.append(f"column '{name}': {note}")
    return column


@contextmanager
def name_column(table: Table, name: str, train: pd.DataFrame) -> Iterator[None]:
    """Adds the file, the row and the column to the message on a column that cannot be read."""
    try:
        yield
    except BadValue as error:
        place = f"{table.path} row {number_row(train, error.row)}"
        raise UserError(f"{place}: column '{name}' {error}") from None
    except UserError as error:
        raise UserError(f"{table.path}: column '{name}' {error}") from None
