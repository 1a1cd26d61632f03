"""Ordered classes, counts, quantiles, bounds and survival go with every sharing architecture and
balancer: the gradients of a step are those of its definition, and alike tasks are one group.
"""

from functools import partial

import lightning as L
import numpy as np
import pytest
import torch
from torch.optim import SGD

import src.balancing
from src.balancing import Balancer, LossBalancer, PCGrad, StaticWeights
from src.batch import Batch, InputShape
from src.cli.classes import subclasses
from src.models import MultiTaskModel
from src.models.encoders import MLP
from src.models.heads import Heads
from src.tasks import CensoredRegression, Counts, Ordinal, Quantiles, Survival
from tests.models.backward.test_levels import QUIET, Halves, reference, task_losses
from tests.models.test_matrix import SHARINGS, gradients_of, in_double

ROWS = 6
WORDS = ("low", "mid", "high")
TASKS = {
    "grade": Ordinal(classes=WORDS),
    "stars": Ordinal(classes=(1, 2, 5), weight=0.5, monitor="mae"),
    "order": Ordinal(classes=WORDS, method="cumulative"),
    "visits": Counts(rate=2.0, mean=2.0),
    "calls": Counts(rate=0.5, mean=9.0, offset="days"),
    "claims": Counts(rate=1.0, mean=1.0, distribution="negative_binomial", depth=1, width=3),
    "hours": Quantiles(mean=0.0, std=1.0),
    "price": Quantiles(mean=100.0, std=30.0, monitor="mae"),
    "ic50": CensoredRegression(mean=1.0, std=2.0),
    "ec50": CensoredRegression(mean=0.0, std=3.0, monitor="mae"),
    "death": Survival(ends=(1.0, 2.0, 3.0), names=("t", "e")),
    "relapse": Survival(ends=(5.0, 20.0, 90.0), names=("u", "f")),
}
GROUPS = {
    *(("grade", "stars"), ("order",), ("visits", "calls"), ("claims",)),
    *(("hours", "price"), ("ic50", "ec50"), ("death", "relapse")),
}
SHAPE = InputShape((5,))


def labels_of(task, rng):
    """Labels as people write them, one of them missing."""
    match task:
        case Ordinal():
            values = [task.classes[k] for k in rng.integers(0, 3, ROWS)]
        case Counts():
            values = rng.integers(0, 6, ROWS).astype(float)
            if task.offset:
                values = np.stack([values, rng.uniform(1, 9, ROWS)], -1)
        case Quantiles():
            values = rng.normal(task.mean, task.std, ROWS)
        case CensoredRegression():
            values = [f"{mark}{rng.normal():.3f}" for mark in ("", ">", "<", "", ">", "<")]
        case Survival():
            times = rng.uniform(0, task.ends[-1] * 1.2, ROWS)
            values = np.stack([times, rng.integers(0, 2, ROWS)], -1)
    values = np.array(values, dtype=object)
    values[rng.integers(ROWS)] = None
    return values


def batch_for(tasks=TASKS):
    rng = np.random.default_rng(0)
    targets = {}
    for name, task in tasks.items():
        encoded = task.encode(labels_of(task, rng))
        targets[name] = encoded.double() if encoded.is_floating_point() else encoded
    return Batch(in_double(SHAPE.example(ROWS)), targets, torch.arange(ROWS))


def model_of(sharing, balancer):
    make = partial(MLP, width=6, depth=1)
    model = MultiTaskModel(TASKS, SHAPE, make, sharing, balancer, partial(SGD, lr=0.1), None)
    model._trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, use_distributed_sampler=False, **QUIET
    )
    model.configure_model()
    return model.double()


def test_alike_tasks_are_one_group():
    heads = Heads(TASKS, dict.fromkeys(TASKS, 4))
    assert {group.names for group in heads.groups} == GROUPS


# a preference weighs the losses of PaLoRA, which tests of its own look at
@pytest.mark.parametrize("sharing", [name for name in SHARINGS if name != "PaLoRA"])
def test_gradients_of_a_step(sharing):
    for balancer in (StaticWeights, partial(Halves, level="parameters"), Halves):
        model = model_of(SHARINGS[sharing], balancer)
        level = model.balancer.level
        if level == "features" and not model.sharing.one_feature:
            continue
        with torch.no_grad():
            draw = torch.Generator().manual_seed(1)
            for p in model.parameters():
                p.add_(0.05 * torch.randn(p.shape, generator=draw, dtype=torch.float64))
        batch = batch_for()
        torch.manual_seed(3)
        model.training_step(batch, 0).backward()
        torch.manual_seed(3)
        if level is None:
            features = model.sharing(batch.inputs)
            expected = gradients_of(sum(task_losses(model, batch, features)), model)
        else:
            expected = reference(model, batch, level)
            torch.manual_seed(3)
            model.sharing(batch.inputs)
        if (penalty := model.sharing.penalty()) is not None:
            of_penalty = gradients_of(penalty, model)
            expected = {key: value + of_penalty[key] for key, value in expected.items()}
        for name, p in (*model.sharing.named_parameters(), *model.heads.named_parameters()):
            assert p.grad is not None, name
            torch.testing.assert_close(
                p.grad, expected[id(p)], rtol=1e-5, atol=1e-9, msg=f"{name} under {balancer}"
            )


METHODS = sorted(
    kind.__name__ for kind in subclasses(Balancer) if kind.__module__.startswith("src.balancing")
)


@pytest.mark.parametrize("method", METHODS)
def test_every_balancer_takes_a_step(method):
    kind = getattr(src.balancing, method)
    levels = [None] if issubclass(kind, LossBalancer) else kind.levels
    for level in levels:
        settings = {} if level is None else {"level": level}
        model = model_of(SHARINGS["HardSharing"], partial(kind, **settings))
        if model.balancer.needs_lookahead:
            pytest.skip("it looks ahead at batches of a data module")
        model.training_step(batch_for(), 0).backward()
        for name, p in model.named_parameters():
            assert p.grad is None or p.grad.isfinite().all(), name
        assert any(p.grad is not None and p.grad.any() for p in model.sharing.parameters())


def test_a_task_without_a_label_in_a_batch_has_no_gradient():
    model = model_of(SHARINGS["HardSharing"], partial(PCGrad, level="features"))
    batch = batch_for()
    missing = torch.nan if batch.targets["death"].is_floating_point() else -100
    batch.targets["death"][:] = missing
    batch.targets["grade"][:] = -100
    model.training_step(batch, 0).backward()
    for name in ("death", "grade"):
        assert not any(p.grad.any() for p in model.heads[name].parameters())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
