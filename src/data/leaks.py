"""What a person would look at twice before training on a table: quick notes, none of which stops a run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import torch

from src.data.columns import Numeric, to_words
from src.data.dates import date_formats, is_typed_date
from src.data.numbers import BadValue, NumberFormat, typed_numbers

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from src.data.table import Table

MOST_ROWS = 4000  # rows of each side that are looked at
MOST_PAIRS = 20_000  # of an input and a target
BINS = 100
ALMOST = 0.99
MOST_CLASSES = 20  # of a task whose classes are looked at one by one
FEWEST = 5  # labels that tell anything
GROUPS = (
    *(
        "id",
        "uid",
        "uuid",
        "nr",
        "key",
        "patient",
        "subject",
        "person",
        "participant",
        "user",
        "customer",
        "client",
        "member",
    ),
    *(
        "session",
        "visit",
        "site",
        "hospital",
        "clinic",
        "center",
        "centre",
        "batch",
        "plate",
        "well",
        "donor",
        "family",
    ),
    *("household", "group", "scaffold", "device", "machine", "store", "shop"),
)
NAMES_OF_GROUPS = (
    rf"(?i)(^|[_ .-])({'|'.join(GROUPS)})($|[_ .-]|id$)"  # no plurals: visits are counted
)
CODES = (
    -1.0,
    -9.0,
    -99.0,
    -999.0,
    -9999.0,
    -99999.0,
    -88.0,
    -77.0,
    99.0,
    999.0,
    9999.0,
    99999.0,
    999999.0,
)


def suspicions(table: Table) -> list[str]:
    """Returns a line for each thing that often is a leak or a mistake."""
    return [
        *same_files(table),
        *repeated_rows(table),
        *telling_inputs(table),
        *identifiers(table),
        *codes_for_missing(table),
        *odd_shares(table),
        *hidden_groups(table),
        *empty_classes(table),
    ]


# -- rows ------------------------------------------------------------------------------------------
def same_files(table: Table) -> list[str]:
    """Looks whether one file is given for two splits."""
    content: dict[str, str] = {}
    notes = []
    for role, record in table.table_files.records.items():
        before = content.setdefault(record["sha256"], role)
        if before != role:
            notes.append(
                f"note: the {before} and the {role} file are the same: its scores say nothing about new rows"
            )
    return notes


def repeated_rows(table: Table) -> list[str]:
    """Looks for validation and test rows that stand in training, too, but for columns that name or number the rows."""
    numbering = {table.id, *table.dropped, *row_numbers(table)}
    columns = [str(name) for name in table.main.columns if name not in numbering]
    if not set(columns) - {column for columns_ in table.targets.values() for column in columns_}:
        return []
    hashes = {
        role: hashes_of(table.table_files.frame(role)[columns]) for role in table.table_files.paths
    }
    trained = hashes["train"][table.rows["train"]]
    notes = []
    for name in ("val", "test"):
        parts = [hashes["train"][table.rows[name]], *([hashes[name]] if name in hashes else [])]
        rows = np.concatenate(parts)
        again = int(np.isin(rows, trained).sum())
        if again:
            share = f"{again} of {len(rows)} {name} rows ({again / len(rows):.0%})"
            notes.append(
                f"note: {share} are copies of training rows, which makes scores look better: drop them, or name the column of what "
                "they belong to: --data.group"
            )
    return notes


def hashes_of(frame: pd.DataFrame) -> np.ndarray:
    """A hash of each row as it is written, (N,)."""
    import pandas as pd

    return pd.util.hash_pandas_object(frame.apply(to_words), index=False).to_numpy()


# -- inputs that know the answer -------------------------------------------------------------------
def telling_inputs(table: Table) -> list[str]:
    """Looks for single inputs that predict validation labels almost perfectly, by what their bins hold in training."""
    rows, checks = some_rows(table, "train"), some_rows(table, "val")
    labels = label_columns(table)
    if not len(checks) or not labels or len(labels) * len(table.columns) > MOST_PAIRS:
        return []
    names = [name for name, _ in labels]
    values = np.stack([column for _, column in labels], 1)
    numbers = np.array([table.labels[name].classes is False for name in names])
    found: dict[str, list[str]] = {}
    for source, (train, check) in input_codes(table, rows, checks).items():
        told = np.zeros(len(names), dtype=bool)
        told[numbers] = (
            r2_of_bins(train, check, values[rows][:, numbers], values[checks][:, numbers]) >= ALMOST
        )
        recall = recall_of_bins(
            train, check, values[rows][:, ~numbers], values[checks][:, ~numbers]
        )
        told[~numbers] = recall >= ALMOST
        names_told = list(dict.fromkeys(name for name, yes in zip(names, told, strict=True) if yes))
        # of a task with several classes each class stands for itself: all of them must be told
        found[source] = [
            name for name in names_told if all(told[i] for i, n in enumerate(names) if n == name)
        ]
    notes = []
    for source, told_names in found.items():
        if told_names:
            what = ", ".join(told_names[:3]) + (
                f" and {len(told_names) - 3} more" if len(told_names) > 3 else ""
            )
            notes.append(
                f"note: '{source}' alone tells {what} almost without fail: is it known before the label is? "
                f"--data.drop '[{source}]' leaves it out"
            )
    return notes


def label_columns(table: Table) -> list[tuple[str, np.ndarray]]:
    """The labels of tasks with one column as numbers with NaN where missing: (name, (N,)), of several classes a column for each."""
    columns = []
    for name in table.tasks:
        found = scalar_labels(table, name)
        if found is None:
            continue
        kind, values = found
        classes = np.unique(values[~np.isnan(values)])
        if kind == "number" or len(classes) <= 2:
            columns.append((name, values))
        elif len(classes) <= MOST_CLASSES:
            columns += [
                (name, np.where(np.isnan(values), np.nan, values == label)) for label in classes
            ]
    return columns


def r2_of_bins(
    train: np.ndarray, check: np.ndarray, labels: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """R2 of the means of bins on the rows to check, (T,); 0 where labels are too few or all the same.

    Args:
        train: (N,) bins of the training rows.
        check: (M,) bins of the rows to check.
        labels: (N, T) labels of the training rows, NaN where missing.
        wanted: (M, T) labels of the rows to check.
    """
    known = ~np.isnan(wanted)
    means = of_bins(train, check, labels)
    enough = (known.sum(0) >= FEWEST) & ((~np.isnan(labels)).sum(0) >= 2 * FEWEST)
    wanted = np.where(known, wanted, 0)
    middle = wanted.sum(0) / np.maximum(known.sum(0), 1)
    spread = (np.where(known, wanted - middle, 0) ** 2).sum(0)
    errors = (np.where(known, wanted - means, 0) ** 2).sum(0)
    return np.where(enough & (spread > 0), 1 - errors / np.where(spread > 0, spread, 1), 0.0)


def recall_of_bins(
    train: np.ndarray, check: np.ndarray, labels: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """The mean recall of 0 and 1 on the rows to check, (T,), where a bin means the class that it holds more of than its share.

    Args:
        train: (N,) bins of the training rows.
        check: (M,) bins of the rows to check.
        labels: (N, T) labels of the training rows, 0 or 1, NaN where missing.
        wanted: (M, T) labels of the rows to check.
    """
    guess = of_bins(train, check, labels) > np.nan_to_num(safe_mean(labels))
    enough = (~np.isnan(labels)).sum(0) >= 2 * FEWEST
    recalls = []
    for label in (0, 1):
        there = wanted == label
        hit = (guess == label) & there
        recalls.append(np.where(there.any(0), hit.sum(0) / np.maximum(there.sum(0), 1), 0.0))
    return np.where(enough, (recalls[0] + recalls[1]) / 2, 0.0)


def of_bins(train: np.ndarray, check: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean label of the bin of each row to check, (M, T); of empty bins the mean of all rows."""
    size = int(max(train.max(initial=0), check.max(initial=0))) + 1
    place = torch.from_numpy(train)
    known = torch.from_numpy(~np.isnan(labels))
    values = torch.from_numpy(np.nan_to_num(labels))
    sums = torch.zeros(size, labels.shape[1], dtype=torch.float64).index_add_(0, place, values)
    counts = torch.zeros_like(sums).index_add_(0, place, known.double())
    means = np.where(counts > 0, sums / counts.clamp(min=1), np.nan_to_num(safe_mean(labels)))
    return np.asarray(means[check])


def safe_mean(labels: np.ndarray) -> np.ndarray:
    """The mean of known labels, (T,); NaN where there are none."""
    known = ~np.isnan(labels)
    return np.where(known.any(0), np.nansum(labels, 0) / np.maximum(known.sum(0), 1), np.nan)


def some_rows(table: Table, name: str) -> np.ndarray:
    """Some of the rows of a side, evenly spread."""
    rows = table.rows[name]
    return (
        rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_ROWS)).astype(int)]
        if len(rows)
        else rows
    )


def scalar_labels(table: Table, name: str) -> tuple[str, np.ndarray] | None:
    """The labels of a task with one column: 'class' or 'number', and (N,) float64 with NaN where missing."""
    if not table.single[name]:
        return None
    targets = table.encoded_targets("train", name)
    if targets.ndim != 1:
        return None
    if not targets.is_floating_point():
        return "class", np.where(targets.numpy() < 0, np.nan, targets.numpy().astype(float))
    return ("class" if table.labels[name].classes else "number"), targets.double().numpy()


def input_codes(
    table: Table, rows: np.ndarray, checks: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The inputs as integers, numbers by the quantiles of the training rows: {column: (training rows, validation rows)}."""
    encoded = table.encoded_inputs("train")
    dense, place, found = encoded["dense"].numpy(), 0, {}
    categorical = iter(encoded["categorical"].numpy().T)
    for column in table.columns:
        if isinstance(column, Numeric):
            values = dense[:, place]
            place += 1 + column.indicator
            edges = np.unique(np.quantile(values[rows], np.linspace(0, 1, BINS + 1)[1:-1]))
            bins = np.searchsorted(edges, values, side="right")
            if len(np.unique(values[rows])) <= BINS:
                bins = np.unique(values, return_inverse=True)[1]
            found[column.column] = (bins[rows], bins[checks])
        else:
            codes = next(categorical)
            if len(np.unique(codes[rows])) <= len(rows) / 2:
                found[column.column] = (codes[rows], codes[checks])
    return found


# -- identifiers and codes -------------------------------------------------------------------------
def identifiers(table: Table) -> list[str]:
    """Looks for inputs of whole numbers that seem to number the rows."""
    found = row_numbers(table)
    if not found:
        return []
    names = ", ".join(found)
    return [
        f"note: {names}: another whole number in each row, as identifiers are: --data.drop '[{names}]' leaves them out"
    ]


def row_numbers(table: Table) -> list[str]:
    """The inputs with another whole number in each row that has one, and by their order, density or name no measurements."""
    found = []
    for column, numbers in numeric_inputs(table):
        known = numbers[~np.isnan(numbers)]
        if (
            len(known) < 20
            or (known != np.floor(known)).any()
            or len(np.unique(known)) < len(known)
        ):
            continue
        steps = np.diff(known)
        step = (
            np.gcd.reduce(steps.astype(np.int64)) if np.abs(known).max() < 2**53 else 1
        )  # 10, 40, 30 are as 1, 4, 3
        dense = known.max() - known.min() < 2 * len(known) * step
        if dense or (steps > 0).all() or (steps < 0).all() or re.search(NAMES_OF_GROUPS, column):
            found.append(column)
    return found


def codes_for_missing(table: Table) -> list[str]:
    """Looks for numbers such as -999 that stand far from all others and repeat."""
    notes = []
    for column, numbers in numeric_inputs(table):
        values, counts = np.unique(numbers[~np.isnan(numbers)], return_counts=True)
        if len(values) < 4:
            continue
        for end, rest in ((0, values[1:]), (-1, values[:-1])):
            code, times = values[end], counts[end]
            gap = min(abs(code - rest[0]), abs(code - rest[-1]))
            huge = abs(code) >= 1e30
            if (code in CODES and times >= 2 and gap > rest[-1] - rest[0]) or huge:
                notes.append(
                    f"note: '{column}' holds {code:g} in {times} rows, far from all else: if it means a missing value, "
                    f"set --data.missing '[{code:g}]'"
                )
    return notes


def numeric_inputs(table: Table) -> list[tuple[str, np.ndarray]]:
    """The inputs that are numbers, and not parts of dates, with the numbers of all rows."""
    columns = [
        c for c in table.columns if isinstance(c, Numeric) and isinstance(c.reads, NumberFormat)
    ]
    return [(column.column, column.reads.numbers(table.main[column.source])) for column in columns]


# -- splits ----------------------------------------------------------------------------------------
def odd_shares(table: Table) -> list[str]:
    """Looks whether a split by few groups is far from the shares that were asked for."""
    if not table.group:
        return []
    rows = len(table.main)
    asked = {"val": table.val_fraction, "test": table.test_fraction}
    got = {
        name: len(table.rows[name]) / rows for name in asked if name not in table.table_files.paths
    }
    far = {
        name: share
        for name, share in got.items()
        if abs(share - asked[name]) > max(0.05, asked[name] / 3)
    }
    if not far:
        return []
    shares = " and ".join(
        f"{share:.0%} {name} rows, {asked[name]:.0%} asked for" for name, share in far.items()
    )
    groups = table.main[table.group].nunique()
    return [f"note: {shares}: '{table.group}' has {groups} groups, which cannot be cut"]


def hidden_groups(table: Table) -> list[str]:
    """Looks for columns whose values several rows share, as rows of one patient or site do, where the split is at random."""
    if table.group or table.split_column or len(table.table_files.paths) == 3:
        return []
    labels = {
        name: values for name in table.tasks if (values := scalar_labels(table, name)) is not None
    }
    targets = {column for columns in table.targets.values() for column in columns}
    found = []
    for name in map(str, table.main.columns):
        series = table.main[name]
        distinct, known = series.nunique(), int(series.notna().sum())
        if (
            name in targets
            or not 3 <= distinct <= known / 1.5
            or is_typed_date(series)
            or date_formats(series)
        ):
            continue
        named = re.search(NAMES_OF_GROUPS, name) is not None and distinct >= min(5, known / 2)
        many = distinct >= 10 and known / distinct <= 100
        if named or (
            many
            and (
                are_labels(table, name)
                or any(keeps_apart(*codes(table, name), y) for _, y in labels.values())
            )
        ):
            found.append(name)
    if not found:
        return []
    names = ", ".join(f"'{name}'" for name in found[:5]) + (" ..." if len(found) > 5 else "")
    return [
        f"note: rows of train and test share values of {names}: if these name patients, sites or the like, a random split makes "
        f"scores look better than they will be on new ones: --data.group {found[0]}"
    ]


def are_labels(table: Table, name: str) -> bool:
    """Whether a column holds words such as P07 and site-12, which number things."""
    series = table.main[name]
    if typed_numbers(series) is not None or table.written[name].share == 1:
        return False
    words = to_words(series).dropna().drop_duplicates()
    return bool(words.str.fullmatch(r"[A-Za-z]{1,12}[-_. #]?\d{1,12}").mean() > 0.9)


def codes(table: Table, name: str) -> tuple[np.ndarray, bool]:
    """The values of a column as integers (N,), -1 where missing, and whether their order means anything: that of numbers does."""
    import pandas as pd

    series, how = table.main[name], table.written[name]
    if typed_numbers(series) is not None or how.share == 1:
        try:
            numbers = (how.format or NumberFormat()).numbers(series)
        except BadValue:
            numbers = np.full(len(series), np.nan)
        found = np.unique(numbers, return_inverse=True)[1]
        return np.where(np.isnan(numbers), -1, found), True
    return pd.factorize(to_words(series))[0], False


def keeps_apart(values: np.ndarray, ordered: bool, labels: np.ndarray) -> bool:
    """Whether rows with the same value have alike labels, and rows with the next values have not, as with names of groups.

    Args:
        values: (N,) integers, -1 where missing.
        ordered: Whether there are next values.
        labels: (N,) labels, NaN where missing.
    """
    known = (values >= 0) & ~np.isnan(labels)
    if known.sum() < 30:
        return False
    places, values = np.unique(values[known], return_inverse=True)
    y = labels[known] - labels[known].mean()
    sums, counts = np.bincount(values, y), np.bincount(values)
    several = counts[values] > 1
    if len(places) < 10 or several.sum() < 30 or not (y[several] ** 2).any():
        return False
    # what the other rows with the same value say, against what the rows with the two next values
    # say
    same = (sums[values] - y) / np.maximum(counts[values] - 1, 1)
    spread = (y[several] ** 2).mean()
    of_same = ((y - same)[several] ** 2).mean() / spread
    if not ordered:
        return bool(of_same < 0.6)
    before, after = np.clip(values - 1, 0, None), np.clip(values + 1, None, len(places) - 1)
    around = (sums[before] + sums[after]) / (counts[before] + counts[after])
    of_next = ((y - around)[several] ** 2).mean() / spread
    return bool(of_same < 0.6 and of_next > max(2 * of_same, 0.3))


def empty_classes(table: Table) -> list[str]:
    """Looks for classes that no validation or no test row has, though there are rows enough, so that scores are not defined."""
    notes = []
    at_random = not (table.group or table.split_column or len(table.table_files.paths) > 1)
    for side in ("val", "test"):
        lacking: dict[str, list[str]] = {}
        targets = table.split(side).targets
        for name, task in table.tasks.items():
            classes = getattr(task, "classes", ())
            if not classes or not table.single[name]:
                continue
            counts = class_counts(table.encoded_targets("train", name), len(classes))
            there = class_counts(targets[name], len(classes))
            found = [
                str(label) for i, label in enumerate(classes) if not there[i] and counts[i] >= 3
            ]
            if found:
                lacking[name] = found
        if lacking:
            name = next(iter(lacking))
            others = len(lacking) - 1
            more = (
                f" (nor of classes of {others} other task{'s' if others > 1 else ''})"
                if others
                else ""
            )
            notes.append(
                f"note: no {side} row of '{name}' is of {', '.join(lacking[name][:5])}{more}: some scores are not defined"
                + (
                    f"; --data.stratify '[{table.targets[name][0]}]' deals classes out in proportion"
                    if at_random
                    else ""
                )
            )
    return notes


def class_counts(targets: Tensor, classes: int) -> np.ndarray:
    """The number of labels of each class, (classes,)."""
    numbers = targets.double().nan_to_num(-1).numpy().astype(int)
    return np.bincount(numbers[numbers >= 0], minlength=classes)
