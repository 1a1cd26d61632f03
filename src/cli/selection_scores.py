"""Scores of tasks on rows that were changed, whole and on draws of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from src.batch import Batch
from src.cli.loaded_run import Inputs
from src.tasks import Task


class Scores:
    """The scores of all tasks on rows that were changed, whole and on draws of them.

    Args:
        predict: Returns {task: outputs} of inputs.
        tasks: {name: task}.
        rows: The rows, with their labels.
        samples: Draws of the rows.
        changed: The changed rows of each repeat, or one for all repeats.

    Attributes:
        whole: {task: its score on all rows, for each entry of ``changed``}.
        resampled: {task: its score on each draw of the rows}.
    """

    def __init__(
        self,
        predict: Callable[[Inputs], Mapping[str, Tensor]],
        tasks: Mapping[str, Task],
        rows: Batch,
        samples: Sequence[np.ndarray],
        changed: Iterator[Inputs],
    ) -> None:
        every = np.arange(len(rows))
        self.whole: dict[str, list[float]] = {name: [] for name in tasks}
        self.resampled: dict[str, list[float]] = {name: [] for name in tasks}
        outputs: list[Mapping[str, Tensor]] = []
        for own in changed:
            outputs.append(predict(own))
            for name, task in tasks.items():
                self.whole[name].append(score_rows(task, name, outputs[-1], rows, every))
        for repeat, sample in enumerate(samples):
            own_outputs = outputs[min(repeat, len(outputs) - 1)]
            for name, task in tasks.items():
                self.resampled[name].append(score_rows(task, name, own_outputs, rows, sample))


def score_rows(
    task: Task, name: str, outputs: Mapping[str, Tensor], rows: Batch, sample: np.ndarray
) -> float:
    """Returns the score of a task on some rows, which may come several times."""
    where = torch.from_numpy(sample)
    metrics = task.assemble_metrics()
    weights = rows.weights.get(name)
    task.update_metrics(
        metrics,
        outputs[name][where],
        rows.targets[name][where],
        None if weights is None else weights[where],
    )
    return float(task.score({**task.compute(metrics), **task.bound_for_score(metrics)}))
