"""The settings of a table, checked by themselves and against the columns of its file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lightning.fabric.utilities.rank_zero import rank_zero_warn

from src.data.datamodule import MultiTaskDataModule
from src.data.folds import check_fold
from src.data.kinds import find_further_columns
from src.data.tables.columns import Categorical, Column, Numeric
from src.data.tables.file_format import FileFormat
from src.data.tables.image_column import Image
from src.data.tables.members import (
    IMAGE_SIZE,
    MAX_TOKENS,
    VOCABULARY,
    check_member_settings,
)
from src.data.tables.record import read_schema
from src.data.tables.row_weights import name_settings
from src.data.tables.targets import find_columns_of_tasks, is_pattern, refuse_unknown_settings
from src.data.tables.texts import Text
from src.errors import UserError, suggest_or_list

if TYPE_CHECKING:
    import pandas as pd

    from src.data.tables.carried import Carried
    from src.data.tables.table import Table

TEST_FRACTION = 0.15


class TableSettings(MultiTaskDataModule):
    """The settings of a table.

    Args:
        path: A .csv, .tsv, .parquet or .arff file.
        targets: Columns to predict: a list, or {task: column or columns}. Several columns form one
            task (multi-label if they hold 0 and 1, else a vector regression). A name may be a
            pattern, such as Class*.
        tasks: {task: its kind or settings}: the name of a kind (Regression), settings
            ({weight: 2}), or both ({class_path: Regression, init_args: {loss: huber}}); a Task
            object from Python.
        inputs: Columns to learn from; None for all that no other setting names.
        drop: Columns that must not be inputs.
        categorical: Columns to read as categories, whatever they look like.
        dates: What to do with columns of dates: refuse them, or expand them into year, month, day,
            weekday and hour.
        date_format: How dates are written, such as %d/%m/%Y, where their columns do not tell.
        text: Columns of text, each an input of its own: tokens.
        tokenizer: A tokenizer for them: a folder with tokenizer.json, or a model on the hub; None
            to learn one for each column from the training rows.
        vocabulary: Most tokens of a tokenizer that is learnt.
        max_tokens: Tokens of a longer text that are kept, from the first.
        images: Columns that name image files, each an input of its own.
        image_root: Folder or .zip file of the images; None for the folder of the table.
        image_size: Height and width that images are brought to, in pixels.
        on_error: What an image does that is missing or broken: refuse ends the run with its row,
            skip leaves the row out, and names it.
        missing: Words and numbers that mean that a value is missing, besides the usual ones.
        missing_defaults: Whether the usual ones mean it: an empty cell, ?, NA, NaN, null, None ...
        decimal: The mark before decimals; None to find it in the training rows.
        thousands: The mark between thousands; None to find it in the training rows.
        format: csv, tsv, parquet or arff; None for what the file's name says.
        delimiter: The mark between the columns of a text file, or 'spaces'; None for a comma, or a
            tab in .tsv files.
        names: Names of the columns of a text file without a header.
        row_weight: Column with the weights of rows, numbers from 0, in the losses and metrics of
            all tasks; one task has its own with tasks.<task>.row_weight. It is no input.
        sensitive: Columns of people's groups, such as sex, which model.fairness compares; each
            combination of their words is a group. They stay inputs unless drop names them.
        id: Column that names the rows in predictions.
        group: Column of groups that must stay on one side of the split.
        stratify: Columns whose values all sides of a random split have in proportion.
        split_column: Column that says train, val or test.
        time: Column of dates or numbers by which rows are split: the earliest train, the latest
            test. It is no input.
        keep_copies_together: Whether rows that are copies of one another, but for a number or name
            of their own, stay on one side of a random split.
        val_path: File of validation rows; otherwise they are split off.
        test_path: File of test rows; otherwise they are split off.
        val_fraction: Share of the rows that validates.
        test_fraction: Share of the rows that tests.
        folds: Number of folds; one of them tests, and test_fraction has no effect. Folds keep
            groups whole, and strata in proportion.
        fold: The fold that tests, from 0.
        split_seed: Seed of the split. It is not the run's seed, so that runs with several seeds are
            tested on the same rows.
        schema_path: A run's schema.json, whose columns are read as that run read them.
        batch_size: Rows per step over all devices together.
        eval_batch_size: Rows per evaluation step over all devices.
        num_workers: Processes that prepare batches; 0 is fastest for data in memory.
        seed: Seed of the order of training batches.

    Attributes:
        column_kinds: The kinds of input columns that the schema of a run may hold.
        dropped: {column: why it is no input}; filled when the columns are read.
        column_notes: What a person should know of how columns and rows were read, one line each.
    """

    can_fold = True
    column_kinds: ClassVar[tuple[type[Column], ...]] = (Numeric, Categorical, Text, Image)

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
        text: list[str] | None = None,
        tokenizer: str | None = None,
        vocabulary: int = VOCABULARY,
        max_tokens: int = MAX_TOKENS,
        images: list[str] | None = None,
        image_root: str | None = None,
        image_size: int = IMAGE_SIZE,
        on_error: Literal["refuse", "skip"] = "refuse",
        missing: list[str] | None = None,
        missing_defaults: bool = True,
        decimal: str | None = None,
        thousands: str | None = None,
        format: str | None = None,
        delimiter: str | None = None,
        names: list[str] | None = None,
        row_weight: str | None = None,
        sensitive: list[str] | None = None,
        id: str | None = None,
        group: str | None = None,
        stratify: list[str] | None = None,
        split_column: str | None = None,
        time: str | None = None,
        keep_copies_together: bool = False,
        val_path: str | None = None,
        test_path: str | None = None,
        val_fraction: float = 0.15,
        test_fraction: float = TEST_FRACTION,
        folds: int | None = None,
        fold: int = 0,
        split_seed: int = 0,
        schema_path: str | None = None,
        batch_size: int = 256,
        eval_batch_size: int = 4096,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed)
        words = tuple(str(word) for word in missing or ())
        columns = tuple(names) if names else None
        self.layout = FileFormat(format, delimiter, columns, words, missing_defaults)
        self.path = path
        self.val_path = val_path
        self.test_path = test_path
        self.settings = tasks or {}

        # how columns are read
        self.inputs = inputs
        self.drop = drop or []
        self.categorical = categorical or []
        self.dates = dates
        self.date_format = date_format
        self.decimal = decimal
        self.thousands = thousands
        self.text = text or []
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        self.max_tokens = max_tokens
        self.images = images or []
        self.image_root = image_root
        self.image_size = image_size
        self.skips_images = on_error == "skip"

        self.row_weight = row_weight
        self.sensitive = list(dict.fromkeys(sensitive or []))

        # how rows are split
        self.id = id
        self.group = group
        self.stratify = stratify or []
        self.split_column = split_column
        self.time = time
        self.keep_copies_together = keep_copies_together
        self.val_fraction = val_fraction
        self.folds = folds
        self.fold = fold
        self.test_fraction = find_test_share(folds, fold, test_fraction)
        self.split_seed = split_seed
        check_settings(self, targets)
        check_member_settings(self)

        self.saved = None if schema_path is None else read_schema(schema_path, self.column_kinds)
        if self.saved is None and not targets:
            raise UserError(
                "data.targets is missing: "
                "name the columns to predict, such as --data.targets '[income, hours]'"
            )
        self.targets_given = targets or {}
        if self.saved is None and not any(map(is_pattern, self.targets_given)):
            # impossible names are refused before a file is read
            refuse_unknown_settings(self.settings, find_columns_of_tasks(self.targets_given, None))

        # of the run that the model starts from
        self.carried: Carried | None = None
        self.dropped: dict[str, str] = {}
        self.column_notes: list[str] = []


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


def check_settings(table: TableSettings, targets: object) -> None:
    """Checks the settings before any file is read.

    Raises:
        UserError: A setting is out of range, or two of them contradict each other.
    """
    if isinstance(targets, str):
        raise UserError(
            f"data.targets is '{targets}', where a list of columns is expected: ['{targets}']"
        )
    # only one setting can decide the split
    names = ("group", "split_column", "stratify", "time", "keep_copies_together")
    ways = {name: getattr(table, name) for name in names}
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


def refuse_other_test_rows(table: TableSettings) -> None:
    """Refuses settings that say which rows test, where folds do.

    Raises:
        UserError: There is one.
    """
    if table.split_column:
        raise UserError(
            f"data.folds and data.split_column cannot both say which rows test: leave out "
            f"data.split_column {table.split_column}, or data.folds"
        )
    if table.time:
        raise UserError(
            f"data.folds and data.time cannot both say which rows test: leave out data.time "
            f"{table.time}, or data.folds"
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
        "text": table.text,
        "images": table.images,
        "sensitive": table.sensitive,
        "id": [table.id] if table.id else [],
        "group": [table.group] if table.group else [],
        "stratify": table.stratify,
        "split_column": [table.split_column] if table.split_column else [],
        "time": [table.time] if table.time else [],
    }
    further: set[str] = set()
    for task in table.targets:
        for key, column in find_further_columns(table.settings.get(task, {})).items():
            named[f"tasks.{task}.{key}"] = [column]
            further.add(column)
    named["targets"] = sorted(labels - further)
    named |= name_settings(table, table.settings)
    for name, columns in named.items():
        for column in columns:
            if column not in frame.columns:
                hint = suggest_or_list(column, frame.columns)
                raise UserError(
                    f"{table.path}: data.{name} names '{column}', which is no column: {hint}"
                )
    # a target among the inputs would be predicted from itself
    for name in ("inputs", "text", "images"):
        both = labels & set(named[name])
        if both:
            raise UserError(
                f"data.{name} names '{min(both)}', which is a target: a column cannot be both"
            )
    weights: set[str] = set()
    for named_columns in name_settings(table, table.settings).values():
        weights.update(named_columns)
    for role, others in (("inputs", set(table.inputs or [])), ("targets", labels)):
        for column in sorted(weights & others):
            raise UserError(
                f"data.{role} names '{column}', which holds weights of rows, and cannot be both"
            )
