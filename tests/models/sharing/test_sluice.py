import pytest
import torch
from torch import nn

from src.batch import InputShape
from src.models.encoders import Encoder
from src.models.encoders.encoder import top, with_top
from src.models.sharing.sluice import Sluice
from tests.models.sharing.test_cross_stitch import (
    ENCODERS,
    TASKS,
    check_contract,
    rows_of,
    same_as_separate,
    seeded,
    separate_encoders,
    stir,
)


@pytest.mark.parametrize("tasks", [TASKS, ["only"]])
@pytest.mark.parametrize("name", ENCODERS)
def test_contract_over_every_kind_of_encoder(name, tasks):
    check_contract(seeded(Sluice, ENCODERS[name], tasks), ENCODERS[name])


@pytest.mark.parametrize("name", ENCODERS)
def test_identities_are_separate_encoders(name):
    same_as_separate(seeded(Sluice, ENCODERS[name], own=1.0), ENCODERS[name])


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("vectors", [0, 1, 2]),
        ("images", [2]),  # the others are images
        ("pixels", [0, 2]),  # the second is smaller
        ("tokens", [0, 1, 2]),
        ("sentences", [2]),
        ("one stage", [0]),
    ],
)
def test_features_mix_stages_of_the_last_ones_shape(name, read):
    sharing = seeded(Sluice, ENCODERS[name], own=0.7)
    assert sharing.read == read
    others = [0.3 / max(len(read) - 1, 1)] * (len(read) - 1)
    torch.testing.assert_close(sharing.betas, torch.tensor([[*others, 0.7 if others else 1.0]] * 3))


@pytest.mark.parametrize("subspaces", [1, 2])
@pytest.mark.parametrize("name", ["table", "images", "pixels", "skip", "tokens"])
def test_against_sums_by_hand(name, subspaces):
    make = ENCODERS[name]
    sharing = seeded(Sluice, make, TASKS[:2], subspaces=subspaces).double()
    stir(sharing.exchanges)
    with torch.no_grad():
        sharing.betas += torch.linspace(-0.5, 0.5, sharing.betas.numel()).view_as(sharing.betas)
    states = [rows_of(make)] * 2
    encoders = separate_encoders(make, 2)
    expected = [0, 0]
    for k, layout in enumerate(sharing.encoders.layouts):
        states = [encoder.stages[k](state) for encoder, state in zip(encoders, states, strict=True)]
        alpha = sharing.exchanges[k].weight.reshape(2 * subspaces, 2 * subspaces)
        parts = [
            part
            for state in states
            for part in layout.to_channels_last(top(state)).chunk(subspaces, -1)
        ]
        mixed = [
            sum(alpha[i, j] * part for j, part in enumerate(parts)) for i in range(2 * subspaces)
        ]
        for t in range(2):
            x = torch.cat(mixed[t * subspaces : (t + 1) * subspaces], -1)
            states[t] = with_top(states[t], layout.from_channels_last(x))
            if k in sharing.read:
                expected[t] = expected[t] + sharing.betas[t, sharing.read.index(k)] * x
    found = sharing(rows_of(make))
    torch.testing.assert_close(found["a"], expected[0])
    torch.testing.assert_close(found["b"], expected[1])


def test_what_is_each_tasks_own():
    sharing = seeded(Sluice, ENCODERS["vectors"])
    sharing(rows_of(ENCODERS["vectors"], double=False))["b"].square().sum().backward()
    last = sharing.exchanges[-1].weight
    for p in (last, sharing.betas):
        assert p.grad.flatten(1).any(1).tolist() == [False, True, False]
    assert sharing.exchanges[0].weight.grad.flatten(1).any(1).all()
    own = {id(last), id(sharing.betas)}
    assert {id(p) for p in sharing.shared_parameters()} == {
        id(p) for p in sharing.parameters()
    } - own


@pytest.mark.parametrize("name", ["vectors", "images"])
def test_penalty_by_hand(name):
    make = ENCODERS[name]
    sharing = seeded(Sluice, make, TASKS[:2], subspaces=4, orthogonality=0.5).double()
    expected = torch.zeros((), dtype=torch.float64)
    for encoder in separate_encoders(make, 2):
        for stage, layout in zip(encoder.stages, sharing.encoders.layouts, strict=True):
            *_, W = [m.weight for m in stage.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
            assert len(W) == layout.channels
            rows = W.flatten(1)
            for i in range(layout.channels):
                for j in range(i):
                    if i // (layout.channels // 4) != j // (layout.channels // 4):
                        expected = expected + 0.5 * (rows[i] @ rows[j]) ** 2
    torch.testing.assert_close(sharing.penalty(), expected)
    sharing.penalty().backward()
    reached = {
        name for name, p in sharing.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert reached
    assert all(name.endswith("weight") and "exchanges" not in name for name in reached)


def test_orthogonal_subspaces_cost_nothing():
    sharing = seeded(Sluice, ENCODERS["one stage"], orthogonality=2.0)
    weight = sharing.encoders.stack_parameters(0)["0.1.weight"]
    with torch.no_grad():
        weight.zero_()
        weight[:, 0, 0] = weight[:, 1, 0] = weight[:, 4, 1] = 3.0
        assert sharing.penalty().item() == 0
        weight[1, 4, 0] = 1.0
    assert sharing.penalty().item() == 2 * (3**2 + 3**2)


@pytest.mark.parametrize("settings", [{"orthogonality": 0.0}, {"subspaces": 1}])
def test_no_penalty(settings):
    assert seeded(Sluice, ENCODERS["vectors"], **settings).penalty() is None


class Scale(Encoder):
    def __init__(self):
        super().__init__(InputShape((4,)))
        self.stages = nn.Sequential(nn.LayerNorm(4))
        self.features = 4


def test_a_penalty_of_nothing_warns():
    with pytest.warns(
        UserWarning, match=r"Sluice: orthogonality 0.01 has no matrix of any stage to act on"
    ):
        sharing = seeded(Sluice, Scale)
    assert sharing.penalty() is None


def test_finding_shapes_out_takes_nothing_from_the_generator():
    seeded(Sluice, ENCODERS["vectors"])
    after = torch.rand(1)
    separate_encoders(ENCODERS["vectors"], 3)
    assert torch.equal(after, torch.rand(1))


def test_figures():
    sharing = stir(seeded(Sluice, ENCODERS["pixels"], TASKS[:2]))
    figures = sharing.figures({})
    assert list(figures) == [
        "alphas of stage 1",
        "alphas of stage 2",
        "alphas of stage 3",
        "betas",
    ]
    names = ["a.1", "a.2", "b.1", "b.2"]
    for k in range(3):
        table = figures[f"alphas of stage {k + 1}"]
        assert (list(table.index), list(table.columns)) == (names, names)
        assert table.loc["b.1", "a.2"] == pytest.approx(
            sharing.exchanges[k].weight[1, 0, 0, 1].item()
        )
    assert (list(figures["betas"].index), list(figures["betas"].columns)) == (
        ["a", "b"],
        ["stage 1", "stage 3"],
    )
    assert figures["betas"].loc["b", "stage 3"] == pytest.approx(sharing.betas[1, 1].item())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"subspaces": 3}, "Sluice: subspaces 3 must divide the 8 channels of a stage"),
        ({"subspaces": 0}, "Sluice: subspaces 0 must divide"),
        ({"own": -1.0}, r"Sluice: own -1.0 is outside \[0, 1\]"),
        ({"orthogonality": -0.1}, "Sluice: orthogonality -0.1 must be at least 0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        seeded(Sluice, ENCODERS["vectors"], **settings)
