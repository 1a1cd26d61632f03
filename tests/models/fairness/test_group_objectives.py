"""Objectives of groups reach the balancer, and what it decides reaches the parameters."""

from functools import partial
from typing import Any

import pytest
import torch
from torch.optim import SGD

from src.balancing import MGDA, AutoLambda, PCGrad, SmoothTchebycheff, StaticWeights
from src.batch import SENSITIVE
from src.errors import UserError
from src.models import MultiTaskModel
from src.models.encoders import MLP
from src.models.fairness import EqualizedOdds, GroupObjectives
from src.models.sharing import PaLoRA
from tests.toy import bare_trainer
from tests.toy_groups import GroupedToy


def make_model(balancer: Any, **more: Any) -> MultiTaskModel:
    data = GroupedToy()
    return MultiTaskModel(
        data.tasks,
        data.input_shape,
        encoder=partial(MLP, width=8, depth=1),
        balancer=balancer,
        optimizer=partial(SGD, lr=0.0),
        scheduler=None,
        weights={"number": 0.5},
        groups=data.sensitive_groups,
        **{"fairness": GroupObjectives, **more},
    )


def objectives_of(model: MultiTaskModel, batch: Any) -> tuple[list[torch.Tensor], list[int]]:
    """The mean loss of each task in each group that the batch has, all tasks of a group first."""
    found, places = [], []
    outputs = model.run(batch)
    for g in range(3):
        gone = batch.extras[SENSITIVE] != g
        only = {}
        for name, target in batch.targets.items():
            missing = float("nan") if target.is_floating_point() else -100
            only[name] = target.masked_fill(gone.view(-1, *[1] * (target.ndim - 1)), missing)
        sums, counts = model.heads.loss_sums(outputs, only)
        for t, name in enumerate(model.names):
            if counts[t]:
                found.append(sums[t] / counts[t] * model.weights[name])
                places.append(g * len(model.names) + t)
    return found, places


@pytest.mark.parametrize(
    "balancer",
    [StaticWeights, SmoothTchebycheff, partial(MGDA, level="parameters")],
    ids=["StaticWeights", "SmoothTchebycheff", "MGDA"],
)
def test_a_step_follows_the_weights_of_all_objectives(balancer: Any) -> None:
    model = make_model(balancer)
    data = GroupedToy(batch_size=64)
    trainer = bare_trainer(1, 1, limit_train_batches=1)
    trainer.fit(model, data)
    fairness = model.fairness
    assert isinstance(fairness, GroupObjectives)
    assert fairness.latest_O is not None
    weights_O = fairness.latest_O.double()
    assert len(weights_O) == 3 * 8

    # the rate was 0, and gradients are still there
    data.trainer = None
    sampler = data.training_batches(data.split("train"), shuffle=True)
    batch = data.split("train")[next(iter(sampler))]
    losses, places = objectives_of(model, batch)
    parameters = [p for p in model.sharing.parameters() if p.requires_grad]
    total = sum(weights_O[place] * own for place, own in zip(places, losses, strict=True))
    wanted = torch.autograd.grad(total, parameters)  # type: ignore[arg-type]
    for p, gradient in zip(parameters, wanted, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, gradient.to(p.grad), rtol=2e-4, atol=1e-6)
    if balancer is not StaticWeights:
        assert weights_O[places].std() > 0


def test_mgda_over_groups_harms_none_of_them() -> None:
    model = make_model(partial(MGDA, level="parameters"))
    data = GroupedToy(batch_size=64)
    bare_trainer(1, 1, limit_train_batches=1).fit(model, data)
    data.trainer = None
    sampler = data.training_batches(data.split("train"), shuffle=True)
    batch = data.split("train")[next(iter(sampler))]
    losses, _ = objectives_of(model, batch)
    parameters = [p for p in model.sharing.parameters() if p.requires_grad]
    step = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    for own in losses:
        gradient = torch.autograd.grad(own, parameters, retain_graph=True)
        product = torch.dot(torch.cat([g.flatten() for g in gradient]), step)
        # the least of norms has no smaller product with any gradient than its own square
        assert float(product) >= float(step @ step) * (1 - 1e-3) - 1e-9


def test_settings_that_cannot_be_right_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"never in conflict: set --model.balancer.level parameters"
    ):
        make_model(PCGrad).check(1)
    with pytest.raises(UserError, match="set accumulate_grad_batches 1"):
        make_model(StaticWeights).check(2)
    with pytest.raises(UserError, match="AutoLambda looks at another batch besides"):
        make_model(AutoLambda, fairness=EqualizedOdds).check(1)
    with pytest.raises(UserError, match="takes a preference among tasks"):
        make_model(StaticWeights, sharing=PaLoRA).check(1)
