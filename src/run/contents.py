"""What the files of a run folder hold, as far as later processes read it: types that they are held against."""

from typing import Annotated, Any, NotRequired, TypedDict

from src.files.typed import Count, Such

# which may be infinite, or not defined
Number = Annotated[
    object,
    Such("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool)),
]


class Session(TypedDict):
    """What one process, from its start to its end, has left in the record of a run, as far as later ones read it."""

    command: str
    status: str
    job: NotRequired[str | None]


class Record(TypedDict):
    """The record of a run, as far as later processes read it."""

    sessions: list[Session]
    data: NotRequired[dict[str, Any] | None]


class Validation(TypedDict):
    """What a validation has shown."""

    score: Number
    loss: Number
    epoch: Count
    step: Count


class Selection(TypedDict):
    """Which validations were the best."""

    best: dict[str, Validation]
    waited: Count
    undefined: Count
    lowest_loss: Number


class Callbacks(TypedDict):
    """The states of callbacks."""

    selection: NotRequired[Selection]


def holds_counts(progress: object) -> bool:
    """Returns whether what a loop counts, at any depth, are whole numbers; the states of loaders are their own."""
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
    },
)


class Results(TypedDict):
    """The metrics of a run; null where a metric is not defined."""

    validation: dict[str, float | None]
    test: NotRequired[dict[str, float | None]]
