"""An optimizer is tried on a few numbers: what it does with groups, and with parts of a network."""

from functools import partial
from typing import Any

import pytest
from torch.optim import SGD, Adadelta, Adam, AdamW, NAdam, RMSprop

from src.models.optimisation import MuonAdamW, TaskPlateau, WarmRestarts, WarmupCosine
from src.models.optimisation.groups import Grouping
from src.models.optimisation.tries import (
    is_separable,
    keeps_rates,
    refuse_spread,
    try_settings,
)

extra = pytest.importorskip("pytorch_optimizer")


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW, NAdam, RMSprop, Adadelta, MuonAdamW])
def test_each_number_goes_its_own_way(kind: Any) -> None:
    assert is_separable(kind, in_shards=True)
    assert is_separable(kind, in_shards=False)
    assert keeps_rates(kind)


@pytest.mark.parametrize(
    ("name", "in_shards", "by_parameter", "rates"),
    [
        ("ScheduleFreeAdamW", True, True, True),
        ("ScheduleFreeSGD", True, True, True),
        ("Lion", True, True, True),
        # norms of whole parameters
        ("Lamb", False, True, True),
        # one estimate from all parameters
        ("Prodigy", False, False, False),
        ("DAdaptAdam", False, False, False),
    ],
)
def test_what_others_read(name: str, in_shards: bool, by_parameter: bool, rates: bool) -> None:
    kind = getattr(extra, name)
    assert is_separable(kind, in_shards=True) is in_shards
    assert is_separable(kind, in_shards=False) is by_parameter
    assert keeps_rates(kind) is rates
    for spread, fits in ((True, in_shards), (False, by_parameter)):
        if fits:
            refuse_spread(kind, spread)
        else:
            with pytest.raises(ValueError, match=f"{name} reads .* use --strategy ddp"):
                refuse_spread(kind, spread)


def test_how_far_parameters_are_split() -> None:
    def tried(optimizer: Any, schedule: Any) -> Grouping:
        return try_settings(optimizer, schedule, {}, 1.0, ["a", "b"])

    assert tried(AdamW, WarmupCosine) == Grouping()
    assert tried(AdamW, None) == Grouping()
    assert tried(MuonAdamW, TaskPlateau) == Grouping(by_task=True, by_matrix=True)
    assert tried(AdamW, partial(WarmRestarts, starts={"a": 1})) == Grouping(by_task=True)


@pytest.mark.parametrize(
    ("schedule", "multipliers", "decay", "says"),
    [
        (TaskPlateau, {}, 1.0, "model.scheduler TaskPlateau asks"),
        (None, {"a": 2.0}, 1.0, "model.lr_multipliers asks"),
        (None, {}, 0.5, "model.stage_decay asks"),
    ],
)
def test_rates_of_groups_need_an_optimizer_that_keeps_them(
    schedule: Any, multipliers: dict[str, float], decay: float, says: str
) -> None:
    with pytest.raises(ValueError, match=f"Prodigy moves all .* {says} for rates of groups"):
        try_settings(extra.Prodigy, schedule, multipliers, decay, ["a"])
    try_settings(extra.Prodigy, WarmupCosine, {"a": 1.0}, 1.0, ["a"])


def test_a_schedule_beside_averages_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ScheduleFreeSGD averages .* --model\.scheduler null"):
        try_settings(extra.ScheduleFreeSGD, WarmupCosine, {}, 1.0, ["a"])


def test_names_of_restarts_are_those_of_tasks() -> None:
    with pytest.raises(ValueError, match="starts names 'c'"):
        try_settings(AdamW, partial(WarmRestarts, starts={"c": 1}), {}, 1.0, ["a", "b"])
