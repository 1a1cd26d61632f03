"""The bytes on a device: weights, gradients, optimizer states and activations."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch.optim import SGD, AdamW

from src.balancing import PCGrad
from src.parallel import DDP
from src.planning.devices import Devices
from src.planning.measure import Cost, collect_tensors
from src.planning.memory import (
    Footprint,
    Load,
    count_task_gradients,
    measure_optimizer_ratio,
)
from src.planning.plan import compute_loads
from tests.planning.toys import plan_of, toy


@pytest.mark.parametrize(
    ("optimizer", "ratio"),
    [
        (SGD, 0.0),
        (partial(SGD, momentum=0.9), 1.0),
        (AdamW, 2.0),
        (partial(AdamW, amsgrad=True), 3.0),
        (partial(torch.optim.Adafactor, lr=0.1), 2 / 64),
        (torch.optim.LBFGS, None),
    ],
)
def test_what_an_optimizer_keeps(optimizer: Any, ratio: float | None) -> None:
    found = measure_optimizer_ratio(optimizer)
    assert found == pytest.approx(ratio) if ratio is not None else found > 0


def test_copies_and_parts_add_up() -> None:
    model = toy()
    parts = {
        part: Cost(100 * k, 50 * k, 7, 30 * k, 0.0)
        for k, part in enumerate(collect_tensors(model), start=1)
    }
    names = list(parts)
    whole = dict.fromkeys(names, 1.0)
    footprint = Footprint(parts, optimizer_ratio=2.0)
    copy = footprint.load(whole)
    weights, trained = (
        sum(c.parameters for c in parts.values()),
        sum(c.gradients for c in parts.values()),
    )
    assert copy == Load(
        weights + 7 * len(names), trained, 2 * trained, sum(c.activations for c in parts.values())
    )
    halves = [dict.fromkeys(names[:4], 1.0), dict.fromkeys(names[4:], 1.0)]
    apart = compute_loads(footprint, halves)
    assert sum(load.total for load in apart) == copy.total
    shard = footprint.load(dict.fromkeys(names, 0.25))
    assert shard.gradients == copy.gradients / 4
    assert shard.activations == copy.activations
    assert replace(footprint, scale=2.0).load(whole).total == 2 * copy.total


def test_gradients_of_tasks_take_room() -> None:
    model = toy(balancer=partial(PCGrad, level="parameters"))
    assert sum(count_task_gradients(model).values()) == 8 * 4 * sum(
        p.numel() for p in model.sharing.parameters()
    )
    assert count_task_gradients(toy()) == {}
    loads = [plan_of(m, DDP(), Devices(2)).loads[0] for m in (model, toy())]
    assert loads[0].gradients - loads[1].gradients == sum(count_task_gradients(model).values())
