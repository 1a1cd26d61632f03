"""Costs of the parts of a network, against counts by hand."""

from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from src.models import MultiTaskModel
from src.models.encoders import MLP
from src.planning.measure import extrapolate_costs, measure_costs, weigh_parts
from tests.models.test_matrix import SHARINGS
from tests.toy import Toy


class Small(nn.Module):
    """Two stages and two heads, small enough to count every byte."""

    def __init__(self) -> None:
        super().__init__()
        below = nn.Linear(4, 8)
        below.bias.requires_grad_(False)
        self.stages = nn.Sequential(nn.Sequential(below, nn.Tanh()), nn.Linear(8, 2))
        self.heads = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(2, 1)})
        self.heads.forward = lambda z: [head(z) for head in self.heads.values()]
        self.balancer = nn.BatchNorm1d(1, affine=False)

    @property
    def sharing(self) -> nn.Module:
        return self.stages

    def parts(self) -> dict[str, nn.Module]:
        stages = {f"sharing.stages.{k}": stage for k, stage in enumerate(self.stages)}
        return stages | {f"heads.{name}": head for name, head in self.heads.items()}


def toy(**settings: Any) -> MultiTaskModel:
    data = Toy()
    settings.setdefault("encoder", partial(MLP, width=32, depth=2))
    model = MultiTaskModel(data.tasks, data.input_shape, **settings)
    model.configure_model()
    return model


def sample(count: int) -> tuple[Tensor, dict[str, Tensor]]:
    batch = Toy().split("train")[torch.arange(count)]
    return batch.inputs, batch.targets  # type: ignore[return-value]


def test_by_hand() -> None:
    found = measure_costs(cast(Any, Small()), torch.randn(10, 4))
    bytes_of = {
        part: (c.parameters, c.gradients, c.buffers, c.activations) for part, c in found.items()
    }
    # a linear layer keeps its input, tanh its output, which the next layer's input is; the heads
    # read the same features
    assert bytes_of == {
        "sharing.stages.0": (4 * 40, 4 * 32, 0, 10 * 4 * 4 + 10 * 8 * 4),
        "sharing.stages.1": (4 * 18, 4 * 18, 0, 0),
        "heads.a": (4 * 9, 4 * 9, 0, 10 * 2 * 4),
        "heads.b": (4 * 3, 4 * 3, 0, 0),
        "balancer": (0, 0, 4 + 4 + 8, 0),
    }
    assert all(cost.seconds > 0 for part, cost in found.items() if part != "balancer")


@pytest.mark.parametrize("name", SHARINGS)
def test_every_weight_is_in_one_part(name: str) -> None:
    model = toy(sharing=SHARINGS[name], encoder=partial(MLP, width=8, depth=1))
    assert sum(cost.parameters for cost in weigh_parts(model).values()) == 4 * sum(
        p.numel() for p in model.parameters()
    )
    assert {
        part for part in weigh_parts(model) if part not in ("sharing", "heads", "balancer")
    } == set(model.parts())


@pytest.mark.parametrize("name", ["HardSharing", "NDDR", "MMoE"])
def test_more_rows_by_a_straight_line(name: str) -> None:
    model = toy(sharing=SHARINGS[name])
    line, really = extrapolate_costs(model, sample, 48), measure_costs(model, *sample(48))
    assert line.keys() == really.keys()
    for part, cost in really.items():
        assert line[part].activations == pytest.approx(cost.activations, rel=0.002, abs=32), part


def test_labels_of_a_few_rows_alone() -> None:
    """A split of one row gives no line; twice the rows take twice as much."""
    model = toy()
    one, two = (extrapolate_costs(model, lambda count: sample(1), rows) for rows in (1, 2))
    assert (
        sum(c.activations for c in two.values()) == 2 * sum(c.activations for c in one.values()) > 0
    )


def test_the_model_stays_as_it_was() -> None:
    model = toy(encoder=partial(MLP, width=8, depth=1, dropout=0.5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    measure_costs(model, *sample(6))
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.sharing.modules())


def test_recomputed_stages_keep_their_inputs() -> None:
    whole, less = (
        measure_costs(toy(checkpoint_activations=on), *sample(40)) for on in (False, True)
    )
    stages = [part for part in whole if ".stages." in part]
    # of the input to the first, and of what the first two put out
    assert [less[part].activations for part in stages] == [40 * 5 * 4, 40 * 32 * 4, 40 * 32 * 4]
    assert sum(whole[part].activations for part in stages) > 3 * 40 * 32 * 4
