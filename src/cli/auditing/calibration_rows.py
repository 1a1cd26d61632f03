"""Rows with the outputs of a run, as the audit of its calibration measures them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from src.batch import Batch
from src.cli.loaded_run import LoadedRun
from src.data import MultiTaskDataModule, Split
from src.rng import draw_uniform_at
from src.tasks import Quantiles, Task
from src.tasks.calibration.calibrators import Calibrator
from src.tasks.calibration.measures import Reliability, measure_classes, measure_quantiles
from src.tasks.calibration.probabilities import has_probabilities
from src.tasks.labels import is_labelled

MOST = 2 * 10**7  # numbers that are predicted at once; of images some suffice
NO_WORD = "(missing)"


@dataclass(frozen=True)
class PredictedRows:
    """Rows of a split, with their labels and outputs in memory.

    Attributes:
        split: The split.
        batch: The rows.
        outputs: {task: outputs (N, ..., O)} as the network gives them.
        total: The number of rows that the split has; of very large labels a part is read.
    """

    split: Split
    batch: Batch
    outputs: Mapping[str, Tensor]
    total: int

    def find_weights(self, task: str) -> Tensor | None:
        """Returns the weights (N,) of the rows for a task; None where they have none."""
        return self.batch.weights.get(task)

    def calibrate(self, calibrators: Mapping[str, Calibrator]) -> "PredictedRows":
        """Returns the same rows with calibrated outputs."""
        outputs = dict(self.outputs)
        for name, calibrator in calibrators.items():
            outputs[name] = calibrator.apply(outputs[name])
        return PredictedRows(self.split, self.batch, outputs, self.total)

    def measure(self, name: str, task: Task) -> list[Reliability]:
        """Returns how well a task's predictions come true; nothing where it predicts no chances."""
        targets = self.batch.targets[name]
        weights = self.find_weights(name)
        if not is_labelled(targets).any():
            return []
        if has_probabilities(task):
            return measure_classes(task, self.outputs[name], targets, weights)
        if isinstance(task, Quantiles) and len(task.levels) > 1:
            return measure_quantiles(task, self.outputs[name], targets, weights)
        return []

    def draw_shares(self, name: str, seed: int) -> Tensor:
        """Draws a number from 0 to 1 for each row and label, as aps scores need them."""
        targets = self.batch.targets[name]
        labels = targets.shape[1] if targets.ndim > 1 else 1
        places = self.batch.ids[:, None] * labels + torch.arange(labels)
        return draw_uniform_at(seed, places)


def predict_rows(run: LoadedRun, split: Split) -> PredictedRows:
    """Predicts rows of a split without a calibration, whatever the run has.

    Raises:
        UserError: The run has no such rows.
    """
    kept = run.model.calibration
    run.model.calibrate({})
    try:
        few = run.load_rows(split, 1)
        numbers = sum(values.numel() for values in run.predict(few.inputs).values())
        rows = run.load_rows(split, max(MOST // numbers, 1))
        outputs = run.predict(rows.inputs)
    finally:
        run.model.calibrate(kept)
    return PredictedRows(split, rows, outputs, len(run.data.split(split)))


def name_groups(data: MultiTaskDataModule, split: Split, columns: Sequence[str]) -> list[str]:
    """Returns the group of each row of a split: its words in these columns, as 'F & White'.

    Raises:
        UserError: The data have no such column.
    """
    words = [data.column_words(split, column) for column in columns]
    rows = zip(*words, strict=True)
    return [" & ".join(NO_WORD if word is None else word for word in row) for row in rows]
