"""Inputs that alone predict a label almost perfectly, as columns do that follow from the label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from src.data.tables.columns import MemberColumn, Numeric
from src.data.tables.input_encoding import find_table_inputs

if TYPE_CHECKING:
    from src.data.tables.table import Table

MOST_ROWS = 4000  # rows of each side that are used
MOST_PAIRS = 20_000  # pairs of an input and a label
BINS = 100
ALMOST = 0.99  # a score from which on an input predicts a label "almost perfectly"
MOST_CLASSES = 20  # of a task whose classes are compared one by one
FEWEST = 5  # labels that a score needs


def find_leaking_inputs(table: Table) -> list[str]:
    """Finds single inputs that predict validation labels almost perfectly.

    Each input is binned. A bin predicts what the training rows in it say.
    """
    rows = sample_rows(table, "train")
    checks = sample_rows(table, "val")
    labels = list_label_columns(table)
    if not len(checks) or not labels or len(labels) * len(table.columns) > MOST_PAIRS:
        return []
    names = [name for name, _ in labels]
    values = np.stack([column for _, column in labels], 1)
    numeric = np.array([table.labels[name].classes is False for name in names])

    notes = []
    for source, (train, check) in bin_inputs(table, rows, checks).items():
        told = np.zeros(len(names), dtype=bool)
        at_train, at_check = values[rows], values[checks]
        r2 = score_r2(train, check, at_train[:, numeric], at_check[:, numeric])
        recall = score_recall(train, check, at_train[:, ~numeric], at_check[:, ~numeric])
        told[numeric] = r2 >= ALMOST
        told[~numeric] = recall >= ALMOST

        # a task with several classes has a column for each: all of them must be told
        missed = {name for name, is_told in zip(names, told, strict=True) if not is_told}
        leaked = [name for name in dict.fromkeys(names) if name not in missed]
        if not leaked:
            continue
        what = ", ".join(leaked[:3])
        if len(leaked) > 3:
            what += f" and {len(leaked) - 3} more"
        notes.append(
            f"note: '{source}' alone tells {what} almost without fail: "
            f"is it known before the label is? --data.drop '[{source}]' leaves it out"
        )
    return notes


def sample_rows(table: Table, name: str) -> np.ndarray:
    """Returns some of the row numbers of a side, evenly spaced."""
    rows = table.rows[name]
    if not len(rows):
        return rows
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_ROWS)).astype(int)]


def list_label_columns(table: Table) -> list[tuple[str, np.ndarray]]:
    """Returns the labels of all tasks with one column as (name, (N,)), NaN where missing.

    Several classes have a column of 0 and 1 for each.
    """
    columns = []
    for name in table.tasks:
        found = read_scalar_labels(table, name)
        if found is None:
            continue
        kind, values = found
        classes = np.unique(values[~np.isnan(values)])
        if kind == "number" or len(classes) <= 2:
            columns.append((name, values))
        elif len(classes) <= MOST_CLASSES:
            known = ~np.isnan(values)
            one_hot = [np.where(known, values == label, np.nan) for label in classes]
            columns += [(name, column) for column in one_hot]
    return columns


def read_scalar_labels(table: Table, name: str) -> tuple[str, np.ndarray] | None:
    """Returns the labels of a task with one column, None for other tasks.

    Returns:
        'class' or 'number'; and (N,) float64 with NaN where missing.
    """
    if not table.single[name]:
        return None
    targets = table.encode_targets_of("train", name)
    if targets.ndim != 1:
        return None
    if not targets.is_floating_point():
        codes = targets.numpy()
        return "class", np.where(codes < 0, np.nan, codes.astype(float))
    kind = "class" if table.labels[name].classes else "number"
    return kind, targets.double().numpy()


def bin_inputs(
    table: Table, rows: np.ndarray, checks: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Bins the inputs: numbers by the quantiles of the training rows, categories by value.

    Args:
        table: The table.
        rows: Numbers of training rows.
        checks: Numbers of validation rows.

    Returns:
        {column: (bins of the training rows, bins of the validation rows)}.
    """
    encoded = find_table_inputs(table.encode_inputs_of("train"))
    if not encoded:
        return {}
    dense = encoded["dense"].numpy()
    categorical = iter(encoded["categorical"].numpy().T)
    place = 0
    found = {}
    for column in table.columns:
        if isinstance(column, MemberColumn):
            continue
        if isinstance(column, Numeric):
            values = dense[:, place]
            place += 1 + column.indicator
            if len(np.unique(values[rows])) <= BINS:
                bins = np.unique(values, return_inverse=True)[1]
            else:
                quantiles = np.quantile(values[rows], np.linspace(0, 1, BINS + 1)[1:-1])
                bins = np.searchsorted(np.unique(quantiles), values, side="right")
            found[column.column] = (bins[rows], bins[checks])
        else:
            codes = next(categorical)

            # bins of one row each predict nothing
            if len(np.unique(codes[rows])) <= len(rows) / 2:
                found[column.column] = (codes[rows], codes[checks])
    return found


def score_r2(
    train: np.ndarray, check: np.ndarray, labels: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """Returns the R2 of the means of bins, (T,); 0 where labels are too few or all the same.

    Args:
        train: (N,) bins of the training rows.
        check: (M,) bins of the rows to check.
        labels: (N, T) labels of the training rows, NaN where missing.
        wanted: (M, T) labels of the rows to check.
    """
    known = ~np.isnan(wanted)
    means = predict_by_bin(train, check, labels)
    enough = (known.sum(0) >= FEWEST) & ((~np.isnan(labels)).sum(0) >= 2 * FEWEST)
    wanted = np.where(known, wanted, 0)
    middle = wanted.sum(0) / np.maximum(known.sum(0), 1)
    spread = (np.where(known, wanted - middle, 0) ** 2).sum(0)
    errors = (np.where(known, wanted - means, 0) ** 2).sum(0)
    return np.where(enough & (spread > 0), 1 - errors / np.where(spread > 0, spread, 1), 0.0)


def score_recall(
    train: np.ndarray, check: np.ndarray, labels: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """Returns the mean recall of 0 and of 1, (T,), or 0 where labels are too few.

    A bin predicts 1 if the share of 1 in it is above the share in all training rows.

    Args:
        train: (N,) bins of the training rows.
        check: (M,) bins of the rows to check.
        labels: (N, T) labels of the training rows, 0 or 1, NaN where missing.
        wanted: (M, T) labels of the rows to check.
    """
    guess = predict_by_bin(train, check, labels) > np.nan_to_num(average_known(labels))
    enough = (~np.isnan(labels)).sum(0) >= 2 * FEWEST
    recalls = []
    for label in (0, 1):
        there = wanted == label
        hit = (guess == label) & there
        recalls.append(np.where(there.any(0), hit.sum(0) / np.maximum(there.sum(0), 1), 0.0))
    return np.where(enough, (recalls[0] + recalls[1]) / 2, 0.0)


def predict_by_bin(train: np.ndarray, check: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns for each row to check the mean training label of its bin, (M, T).

    An empty bin has the mean of all training rows.
    """
    size = int(max(train.max(initial=0), check.max(initial=0))) + 1
    place = torch.from_numpy(train)
    known = torch.from_numpy(~np.isnan(labels))
    values = torch.from_numpy(np.nan_to_num(labels))
    sums = torch.zeros(size, labels.shape[1], dtype=torch.float64).index_add_(0, place, values)
    counts = torch.zeros_like(sums).index_add_(0, place, known.double())
    overall = np.nan_to_num(average_known(labels))
    means = np.where(counts > 0, sums / counts.clamp(min=1), overall)
    return np.asarray(means[check])


def average_known(labels: np.ndarray) -> np.ndarray:
    """Returns the mean of the known labels, (T,); NaN where there are none."""
    known = ~np.isnan(labels)
    return np.where(known.any(0), np.nansum(labels, 0) / np.maximum(known.sum(0), 1), np.nan)
