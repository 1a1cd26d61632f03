"""The types of a run folder's files, as far as later processes read them."""

from typing import Annotated, Any, NotRequired, TypedDict

from src.files.typed import Count, Such

# it may be infinite, or not defined
Number = Annotated[
    object,
    Such("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool)),
]


class Session(TypedDict):
    """The entry of one process, from its start to its end, in the record of a run."""

    command: str
    status: str
    job: NotRequired[str | None]


class Record(TypedDict):
    """The record of a run, run.json."""

    sessions: list[Session]
    data: NotRequired[dict[str, Any] | None]


class Validation(TypedDict):
    """The result of one validation."""

    score: Number
    loss: Number
    epoch: Count
    step: Count


class Wait(TypedDict):
    """The count of validations in which a task was no better."""

    waited: Count
    lowest_loss: Number


class Selection(TypedDict):
    """The best validation of each task, or of all, and how many were worse since."""

    best: dict[str, Validation]
    waited: Count
    undefined: Count
    lowest_loss: Number
    tasks: NotRequired[dict[str, Wait]]


class Callbacks(TypedDict):
    """The states of callbacks in a checkpoint."""

    selection: NotRequired[Selection]


def holds_counts(progress: object) -> bool:
    """Returns whether the counts of a loop, at any depth, are whole numbers.

    The states of data loaders are their own matter.
    """
    if not isinstance(progress, dict):
        return isinstance(progress, int)
    return all(key == "combined_loader" or holds_counts(value) for key, value in progress.items())


Checkpoint = TypedDict(
    "Checkpoint",
    {
        "pytorch-lightning_version": str,
        "epoch": Count,
        "global_step": Count,
        "state_dict": dict[str, object],
        "loops": Annotated[dict[str, dict[str, object]], Such("with whole numbers", holds_counts)],
        "callbacks": Callbacks,
        "optimizer_states": NotRequired[list[dict[str, object]]],
        "lr_schedulers": NotRequired[list[object]],
        "metrics": NotRequired[dict[str, object]],
        "tasks": NotRequired[dict[str, dict[str, object]]],
        "task_steps": NotRequired[dict[str, Count]],
        "other_weights": NotRequired[dict[int, dict[str, object]]],
    },
)


class ReferenceResults(TypedDict):
    """The metrics of a reference; null where a metric is not defined."""

    validation: dict[str, float | None]
    test: NotRequired[dict[str, float | None]]


class Results(TypedDict):
    """The metrics of a run, metrics.json; null where a metric is not defined."""

    validation: dict[str, float | None]
    test: NotRequired[dict[str, float | None]]
    references: NotRequired[dict[str, ReferenceResults]]
