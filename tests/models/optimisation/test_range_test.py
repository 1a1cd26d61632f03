"""The range test: where its curves come from, and what it leaves as it was."""

from functools import partial
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch.optim import SGD, Optimizer

from src.models import MultiTaskModel
from src.models.encoders import MLP
from src.models.optimisation.groups import Grouping
from src.models.optimisation.range_test import ENCODER, Ramp, RangeTest, make_fresh
from tests.toy import Toy, bare_trainer

RATES = np.geomspace(1e-4, 1e2, 12)


def search(seeds: int = 2, rates: np.ndarray = RATES, **settings: Any) -> tuple[Any, RangeTest]:
    data = Toy()
    model = MultiTaskModel(
        data.tasks,
        data.input_shape,
        partial(MLP, width=8, depth=1),
        optimizer=settings.pop("optimizer", partial(SGD, lr=0.1)),
        scheduler=None,
        lr_multipliers=dict.fromkeys(data.tasks, 1.0),
    )
    model.grouping = Grouping()
    model.configure_model()
    test = RangeTest(seeds, rates, order_seed=77)
    test.states = [make_fresh(model, 100 + k).state_dict() for k in range(seeds)]
    watch: list[L.Callback] = settings.pop("watch", [])
    trainer = bare_trainer(1, -1, callbacks=[test, *watch], max_steps=test.most_steps, **settings)
    trainer.fit(model, data)
    return trainer, test


class Watches(L.Callback):
    """Keeps rates and weights before each step."""

    def __init__(self) -> None:
        self.rates: list[dict[str, float]] = []
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer
    ) -> None:
        self.rates.append({g["name"]: g["lr"] for g in optimizer.param_groups})
        named = pl_module.named_parameters()
        self.weights.append({name: p.detach().clone() for name, p in named})


def test_one_part_moves_and_the_others_rest() -> None:
    watch = Watches()
    _, test = search(seeds=1, rates=np.geomspace(1e-4, 1e-2, 5), watch=[watch])
    assert {len(losses) for each in test.curves.values() for losses in each} == {6}
    first, second = watch.rates[:5], watch.rates[6:11]
    for k, rate in enumerate(np.geomspace(1e-4, 1e-2, 5)):
        assert first[k].pop(ENCODER) == pytest.approx(rate)
        assert second[k].pop(ENCODER) == 0
        assert set(first[k].values()) == {0.0}
        assert list(second[k].values()) == pytest.approx([rate] * len(second[k]))

    # each ramp begins with the fresh weights, which are not the run's
    for begin in (0, 6):
        for name, weight in watch.weights[begin].items():
            assert torch.equal(weight, test.states[0][name])
    for name in watch.weights[0]:
        rests = name.startswith("heads.")
        assert torch.equal(watch.weights[4][name], watch.weights[0][name]) == rests, name
    moved = [
        n for n in watch.weights[6] if not torch.equal(watch.weights[10][n], test.states[0][n])
    ]
    assert moved
    assert all(name.startswith("heads.") for name in moved)


def test_a_curve_ends_where_it_diverges_and_the_others_go_on() -> None:
    _, test = search(rates=np.geomspace(1e-3, 1e6, 40))
    assert set(test.curves) == {ENCODER, *Toy().tasks}
    for losses in test.curves["number"]:
        assert len(losses) < 41
        assert np.isfinite(losses).all()
    ended = {len(losses) for each in test.curves.values() for losses in each}
    assert len(ended) > 1


def test_seeds_have_other_weights_and_the_same_numbers_come_again() -> None:
    _, test = search()
    first, second = test.curves[ENCODER]
    assert first[0] == pytest.approx(1.0)  # a share of the first loss
    assert first[1:] != second[1:]
    _, again = search()
    assert test.curves == again.curves


def test_micro_batches_are_one_step() -> None:
    _, test = search(seeds=1, accumulate_grad_batches=2)
    assert all(len(losses) <= 13 for each in test.curves.values() for losses in each)


def test_a_fresh_network_leaves_the_other_as_it_is() -> None:
    data = Toy()
    model = MultiTaskModel(data.tasks, data.input_shape, partial(MLP, width=8))
    model.configure_model()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    fresh = make_fresh(model, 5)
    same = MultiTaskModel(data.tasks, data.input_shape, partial(MLP, width=8), seed=5)
    same.configure_model()
    for name, p in same.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], p)
    for name, p in model.state_dict().items():
        assert torch.equal(p, before[name])
    assert model.seed == 0


def test_losses_of_several_tasks_count_as_shares() -> None:
    ramp = Ramp(["a", "b"], [], {})
    for losses in ({"a": 2.0, "b": 100.0}, {"a": 1.0, "b": 100.0}, {"b": 50.0}, {}):
        assert not ramp.note(losses)
    assert ramp.losses == pytest.approx([1.0, 0.75, 0.5, 0.5])


def test_a_likelihood_below_zero_does_not_diverge_as_it_falls() -> None:
    ramp = Ramp(["a"], [], {})
    for loss in np.linspace(1.0, -3.0, 30):
        assert not ramp.note({"a": float(loss)})
    assert any(ramp.note({"a": 40.0}) for _ in range(3))
    assert ramp.over
    assert not ramp.note({"a": 0.0})
