"""Parameter groups by stage, and stages that are computed twice."""

from functools import partial

import lightning as L
import pytest
import torch
from torch.optim import SGD

from src.balancing import StaticWeights, UPGrad
from src.models import MultiTaskModel
from src.models.encoders import MLP
from src.models.optimisation.groups import stage_of
from src.models.sharing import (
    MTAN,
    PLE,
    HardSharing,
    Separate,
    SoftSharing,
    TaskAdapters,
    WeightedSharing,
)
from tests.models.backward.test_levels import QUIET, Data, batch_of


def built(sharing=HardSharing, balancer=StaticWeights, encoder=MLP, **settings):
    data = Data()
    model = MultiTaskModel(
        data.tasks,
        data.input_shape,
        partial(encoder, width=8, depth=2),
        sharing,
        balancer,
        optimizer=partial(SGD, lr=0.5),
        scheduler=None,
        **settings,
    )
    model._trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, use_distributed_sampler=False, **QUIET
    )
    model.configure_model()
    return model


@pytest.mark.parametrize(
    "sharing", [HardSharing, Separate, partial(HardSharing, until=2), TaskAdapters]
)
def test_lower_stages_learn_more_slowly(sharing):
    model = built(sharing, stage_decay=0.5, lr_multipliers={"encoder": 0.1, "number": 3.0})
    groups = {group["name"]: group for group in model.parameter_groups(0.5)}
    rates = {
        "encoder.0": 0.0125,
        "encoder.1": 0.025,
        "encoder.2": 0.05,
        "heads": 0.5,
        "number": 1.5,
    }
    rates |= {"encoder": 0.05} if sharing is TaskAdapters else {}  # adapters belong to no stage
    assert {name: group["lr"] for name, group in groups.items()} == pytest.approx(rates)
    names = {id(p): name for name, p in model.named_parameters()}
    for k in range(3):
        assert all(f"stages.{k}." in names[id(p)] for p in groups[f"encoder.{k}"]["params"])
    everything = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(everything) == sorted(id(p) for p in model.parameters())


def test_without_a_decay_stages_are_one_group():
    assert [group["name"] for group in built().parameter_groups(0.5)] == ["encoder", "heads"]


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("encoder.stages.2.0.weight", 2),
        ("stages.11.bias", 11),
        ("gates.stages", None),
        ("substages.1.x", None),
    ],
)
def test_stage_of_a_name(name, stage):
    assert stage_of(name) == stage


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.5])
def test_a_bad_decay_is_named(decay):
    with pytest.raises(
        ValueError, match=rf"model.stage_decay is {decay}; it must be above 0 and at most 1"
    ):
        built(stage_decay=decay)


@pytest.mark.parametrize(
    "balancer",
    [StaticWeights, partial(UPGrad, level="features"), partial(UPGrad, level="parameters")],
)
@pytest.mark.parametrize(
    "sharing",
    [
        HardSharing,
        Separate,
        partial(HardSharing, until=1),
        SoftSharing,
        WeightedSharing,
        TaskAdapters,
        MTAN,
        PLE,
    ],
)
def test_stages_that_are_computed_twice_give_the_same_gradients(sharing, balancer):
    gradients = []
    for twice in (False, True):
        model = built(
            sharing, balancer, partial(MLP, dropout=0.3), checkpoint_activations=twice
        ).double()
        if (
            balancer is not StaticWeights
            and balancer.keywords["level"] == "features"
            and not model.sharing.one_feature
        ):
            pytest.skip("no one feature")
        calls = []
        stage = next(
            m
            for m in model.modules()
            if isinstance(getattr(m, "stages", None), torch.nn.Sequential)
        ).stages[0]
        first = next(m for m in stage.modules() if hasattr(m, "weight"))
        first.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        torch.manual_seed(7)

        model.training_step(batch_of(), 0).backward()
        assert len(calls) == 1 or (twice and len(calls) > 1)
        gradients.append([p.grad for p in model.parameters()])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)
