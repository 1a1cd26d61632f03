"""Rates that fall with a task's own score."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from src.batch import InputShape
from src.models import MultiTaskModel
from src.models.encoders import MLP, ConvNet
from src.models.optimisation import TaskPlateau
from src.models.optimisation.groups import find_owners
from src.models.sharing import PLE, HardSharing, Separate, SoftSharing
from tests.models.backward.test_levels import Data


def make(*groups: dict[str, object], **settings: float) -> TaskPlateau:
    own = [{"params": [nn.Parameter(torch.zeros(1))], **group} for group in groups]
    return TaskPlateau(SGD(own, lr=1.0), **settings)  # type: ignore[arg-type]


def rates(schedule: TaskPlateau) -> list[float]:
    return [group["lr"] for group in schedule.optimizer.param_groups]


def test_each_task_waits_for_its_own_score() -> None:
    schedule = make({"name": "encoder"}, {"task": "a"}, {"task": "b"}, factor=0.5, patience=2)
    course = [
        # (score of a, of b, mean), rates of encoder, a, b
        ((0.5, 0.1, 0.3), [1, 1, 1]),
        ((0.5, 0.2, 0.35), [1, 1, 1]),
        ((0.4, 0.3, 0.35), [1, 0.5, 1]),
        ((0.4, 0.3, 0.35), [0.5, 0.5, 1]),
        ((0.4, 0.3, 0.36), [0.5, 0.25, 0.5]),
        ((0.6, 0.3, 0.36), [0.5, 0.25, 0.5]),
    ]
    for (a, b, mean), wanted in course:
        schedule.see_scores({"a": a, "b": b}, mean)
        assert rates(schedule) == wanted


def test_a_validation_without_a_label_says_nothing() -> None:
    schedule = make({"task": "a"}, patience=2)
    for score in (0.5, math.nan, 0.5, math.nan, math.nan):
        schedule.see_scores({"a": score}, 0.0)
    assert rates(schedule) == [1]
    schedule.see_scores({"a": 0.5}, 0.0)
    assert rates(schedule) == [0.5]


def test_a_little_better_is_not_better() -> None:
    schedule = make({"name": "all"}, patience=1, threshold=0.1)
    for mean, wanted in ((0.5, 1), (0.59, 0.5), (0.7, 0.5), (0.75, 0.25)):
        schedule.see_scores({}, mean)
        assert rates(schedule) == [wanted]


def test_after_a_fall_validations_do_not_count() -> None:
    schedule = make({"name": "all"}, patience=1, cooldown=2)
    course = [1.0, 0.5, 0.5, 0.5, 0.25]
    for wanted in course:
        schedule.see_scores({}, 0.0)
        assert rates(schedule) == [wanted]


def test_no_rate_falls_below_the_least() -> None:
    schedule = make({"name": "a"}, {"name": "b", "lr": 0.1}, patience=1, min_lr=0.3)
    for _ in range(5):
        schedule.see_scores({}, 0.0)
    assert rates(schedule) == [0.3, 0.1]


def test_it_goes_on_from_its_state() -> None:
    first = make({"name": "all"}, patience=3)
    for _ in range(3):
        first.see_scores({}, 0.0)
    second = make({"name": "all"}, patience=3)
    second.load_state_dict(first.state_dict())
    second.see_scores({}, 0.0)
    assert rates(second) == [0.5]


def test_what_a_task_owns_in_the_architecture_is_known() -> None:
    shape = InputShape(dense=(1, 8, 8))
    sharing = Separate(partial(ConvNet, shape, width=4), ["a", "b"])
    owners = find_owners(sharing)
    assert {owners[id(p)] for p in sharing.parameters()} == {"a", "b"}
    # a stack has a slice of each task, and one rate
    assert not find_owners(HardSharing(partial(ConvNet, shape, width=4), ["a", "b"]))


@pytest.mark.parametrize("sharing", [HardSharing, SoftSharing, PLE, Separate])
def test_every_parameter_is_in_one_group(sharing: type) -> None:
    data = Data()
    model = MultiTaskModel(
        data.tasks,
        data.input_shape,
        partial(MLP, width=8, depth=2),
        sharing,
        optimizer=partial(AdamW, lr=0.1),
        scheduler=TaskPlateau,
        lr_multipliers={"number": 3.0},
    )
    model.configure_model()
    groups = model.parameter_groups(0.1)
    for group in groups:
        if group["name"] in data.tasks:
            assert group["task"] == group["name"]
            assert group["lr"] == pytest.approx(0.3 if group["name"] == "number" else 0.1)
    assert {*data.tasks} <= {group["name"] for group in groups}
    every = [id(p) for group in groups for p in group["params"]]
    assert sorted(every) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize(
    ("setting", "value"),
    [("factor", 1.0), ("factor", 0.0), ("patience", 0), ("cooldown", -1), ("min_lr", -0.1)],
)
def test_bad_settings_are_named(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"TaskPlateau: {setting} {value}"):
        make({"name": "all"}, **{setting: value})
