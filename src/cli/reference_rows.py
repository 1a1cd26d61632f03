"""References on the rows of a run: read from its data, fitted, and measured beside a network."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.analysis.reference_tasks import ReferenceHeads, SplitRows, measure, refuse_unfit
from src.analysis.references import Learner, Reference, find_method
from src.batch import InputShape, inputs_of
from src.data import MultiTaskDataModule, Rows, Split
from src.data.dependent_labels import resolve_rows
from src.errors import UserError
from src.tasks import Task
from src.tasks.weighted_metrics import expand_weights

# settings of the Trainer that leave rows out, and what they are where they do not
LIMITS = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "overfit_batches")


def choose_methods(
    names: Sequence[str], flag: str, data: MultiTaskDataModule, trainer: Mapping[str, Any]
) -> list[type[Reference]]:
    """Returns the references of these names, once they are found to suit the data.

    Args:
        names: Their names.
        flag: The flag that has named them, for messages.
        data: The data.
        trainer: Settings of the Trainer.

    Raises:
        UserError: There is no such reference, it does not suit the data, or the Trainer leaves
            rows out.
    """
    kinds = [find_method(name, flag) for name in dict.fromkeys(names)]
    limit = find_limit(trainer)
    if kinds and limit is not None:
        raise UserError(
            f"{flag} measures references on all rows, and trainer.{limit} {trainer[limit]} leaves "
            "some out: leave out one of the two settings"
        )
    if any(issubclass(kind, Learner) for kind in kinds):
        first = data.split("train")[torch.arange(1)]
        dense = []
        for name, task in data.tasks.items():
            if first.targets[name].ndim > 1 + task.event_dims:
                dense.append(name)
        for kind in kinds:
            shape = find_table(data.input_shape)[1]
            is_other = bool(shape.tokens or shape.nodes or shape.members)
            refuse_unfit(kind, data.tasks, is_other, dense)
    return kinds


def find_table(shape: InputShape) -> tuple[str, InputShape]:
    """Returns the table columns among several inputs of a sample: their name and shape.

    Where a sample has one input, or none of table columns, it is '' and the shape itself.
    """
    for name, own in shape.members:
        if own.categories or len(own.dense) == 1:
            return name, own
    return "", shape


def describe_left_out(kinds: Sequence[type[Reference]], shape: InputShape) -> list[str]:
    """Says which of several inputs references do not read."""
    table = find_table(shape)[0]
    others = [name for name, _ in shape.members if name != table]
    names = [kind.__name__.lower() for kind in kinds if issubclass(kind, Learner)]
    if not others or not names:
        return []
    return [f"{', '.join(names)}: read the table columns alone, not {', '.join(others)}"]


def find_limit(trainer: Mapping[str, Any]) -> str | None:
    """Returns a setting of the Trainer that leaves rows out; None where all count."""
    if trainer["fast_dev_run"]:
        return "fast_dev_run"
    for key in LIMITS:
        value = trainer[key]
        # 1 is a batch, 1.0 are all; no batches are left out by overfit_batches 0
        harmless = value is None or (isinstance(value, float) and value == 1.0)
        if not harmless and not (key == "overfit_batches" and value == 0):
            return key
    return None


def has_rows_in_memory(data: MultiTaskDataModule) -> bool:
    """Returns whether all labels can be read once more in no time."""
    return isinstance(data.split("val"), Rows)


def read_rows(data: MultiTaskDataModule, name: Split, with_inputs: bool) -> SplitRows:
    """Reads a split as one table: numbers flattened, then codes of categories.

    Args:
        data: The data.
        name: The split.
        with_inputs: Whether to read inputs, too.
    """
    split = data.split(name)
    if isinstance(split, Rows) and not with_inputs:
        # images need not be decoded for their labels
        split = Rows(torch.zeros(len(split), 0), split.targets, weights=split.weights)
    rows = resolve_rows(split, data.tasks)
    table = find_table(data.input_shape)[0]
    inputs = []
    targets: dict[str, list[Tensor]] = {task: [] for task in data.tasks}
    weights: dict[str, list[Tensor]] = defaultdict(list)
    for ids in torch.arange(len(rows)).split(data.eval_batch_size):
        batch = rows[ids]
        if with_inputs:
            own = batch.inputs
            if table and not isinstance(own, Tensor):
                own = inputs_of(table, own)
            inputs.append(flatten_inputs(own))
        for task, target in batch.targets.items():
            targets[task].append(flatten_targets(data.tasks[task], target))
            if task in batch.weights:
                # a label of a token or a pixel has the weight of its row
                labels = target[..., 0] if data.tasks[task].event_dims else target
                weights[task].append(expand_weights(batch.weights[task], labels).flatten())
    joined = {task: torch.cat(parts) for task, parts in targets.items()}
    of_rows = {task: torch.cat(parts) for task, parts in weights.items()}
    return SplitRows(np.concatenate(inputs) if with_inputs else None, joined, of_rows)


def flatten_inputs(inputs: Tensor | dict[str, Tensor]) -> np.ndarray:
    """Returns inputs as a table (B, F + C): numbers, then codes of categories."""
    if isinstance(inputs, Tensor):
        return inputs.flatten(1).float().numpy()
    parts = [inputs["dense"].flatten(1).float()] if "dense" in inputs else []
    if "categorical" in inputs:
        parts.append(inputs["categorical"].float())
    return torch.cat(parts, 1).numpy()


def flatten_targets(task: Task, targets: Tensor) -> Tensor:
    """Returns the targets (N,) or (N, L) of rows, or of the tokens or pixels of rows."""
    return targets.flatten(0, targets.ndim - 1 - task.event_dims)


class Measured:
    """References that were measured on the rows of a run.

    Attributes:
        results: {reference: {'validation', 'test': {key: value}}}.
        lines: What validation rows have chosen, a line each.
    """

    def __init__(self) -> None:
        self.results: dict[str, dict[str, dict[str, float]]] = {}
        self.lines: list[str] = []


def measure_references(
    kinds: Sequence[type[Reference]],
    data: MultiTaskDataModule,
    seed: int,
    test: bool,
    score_weights: Mapping[str, float] | None = None,
) -> Measured:
    """Fits references to the training rows of a run, and measures them on the others.

    It runs on one process and waits for no other, so that the number of processes does not matter.

    Args:
        kinds: The references.
        data: The data.
        seed: Seed of whatever they draw.
        test: Whether to measure on test rows, too.
        score_weights: {task: weight of its score}; None weighs all alike.
    """
    measured = Measured()
    measured.lines += describe_left_out(kinds, data.input_shape)
    names: list[Split] = ["train", "val", "test"] if test else ["train", "val"]
    for with_inputs in (False, True):
        chosen = [kind for kind in kinds if issubclass(kind, Learner) == with_inputs]
        if not chosen:
            continue
        splits: dict[str, SplitRows] = {}
        for name in names:
            splits[name] = read_rows(data, name, with_inputs)
        for kind in chosen:
            reference = kind(find_table(data.input_shape)[1], seed)
            heads = ReferenceHeads(reference, data.tasks, splits["train"], splits["val"])
            key = kind.__name__.lower()
            measured.results[key] = measure(
                heads, data.tasks, splits, data.eval_batch_size, score_weights
            )
            measured.lines += reference.describe_choices()
    return measured
