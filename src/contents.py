"""What the files of a run folder hold, as far as later processes read it: types that they are held against."""

from typing import Any, NotRequired, TypedDict

from src.plain import Count


class Session(TypedDict):
    """What one process, from its start to its end, has left in the record of a run, as far as later ones read it."""

    command: str
    status: str
    job: NotRequired[str | None]


class Record(TypedDict):
    """The record of a run, as far as later processes read it."""

    sessions: list[Session]
    data: NotRequired[dict[str, Any] | None]


Checkpoint = TypedDict(
    "Checkpoint",
    {
        "pytorch-lightning_version": str,
        "epoch": Count,
        "global_step": Count,
        "state_dict": dict[str, object],
        "loops": dict[str, dict[str, object]],
        "callbacks": dict[str, object],
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
