"""Checks of a table's settings: by themselves, and against the columns of its file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.fabric.utilities.rank_zero import rank_zero_warn

from src.data.folds import check_fold
from src.errors import UserError, suggest_or_list

if TYPE_CHECKING:
    import pandas as pd

    from src.data.table import Table

TEST_FRACTION = 0.15


def find_test_share(folds: int | None, fold: int, test_fraction: float) -> float:
    """Returns the share of the rows that tests: a fold of them, where there are folds.

    Raises:
        UserError: There are too few folds, or none of that number.
    """
    check_fold(folds, fold)
    if folds is None:
        return test_fraction
    if test_fraction != TEST_FRACTION:
        rank_zero_warn(f"data.test_fraction has no effect: data.folds is {folds}, and a fold tests")
    return 1 / folds


def check_settings(table: Table, targets: object) -> None:
    """Checks the settings before any file is read.

    Raises:
        UserError: A setting is out of range, or two of them contradict each other.
    """
    if isinstance(targets, str):
        raise UserError(
            f"data.targets is '{targets}', where a list of columns is expected: ['{targets}']"
        )
    # only one setting can decide the split
    ways = {"group": table.group, "split_column": table.split_column, "stratify": table.stratify}
    chosen = [f"data.{name}" for name, value in ways.items() if value]
    if len(chosen) > 1:
        raise UserError(f"{' and '.join(chosen)} cannot both say how to split")

    if table.folds is not None:
        refuse_other_test_rows(table)

    shares = {"val_fraction": table.val_fraction, "test_fraction": table.test_fraction}
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise UserError(f"data.{name} is {share}; a share lies in [0, 1)")
    if sum(shares.values()) >= 1:
        given = f"data.test_fraction {table.test_fraction}"
        if table.folds is not None:
            given = f"a test fold of data.folds {table.folds}"
        raise UserError(
            f"data.val_fraction {table.val_fraction} and {given} leave no rows to train"
        )

    if table.decimal not in (None, ".", ","):
        raise UserError(f"data.decimal is '{table.decimal}'; it must be '.' or ','")
    marks = (None, "", ".", ",", " ", "'")
    is_decimal = bool(table.thousands) and table.thousands == table.decimal
    if table.thousands not in marks or is_decimal:
        raise UserError(
            f"data.thousands is '{table.thousands}'; it must be ',', '.', a space or an apostrophe"
        )


def refuse_other_test_rows(table: Table) -> None:
    """Refuses settings that say which rows test, where folds do.

    Raises:
        UserError: There is one.
    """
    if table.split_column:
        raise UserError(
            f"data.folds and data.split_column cannot both say which rows test: leave out "
            f"data.split_column {table.split_column}, or data.folds"
        )
    if table.test_path:
        raise UserError(
            "data.folds cuts the rows of data.path, but data.test_path names the rows that test: "
            "leave out one of them; for folds over all rows put both files into one"
        )


def check_columns(table: Table, frame: pd.DataFrame) -> None:
    """Checks that the columns that settings name are in the file.

    Raises:
        UserError: One is not, or a column is an input and a target.
    """
    labels = {column for columns in table.targets.values() for column in columns}
    named = {
        "inputs": table.inputs or [],
        "drop": table.drop,
        "categorical": table.categorical,
        "id": [table.id] if table.id else [],
        "group": [table.group] if table.group else [],
        "stratify": table.stratify,
        "split_column": [table.split_column] if table.split_column else [],
        "targets": sorted(labels),
    }
    for name, columns in named.items():
        for column in columns:
            if column not in frame.columns:
                hint = suggest_or_list(column, frame.columns)
                raise UserError(
                    f"{table.path}: data.{name} names '{column}', which is no column: {hint}"
                )
    # a target among the inputs would be predicted from itself
    both = labels & set(table.inputs or [])
    if both:
        raise UserError(
            f"data.inputs names '{min(both)}', which is a target: a column cannot be both"
        )
