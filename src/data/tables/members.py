"""The texts and images among the columns of a table, each an input of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from lightning.fabric.utilities.rank_zero import rank_zero_warn

from src.batch import Batch
from src.data.images.lazy_images import LazyImages, remove_broken
from src.data.rows import Inputs, Rows
from src.data.tables.columns import MemberColumn, name_member
from src.data.tables.image_column import Image
from src.data.tables.numbers import BadValue, is_texts
from src.data.tables.reading import number_row
from src.data.tables.texts import FEWEST, Text, fit_text
from src.errors import UserError
from src.tasks.labels import remove_rows

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from src.data.tables.settings import TableSettings
    from src.data.tables.table import Table

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


def read_members(table: Table, read: Collection[str] = ()) -> list[MemberColumn]:
    """Learns how texts and images become inputs from the training rows of a table.

    Args:
        table: The table.
        read: Columns that have an encoder already.

    Raises:
        UserError: A column holds something else.
    """
    train = table.main.iloc[table.rows["train"]]
    columns: list[MemberColumn] = []
    for name in table.text:
        if name in read:
            continue
        with name_column(table, name, train):
            columns.append(read_text(table, name, train[name]))
    for name in table.images:
        size = table.image_size
        column = place_images(table, Image(name, "", size, size))
        with name_column(table, name, train):
            columns.append(column.fit(table.main[name], table.path, table.rows["train"]))
    refuse_same_names(columns)
    return columns


def refuse_same_names(columns: list[MemberColumn]) -> None:
    """Refuses two columns whose inputs would have one name.

    Raises:
        UserError: There are two.
    """
    owners: dict[str, str] = {}
    for column in columns:
        before = owners.setdefault(name_member(column), column.column)
        if before != column.column:
            raise UserError(
                f"columns '{before}' and '{column.column}' would both be inputs named "
                f"'{name_member(column)}': rename one of them"
            )


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


def place_images(table: Table, column: Image) -> Image:
    """Returns a column of images, which are where the settings say now."""
    on_error: Literal["refuse", "skip"] = "skip" if table.skips_images else "refuse"
    return replace(column, path=table.image_root or "", on_error=on_error)


def find_images(inputs: Inputs) -> dict[str, LazyImages]:
    """Returns the images among inputs, by their keys."""
    several = inputs if isinstance(inputs, dict) else {"": inputs}
    return {key: each for key, each in several.items() if isinstance(each, LazyImages)}


def hash_image_files(inputs: Inputs) -> str:
    """Returns a hash of the names and sizes of the images of one file's rows."""
    lines = []
    for key, images in sorted(find_images(inputs).items()):
        sizes = images.sets[0].sizes.items()
        lines += [f"{key}\t{name}\t{size}" for name, size in sizes]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_images(table: Table) -> None:
    """Checks that the images are the ones that a run began with, by their names and sizes.

    Raises:
        UserError: They are not.
    """
    assert table.saved is not None
    for role, record in table.saved["files"].items():
        inputs = table.encode_inputs_of(role)
        if record.get("images", "") != hash_image_files(inputs):
            raise UserError(
                f"{table.image_root or table.path}: the images are not the ones that the run began "
                "with: names or sizes have changed; restore them, or say where they are now: "
                "--data.image_root"
            )


class RowsWithImages(Rows):
    """A split with images; where one proves broken as it is decoded, the row's labels are missing.

    So the batches are the same as without the break, on any number of devices.
    """

    def __getitem__(self, ids: Tensor) -> Batch:
        """Returns the rows ``ids``; padding repeats row 0 with all labels missing."""
        batch = super().__getitem__(ids)
        for key in find_images(self.inputs):
            images = batch.inputs[key] if isinstance(batch.inputs, dict) else batch.inputs
            broken = remove_broken(images)
            if broken is None:
                continue
            batch.targets = {name: remove_rows(y, broken) for name, y in batch.targets.items()}
            for weight in batch.weights.values():
                weight[broken] = 0
        return batch


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
