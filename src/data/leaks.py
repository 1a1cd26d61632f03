"""What a person would look at twice before training on a table: quick notes, none of which stops a run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from src.data.columns import Numeric
from src.data.dates import date_formats, is_typed_date
from src.data.numbers import BadValue, NumberFormat, typed_numbers
from src.data.record import fingerprint, row_hashes

if TYPE_CHECKING:
    from torch import Tensor

    from src.data.datamodule import Split
    from src.data.table import Table

MOST_ROWS = 4000  # rows of each side that are looked at
MOST_PAIRS = 20_000  # of an input and a target
BINS = 100
ALMOST = 0.99
GROUPS = (
    *("id", "uid", "uuid", "nr", "key", "patient", "subject", "person", "participant", "user", "customer", "client", "member"),
    *("session", "visit", "site", "hospital", "clinic", "center", "centre", "batch", "plate", "well", "donor", "family"),
    *("household", "group", "scaffold", "device", "machine", "store", "shop"),
)
NAMES_OF_GROUPS = rf"(?i)(^|[_ .-])({'|'.join(GROUPS)})s?($|[_ .-]|id$)"
CODES = (-1.0, -9.0, -99.0, -999.0, -9999.0, -99999.0, -88.0, -77.0, 99.0, 999.0, 9999.0, 99999.0, 999999.0)


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
    for role, path in table.table_files.paths.items():
        before = content.setdefault(fingerprint(path)["sha256"], role)
        if before != role:
            notes.append(f"note: the {before} and the {role} file are the same: its scores say nothing about new rows")
    return notes


def repeated_rows(table: Table) -> list[str]:
    """Looks for validation and test rows whose inputs stand in training, too."""
    trained = row_hashes(tensors_of(table, "train"))
    notes = []
    for name in ("val", "test"):
        hashes = row_hashes(tensors_of(table, name))
        again = int(np.isin(hashes, trained).sum())
        if again:
            share = f"{again} of {len(hashes)} {name} rows ({again / len(hashes):.0%})"
            notes.append(
                f"note: {share} have the inputs and labels of a training row: copies make scores look better; drop them, or name "
                "the column of what they belong to: --data.group"
            )
    return notes


def tensors_of(table: Table, name: Split) -> dict[str, Tensor]:
    """The inputs and labels of a split, each with two dimensions."""
    rows = table.split(name)
    assert isinstance(rows.inputs, dict)
    return rows.inputs | {f"target {task}": target.reshape(len(target), -1) for task, target in rows.targets.items()}


# -- inputs that know the answer --------------------------------------------------------------------
def telling_inputs(table: Table) -> list[str]:
    """Looks for single inputs that predict a validation label almost perfectly, by the means of their bins."""
    rows, checks = some_rows(table, "train"), some_rows(table, "val")
    if not len(checks):
        return []
    labels = {name: values for name in table.tasks if (values := scalar_labels(table, name)) is not None}
    if not labels or len(labels) * len(table.columns) > MOST_PAIRS:
        return []
    notes = []
    found: dict[str, list[str]] = {}
    for source, codes in input_codes(table, rows, checks).items():
        train, check = codes
        for name, (kind, targets) in labels.items():
            quality = one_input(train, check, targets[rows], targets[checks], kind)
            if quality >= ALMOST:
                found.setdefault(source, []).append(name)
    for source, names in found.items():
        what = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        notes.append(
            f"note: '{source}' alone tells {what} almost without fail: is it known before the label is? "
            f"--data.drop '[{source}]' leaves it out"
        )
    return notes


def some_rows(table: Table, name: str) -> np.ndarray:
    """Some of the rows of a side, evenly spread."""
    rows = table.rows[name]
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_ROWS)).astype(int)] if len(rows) else rows


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


def input_codes(table: Table, rows: np.ndarray, checks: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
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


def one_input(train: np.ndarray, check: np.ndarray, labels: np.ndarray, wanted: np.ndarray, kind: str) -> float:
    """How well the bins of one input predict a label: the mean recall over classes, or R2, on the rows to check.

    Args:
        train: (N,) bins of the training rows.
        check: (M,) bins of the rows to check.
        labels: (N,) labels of the training rows, NaN where missing.
        wanted: (M,) labels of the rows to check.
        kind: 'class' or 'number'.
    """
    size = int(max(train.max(initial=0), check.max(initial=0))) + 1
    some, others = ~np.isnan(labels), ~np.isnan(wanted)
    train, labels, check, wanted = train[some], labels[some], check[others], wanted[others]
    if len(labels) < 10 or len(wanted) < 5:
        return 0.0
    if kind == "number":
        sums = np.bincount(train, labels, size)
        counts = np.bincount(train, minlength=size)
        means = np.where(counts > 0, sums / np.maximum(counts, 1), labels.mean())
        spread = ((wanted - wanted.mean()) ** 2).sum()
        return 1 - float(((wanted - means[check]) ** 2).sum() / spread) if spread else 0.0
    classes = int(max(labels.max(), wanted.max())) + 1
    table = np.bincount(train * classes + labels.astype(int), minlength=size * classes).reshape(size, classes)
    table = table / np.maximum(table.sum(0), 1)  # rare classes weigh as much as common ones
    guess = table.argmax(1)[check]
    present = np.unique(wanted)
    if len(present) < 2:
        return 0.0
    return float(np.mean([(guess[wanted == label] == label).mean() for label in present]))


# -- identifiers and codes ---------------------------------------------------------------------------
def identifiers(table: Table) -> list[str]:
    """Looks for inputs of whole numbers that seem to number the rows."""
    found = []
    for column, numbers in numeric_inputs(table):
        known = numbers[~np.isnan(numbers)]
        if len(known) < 20 or (known != np.floor(known)).any() or len(np.unique(known)) < len(known):
            continue
        steps = np.diff(known)
        dense = known.max() - known.min() < 2 * len(known)
        if dense or (steps > 0).all() or (steps < 0).all() or re.search(NAMES_OF_GROUPS, column):
            found.append(column)
    if not found:
        return []
    names = ", ".join(found)
    return [f"note: {names}: another whole number in each row, as identifiers are: --data.drop '[{names}]' leaves them out"]


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
    columns = [c for c in table.columns if isinstance(c, Numeric) and isinstance(c.reads, NumberFormat)]
    return [(column.column, column.reads.numbers(table.main[column.source])) for column in columns]


# -- splits -----------------------------------------------------------------------------------------
def odd_shares(table: Table) -> list[str]:
    """Looks whether a split by few groups is far from the shares that were asked for."""
    if not table.group:
        return []
    rows = len(table.main)
    asked = {"val": table.val_fraction, "test": table.test_fraction}
    got = {name: len(table.rows[name]) / rows for name in asked if name not in table.table_files.paths}
    far = {name: share for name, share in got.items() if abs(share - asked[name]) > max(0.05, asked[name] / 3)}
    if not far:
        return []
    shares = " and ".join(f"{share:.0%} {name} rows, {asked[name]:.0%} asked for" for name, share in far.items())
    groups = table.main[table.group].nunique()
    return [f"note: {shares}: '{table.group}' has {groups} groups, which cannot be cut"]


def hidden_groups(table: Table) -> list[str]:
    """Looks for columns whose values several rows share, as rows of one patient or site do, where the split is at random."""
    if table.group or table.split_column or len(table.table_files.paths) == 3:
        return []
    labels = {name: values for name in table.tasks if (values := scalar_labels(table, name)) is not None}
    targets = {column for columns in table.targets.values() for column in columns}
    found = []
    for name in map(str, table.main.columns):
        series = table.main[name]
        distinct, known = series.nunique(), int(series.notna().sum())
        if name in targets or not 3 <= distinct <= known / 1.5 or is_typed_date(series) or date_formats(series):
            continue
        named = re.search(NAMES_OF_GROUPS, name) is not None and distinct >= min(5, known / 2)
        numbers = numbers_or_none(table, name)
        many = distinct >= 10 and known / distinct <= 100
        if named or (many and numbers is None) or (many and any(keeps_apart(numbers, v) for _, v in labels.values())):
            found.append(name)
    if not found:
        return []
    names = ", ".join(f"'{name}'" for name in found[:5]) + (" ..." if len(found) > 5 else "")
    return [
        f"note: rows of train and test share values of {names}: if these name patients, sites or the like, a random split makes "
        f"scores look better than they will be on new ones: --data.group {found[0]}"
    ]


def numbers_or_none(table: Table, name: str) -> np.ndarray | None:
    """The numbers of a column; None if it holds words."""
    series, how = table.main[name], table.written[name]
    if typed_numbers(series) is None and how.share < 1:
        return None
    try:
        return (how.format or NumberFormat()).numbers(series)
    except BadValue:
        return None


def keeps_apart(numbers: np.ndarray | None, labels: np.ndarray) -> bool:
    """Whether rows with the same number have alike labels, and rows with the next numbers have not, as with names of groups."""
    if numbers is None:
        return False
    known = ~np.isnan(numbers) & ~np.isnan(labels)
    if known.sum() < 30:
        return False
    values, codes = np.unique(numbers[known], return_inverse=True)
    if len(values) < 10:
        return False
    y = labels[known] - labels[known].mean()
    sums, counts = np.bincount(codes, y), np.bincount(codes)
    several = counts[codes] > 1
    if several.sum() < 30:
        return False
    # what the other rows with the same number say, against what the rows with the two next numbers say
    same = (sums[codes] - y) / np.maximum(counts[codes] - 1, 1)
    before, after = np.clip(codes - 1, 0, None), np.clip(codes + 1, None, len(values) - 1)
    around = (sums[before] + sums[after]) / (counts[before] + counts[after])
    spread = (y[several] ** 2).mean()
    of_same = ((y - same)[several] ** 2).mean() / spread
    of_next = ((y - around)[several] ** 2).mean() / spread
    return bool(of_same < 0.6 and of_next > max(2 * of_same, 0.3))


def empty_classes(table: Table) -> list[str]:
    """Looks for classes that no validation or no test row has, though there are rows enough, so that scores are not defined."""
    notes = []
    for side in ("val", "test"):
        lacking: dict[str, list[str]] = {}
        for name, task in table.tasks.items():
            classes = getattr(task, "classes", ())
            if not classes or not table.single[name]:
                continue
            counts = class_counts(table.encoded_targets("train", name), len(classes))
            there = class_counts(table.split(side).targets[name], len(classes))
            found = [str(label) for i, label in enumerate(classes) if not there[i] and counts[i] >= 3]
            if found:
                lacking[name] = found
        if lacking:
            name = next(iter(lacking))
            more = f" (and other tasks' classes, of {len(lacking) - 1} tasks)" if len(lacking) > 1 else ""
            notes.append(
                f"note: no {side} row of '{name}' is of {', '.join(lacking[name][:5])}{more}: some scores are not defined; "
                f"--data.stratify '[{table.targets[name][0]}]' deals classes out in proportion"
            )
    return notes


def class_counts(targets: Tensor, classes: int) -> np.ndarray:
    """The number of labels of each class, (classes,)."""
    numbers = targets.double().nan_to_num(-1).numpy().astype(int)
    return np.bincount(numbers[numbers >= 0], minlength=classes)
