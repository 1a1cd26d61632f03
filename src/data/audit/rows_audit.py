"""The audit of rows of any kind: copies across splits, classes with few rows, shift of labels."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from src.data.audit.distances import measure_classes, measure_numbers
from src.data.audit.finding import (
    Finding,
    Mend,
    Severity,
    sort_findings,
    weigh_share,
    write_share,
)
from src.data.audit.label_counts import (
    SIDES,
    find_lacking_classes,
    find_rare_classes,
    list_classes,
)
from src.data.audit.near_copies import find_near_copies
from src.data.rows import BatchDataset, Rows, Split
from src.tasks import Task

TRAINING_ROWS = 20_000
CHECKED_ROWS = 2000  # of each other split
MOST_FEATURES = 512  # of a row, evenly spaced, in the search for near copies
LEAST = 0.1  # distance between labels of two splits that is worth a word
LARGE = 0.3

Inputs = Tensor | dict[str, Tensor]


def audit_rows(
    tasks: Mapping[str, Task], splits: Mapping[Split, BatchDataset], what: str = "rows"
) -> list[Finding]:
    """Returns the findings on the splits of any data, the weightiest first.

    Args:
        tasks: The tasks.
        splits: {split: its rows}.
        what: The word for rows.
    """
    inputs: dict[Split, Inputs] = {}
    targets: dict[Split, Mapping[str, Tensor]] = {}
    for side, rows in splits.items():
        limit = TRAINING_ROWS if side == "train" else CHECKED_ROWS
        count = len(rows)
        places = torch.arange(min(limit, count)) * max(count, 1) // max(min(limit, count), 1)
        batch = rows[places]
        inputs[side] = batch.inputs

        # labels in memory are counted whole
        targets[side] = rows.targets if isinstance(rows, Rows) else batch.targets
    return sort_findings(
        [
            *find_copies(hash_splits(inputs), what),
            *find_near_rows(inputs, what),
            *find_lacking_classes(tasks, targets, {}),
            *find_rare_classes(tasks, targets),
            *find_label_shift(tasks, targets),
        ]
    )


def find_copies(
    hashes: Mapping[Split, np.ndarray], what: str, mend: Mend | None = None
) -> list[Finding]:
    """Finds rows of validation and test that are training rows.

    Args:
        hashes: {split: hashes of its rows}.
        what: The word for rows.
        mend: The settings that put copies on one side, if there are some.
    """
    findings = []
    for side in SIDES:
        again = int(np.isin(hashes[side], hashes["train"]).sum())
        if again:
            share = again / len(hashes[side])
            sentence = (
                f"{again} of {len(hashes[side])} {side} {what} ({write_share(share)}) are copies "
                f"of training {what}, which makes scores look better"
            )
            severity = weigh_share(share)
            findings.append(Finding(severity, "copies", sentence, mend, value=round(share, 4)))
    return findings


def find_near_rows(inputs: Mapping[Split, Inputs], what: str) -> list[Finding]:
    """Finds rows of validation and test that are almost training rows.

    Args:
        inputs: {split: the inputs of some of its rows}.
        what: The word for rows.
    """
    findings = []
    for side in SIDES:
        near = len(find_near(inputs["train"], inputs[side]))
        if near:
            share = near / count_rows(inputs[side])
            sentence = (
                f"{near} of {count_rows(inputs[side])} {side} {what} ({write_share(share)}) are "
                f"almost training {what}, which makes scores look better"
            )
            severity = weigh_share(share)
            findings.append(Finding(severity, "near copies", sentence, value=round(share, 4)))
    return findings


def count_rows(inputs: Inputs) -> int:
    """Returns the number of rows of inputs."""
    return len(next(iter(inputs.values())) if isinstance(inputs, dict) else inputs)


def hash_splits(inputs: Mapping[Split, Inputs]) -> dict[Split, np.ndarray]:
    """Hashes the rows of each split; of sequences, the shorter half is left out.

    Short sentences are said twice by nature.
    """
    hashed = {side: hash_inputs(each) for side, each in inputs.items()}
    shortest = 0.0
    if isinstance(inputs["train"], dict) and len(hashed["train"][1]):
        shortest = float(np.median(hashed["train"][1]))
    return {side: hashes[sizes >= shortest] for side, (hashes, sizes) in hashed.items()}


def hash_inputs(inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Hashes each row (N,) by its bytes, without the padding at its end; and counts the bytes."""
    parts = list(inputs.values()) if isinstance(inputs, dict) else [inputs]
    hashes = []
    sizes = []
    for row in range(len(parts[0])):
        content = [part[row].contiguous().numpy().tobytes().rstrip(b"\0") for part in parts]
        hashes.append(hash(tuple(content)))
        sizes.append(sum(map(len, content)))
    return np.array(hashes, dtype=np.int64), np.array(sizes)


def find_near(train: Inputs, check: Inputs) -> np.ndarray:
    """Returns the places of rows that are almost training rows; none where inputs are no numbers.

    Args:
        train: The inputs of training rows.
        check: The inputs of the rows to check.
    """
    none = np.zeros(0, dtype=np.int64)
    if isinstance(train, dict) or isinstance(check, dict):
        return none
    if not train.is_floating_point() or train.ndim < 2 or not len(check):
        return none
    features = train[0].numel()
    chosen = torch.arange(min(features, MOST_FEATURES)) * features // min(features, MOST_FEATURES)
    ours, theirs = train.flatten(1)[:, chosen], check.flatten(1)[:, chosen]
    return find_near_copies(ours.float(), theirs.float())


def find_label_shift(
    tasks: Mapping[str, Task], targets: Mapping[Split, Mapping[str, Tensor]]
) -> list[Finding]:
    """Finds labels whose values differ between the training split and the others.

    Args:
        tasks: The tasks.
        targets: {split: {task: labels}}.
    """
    findings = []
    for side in SIDES:
        for name, task in tasks.items():
            if name not in targets[side] or name not in targets["train"]:
                continue
            ours, theirs = targets["train"][name], targets[side][name]
            # a task of several numbers has a distance for each of them, which its metrics show
            if ours.ndim != 1:
                continue
            x, y = ours.double().numpy(), theirs.double().numpy()
            if list_classes(task):
                codes = [v[np.nan_to_num(v, nan=-1) >= 0].astype(int) for v in (x, y)]
                distance, limit = measure_classes(codes[0], codes[1], len(tasks))
            else:
                known = [v[~np.isnan(v)] for v in (x, y)]
                distance, limit = measure_numbers(known[0], known[1], len(tasks))
            if distance > max(limit, LEAST):
                severity: Severity = "medium" if distance >= LARGE else "low"
                sentence = (
                    f"{side} labels of '{name}' are unlike training labels "
                    f"(distance {distance:.2f} of 1)"
                )
                findings.append(
                    Finding(severity, "shift", sentence, None, (name,), value=round(distance, 4))
                )
    return findings
