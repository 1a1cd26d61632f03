import pytest
import torch

from src.batch import InputShape
from src.models.encoders import MLP
from src.models.encoders.encoder import top, with_top
from src.models.sharing.nddr import NDDR
from tests.models.sharing.test_cross_stitch import (
    ENCODERS,
    TASKS,
    check_contract,
    rows_of,
    seeded,
    separate_encoders,
    stir,
)


@pytest.mark.parametrize("tasks", [TASKS, ["only"]])
@pytest.mark.parametrize("name", ENCODERS)
def test_contract_over_every_kind_of_encoder(name, tasks):
    check_contract(seeded(NDDR, ENCODERS[name], tasks), ENCODERS[name])


def normalised(x):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("name", ["table", "images", "skip", "tokens"])
def test_against_products_by_hand(name):
    make = ENCODERS[name]
    sharing = seeded(NDDR, make, TASKS[:2]).double()
    stir(sharing.exchanges)
    states = [rows_of(make)] * 2
    encoders = separate_encoders(make, 2)
    for k, layout in enumerate(sharing.encoders.layouts):
        W, norm = sharing.exchanges[k].weight, sharing.exchanges[k].norm
        states = [encoder.stages[k](state) for encoder, state in zip(encoders, states, strict=True)]
        both = torch.cat([layout.to_channels_last(top(state)) for state in states], -1)
        for t in range(2):
            reduced = both @ torch.cat([W[t, :, 0], W[t, :, 1]], 1).T
            mixed = normalised(reduced) * norm.weight[t] + norm.bias[t]
            if name == "tokens":
                # padding stays zero
                mixed = mixed * both.any(-1, keepdim=True)
            states[t] = with_top(states[t], layout.from_channels_last(mixed))
    found = sharing(rows_of(make))
    torch.testing.assert_close(found["a"], states[0])
    torch.testing.assert_close(found["b"], states[1])


def test_starts_with_mostly_own_features_normalised():
    make = ENCODERS["one stage"]
    sharing = seeded(NDDR, make, own=0.8).double()
    x, y, z = (encoder(rows_of(make)) for encoder in separate_encoders(make, 3))
    torch.testing.assert_close(
        sharing(rows_of(make))["b"], normalised(0.1 * x + 0.8 * y + 0.1 * z), rtol=1e-6, atol=1e-6
    )


def test_a_sample_does_not_depend_on_its_batch():
    make = ENCODERS["images"]
    sharing, inputs = seeded(NDDR, make).double(), rows_of(make, 4)
    torch.testing.assert_close(sharing(inputs[1:2])["a"], sharing(inputs)["a"][1:2])


def test_what_follows_the_last_stage_is_each_tasks_own():
    sharing = seeded(NDDR, ENCODERS["vectors"])
    sharing(rows_of(ENCODERS["vectors"], double=False))["b"].square().sum().backward()
    first, _, last = sharing.exchanges
    for p in last.parameters():
        assert p.grad.flatten(1).any(1).tolist() == [False, True, False]
    for p in first.parameters():
        assert p.grad.flatten(1).any(1).all()
    own = {id(p) for p in last.parameters()}
    assert {id(p) for p in sharing.shared_parameters()} == {
        id(p) for p in sharing.parameters()
    } - own


def test_figures():
    sharing = stir(seeded(NDDR, ENCODERS["vectors"]))
    figures = sharing.figures({})
    assert list(figures) == ["weights of stage 1", "weights of stage 2", "weights of stage 3"]
    for table, exchange in zip(figures.values(), sharing.exchanges, strict=True):
        assert (list(table.index), list(table.columns)) == (TASKS, TASKS)
        assert table.loc["c", "a"] == pytest.approx(
            exchange.weight[2, :, 0].abs().sum().item() / 64
        )


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match=r"NDDR: own 2.0 is outside \[0, 1\]"):
        seeded(NDDR, ENCODERS["vectors"], own=2.0)
    with pytest.raises(
        ValueError, match="NDDR: a stage puts out 1 channel, and LayerNorm leaves nothing"
    ):
        seeded(NDDR, lambda: MLP(InputShape((5,)), width=1))
