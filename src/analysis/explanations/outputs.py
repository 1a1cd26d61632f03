"""The number of a task that is explained, for each kind of task, in the label's own unit."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from src.tasks import (
    BinaryClassification,
    CensoredRegression,
    Classification,
    Counts,
    MultilabelClassification,
    Ordinal,
    Quantiles,
    Regression,
    Survival,
    Task,
)

Choice = Literal["predicted", "each"]


@dataclass(frozen=True)
class ExplainedOutput:
    """A number that a model puts out for each row.

    Attributes:
        task: The task.
        name: Its name among several of the task; "" where there is one.
        meaning: Says what it is.
        unit: Its unit.
        read: Computes it: outputs (M, O) and, where they say which class it is about, the outputs
            (M, O) of the same rows as they are, -> (M,).
    """

    task: str
    name: str
    meaning: str
    unit: str
    read: Callable[[Tensor, Tensor], Tensor]

    @property
    def title(self) -> str:
        """The task, with the name of the output."""
        return f"{self.task}: {self.name}" if self.name else self.task


def list_outputs(name: str, task: Task, choice: Choice) -> list[ExplainedOutput]:
    """Lists the numbers of a task that are explained.

    They are log odds of a binary label; the score of the class that is predicted, or of each, its
    logit minus the mean over classes; the expected rank of an ordinal label; and a number in the
    label's own unit otherwise: the prediction, the median, the expected count or time.

    Args:
        name: The task's name.
        task: The task.
        choice: Whether a task of several classes is explained for the class predicted, or each.
    """
    make = partial(ExplainedOutput, name)
    if isinstance(task, Ordinal):
        return [make("", "expected rank, from 0", "ranks", partial(expect_rank, task))]
    if isinstance(task, Classification):
        if choice == "predicted":
            meaning = "score of the class predicted: its logit minus the mean of all"
            return [make("", meaning, "logits", partial(read_predicted, task))]
        words = "score of {!r}: its logit minus the mean of all"
        return [
            make(str(label), words.format(label), "logits", partial(read_class, k))
            for k, label in enumerate(task.classes)
        ]
    if isinstance(task, BinaryClassification):
        positive = task.classes[1]
        return [make("", f"log odds of {positive!r}", "logits", partial(read_output, 0))]
    if isinstance(task, MultilabelClassification):
        return [
            make(str(label), f"log odds of {label!r}", "logits", partial(read_output, k))
            for k, label in enumerate(task.labels)
        ]
    unit = f"the unit of {name}"
    if isinstance(task, Quantiles):
        return [make("", "median", unit, partial(read_median, task))]
    if isinstance(task, Counts):
        return [make("", "expected count per unit of exposure", "counts", partial(count, task))]
    if isinstance(task, Survival):
        return [make("", "expected time", unit, partial(expect_time, task))]
    if isinstance(task, CensoredRegression):
        return [make("", "prediction", unit, partial(read_censored, task))]
    if isinstance(task, Regression):
        return [
            make(label, "prediction", f"the unit of {label or name}", partial(read_number, task, k))
            for k, label in enumerate(task.names or ("",))
        ]
    # a kind that is none of ours
    return [
        make(str(label), f"output {label} of the network", "", partial(read_output, k))
        for k, label in enumerate(task.output_names)
    ]


def read_output(place: int, outputs: Tensor, plain: Tensor) -> Tensor:
    """Returns one of the outputs."""
    return outputs[:, place]


def read_class(place: int, outputs: Tensor, plain: Tensor) -> Tensor:
    """Returns the logit of a class minus the mean: a shift of all logits means nothing."""
    return outputs[:, place] - outputs.mean(-1)


def read_predicted(task: Classification, outputs: Tensor, plain: Tensor) -> Tensor:
    """Returns the score of the class that is predicted for the row as it is."""
    chosen = task.predict(plain)[:, None]
    return outputs.gather(1, chosen)[:, 0] - outputs.mean(-1)


def expect_rank(task: Ordinal, outputs: Tensor, plain: Tensor) -> Tensor:
    """Returns the mean of the ranks under their probabilities."""
    probabilities = task.log_probabilities(outputs).exp()
    ranks = torch.arange(probabilities.shape[-1], dtype=probabilities.dtype)
    return probabilities @ ranks


def read_median(task: Quantiles, outputs: Tensor, plain: Tensor) -> Tensor:
    """Returns the median in the label's own unit."""
    return task.in_units(task.predict(outputs))[:, task.middle]


def count(task: Counts, outputs: Tensor, plain: Tensor) -> Tensor:
    """Returns the expected count per unit of exposure."""
    return task.predict(outputs)


def expect_time(task: Survival, outputs: Tensor, plain: Tensor) -> Tensor:
    """Returns the expected time, up to the end of the last interval."""
    return task.expect_time(task.predict(outputs))


def read_censored(task: CensoredRegression, outputs: Tensor, plain: Tensor) -> Tensor:
    """Returns the prediction in the label's own unit."""
    return task.in_units(outputs)[:, 0]


def read_number(task: Regression, place: int, outputs: Tensor, plain: Tensor) -> Tensor:
    """Returns one of the numbers in the label's own unit."""
    return task.in_units(task.predict(outputs.double()))[:, place]
