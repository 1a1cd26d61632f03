import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD

from src.models import WarmupCosine
from src.models.optimisation import WarmRestarts


def optimizer_of(*lrs):
    return SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs], lr=1.0)


def formula(step, peak, warmup, floor, total):
    warm = round(warmup * total)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (
        floor
        + (1 - floor) * (1 + math.cos(math.pi * min(1, (step - warm) / max(1, total - warm)))) / 2
    )


def curve(schedule, steps):
    lrs = []
    for _ in range(steps):
        lrs.append([group["lr"] for group in schedule.optimizer.param_groups])
        schedule.optimizer.step()
        schedule.step()
    return lrs


@settings(deadline=None)
@given(warmup=st.floats(0, 1), floor=st.floats(0, 1), total=st.integers(1, 40))
def test_closed_formula(warmup, floor, total):
    schedule = WarmupCosine(optimizer_of(0.1, 3.0), warmup, floor, total)
    for step, lrs in enumerate(curve(schedule, total + 3)):
        assert lrs == pytest.approx(
            [formula(step, peak, warmup, floor, total) for peak in (0.1, 3.0)], rel=1e-12, abs=1e-15
        )


def test_hand_computed_values():
    schedule = WarmupCosine(optimizer_of(1.0), warmup=0.4, floor=0.0, total_steps=10)
    half = (1 + math.cos(math.pi / 2)) / 2
    wanted = [
        0.25,
        0.5,
        0.75,
        1.0,
        1.0,
        (1 + math.cos(math.pi / 6)) / 2,
        (1 + math.cos(math.pi / 3)) / 2,
        half,
    ]
    assert [lr for (lr,) in curve(schedule, 8)] == pytest.approx(wanted)


def test_without_a_plan_the_rate_is_constant_and_a_plan_sets_the_first_step():
    schedule = WarmupCosine(optimizer_of(2.0), warmup=0.5)
    assert schedule.optimizer.param_groups[0]["lr"] == 2.0
    schedule.set_total(8)
    assert schedule.optimizer.param_groups[0]["lr"] == 2.0 / 4
    schedule.set_total(100)  # the first plan holds
    assert schedule.total_steps == 8


def test_a_number_of_steps_set_by_hand_is_kept():
    schedule = WarmupCosine(optimizer_of(1.0), warmup=0.0, total_steps=5)
    schedule.set_total(1000)
    assert schedule.total_steps == 5


@pytest.mark.parametrize("longer", [10, 25])
def test_a_resumed_schedule_follows_the_new_plan_from_where_it_was(longer):
    first = WarmupCosine(optimizer_of(1.0), warmup=0.2, floor=0.1, total_steps=10)
    curve(first, 6)
    state = first.state_dict()
    assert "total_steps" not in state
    second = WarmupCosine(optimizer_of(1.0), warmup=0.2, floor=0.1)
    second.set_total(longer)
    second.load_state_dict(state)
    assert second.last_epoch == 6
    second.optimizer.step()
    # the rate of the very next step is the optimizer's state; from then on it is the plan's
    second.step()
    lrs = [lr for (lr,) in curve(second, longer - 7)]
    assert lrs == pytest.approx([formula(step, 1.0, 0.2, 0.1, longer) for step in range(7, longer)])


@pytest.mark.parametrize(
    "settings", [{"warmup": -0.1}, {"warmup": 1.1}, {"floor": -1}, {"floor": 2}]
)
def test_bad_settings_are_named(settings):
    key, value = next(iter(settings.items()))
    with pytest.raises(ValueError, match=f"WarmupCosine: .*{key} {value}"):
        WarmupCosine(optimizer_of(1.0), **settings)


# -- curves that begin anew ------------------------------------------------------------------------
def restarts(starts, total=20, epoch=5, **settings):
    groups = [
        {"params": [nn.Parameter(torch.zeros(1))], "name": name, **({"task": task} if task else {})}
        for name, task in (("encoder", None), ("a", "a"), ("b", "b"), ("b.encoder", "b"))
    ]
    schedule = WarmRestarts(SGD(groups, lr=1.0), starts, **settings)
    schedule.set_total(total)
    schedule.set_epoch(epoch)
    return schedule


def test_a_task_that_joins_late_has_a_curve_of_its_own():
    schedule = restarts({"b": 2}, warmup=0.2)
    whole = [formula(step, 1.0, 0.2, 0.0, 20) for step in range(20)]
    half = [formula(step, 1.0, 0.2, 0.0, 10) for step in range(10)]
    found = curve(schedule, 20)
    for place, wanted in enumerate((whole, whole, half * 2, half * 2)):
        assert [lrs[place] for lrs in found] == pytest.approx(wanted)


def test_the_encoder_begins_anew_several_times():
    schedule = restarts({"encoder": [1, 3]}, warmup=0.0, floor=0.1)
    wanted = []
    for length in (5, 10, 5):
        wanted += [formula(step, 1.0, 0.0, 0.1, length) for step in range(length)]
    assert [lrs[0] for lrs in curve(schedule, 20)] == pytest.approx(wanted)


def test_a_longer_run_moves_the_last_curve_alone():
    first = restarts({"b": 2})
    curve(first, 7)
    second = restarts({"b": 2}, total=30)
    second.load_state_dict(first.state_dict())
    assert [group["lr"] for group in second.optimizer.param_groups] == pytest.approx(
        [formula(7, 1.0, 0.05, 0.0, 30)] * 2 + [formula(7, 1.0, 0.05, 0.0, 10)] * 2
    )


def test_bad_starts_are_named():
    for bad in (0, [], [3, 0]):
        with pytest.raises(ValueError, match=r"model\.scheduler\.starts\.b is"):
            restarts({"b": bad})
    with pytest.raises(ValueError, match=r"starts\.b is 4, but the run is over after 4 epochs"):
        restarts({"b": 4})
    with pytest.raises(ValueError, match=r"starts names 'bb', .*did you mean 'b'"):
        restarts({"bb": 1}).check_names(["a", "b"])
