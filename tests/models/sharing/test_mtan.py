import pytest
import torch
import torch.nn.functional as F
from torch import nn

from src.batch import InputShape
from src.models.encoders import Encoder
from src.models.encoders.encoder import top
from src.models.sharing.gates import average_places
from src.models.sharing.mtan import MTAN, resize_places
from tests.models.sharing.test_cross_stitch import (
    ENCODERS,
    TASKS,
    Tokens,
    check_contract,
    rows_of,
    seeded,
    separate_encoders,
    stir,
)


@pytest.mark.parametrize("tasks", [TASKS, ["only"]])
@pytest.mark.parametrize("name", ENCODERS)
def test_contract_over_every_kind_of_encoder(name, tasks):
    check_contract(seeded(MTAN, ENCODERS[name], tasks), ENCODERS[name])


def carried_by_hand(name, x, p, tokens):
    """Attended features (B, ..., C) at the size of p."""
    if x.shape[1:-1] == p.shape[1:-1]:
        return x
    if name == "sentences":
        return torch.stack([row[real > 0].mean(0) for row, real in zip(x, tokens, strict=True)])
    if p.ndim == 2:
        return x.mean((1, 2))
    return F.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), p.shape[1:3]).permute(0, 2, 3, 1)


def linear_norm_relu(x, linear, norm, t=None):
    """What a layer of f, shared by all, or of task t's g makes of x."""
    numbers = [linear.weight, linear.bias, norm.weight, norm.bias]
    W, b, scale, shift = numbers if t is None else [p[t] for p in numbers]
    return F.relu(F.layer_norm(x @ W.T + b, (len(b),)) * scale + shift)


@pytest.mark.parametrize("name", ENCODERS)
def test_against_products_by_hand(name):
    make, inputs = ENCODERS[name], rows_of(ENCODERS[name])
    sharing = seeded(MTAN, make, TASKS[:2]).double().eval()
    stir(sharing.attend)
    stir(sharing.carry)
    [encoder] = separate_encoders(make, 1)
    encoder.eval()
    found, seen = sharing(inputs), sharing.observe()
    tokens = inputs.get("tokens") if isinstance(inputs, dict) else None
    for t, task in enumerate(TASKS[:2]):
        state, attended = inputs, None
        for k, layout in enumerate(sharing.layouts):
            state = encoder.stages[k](state)
            x = p = layout.to_channels_last(top(state))
            if k:
                f_linear, f_norm, _ = sharing.carry[k - 1]
                f = linear_norm_relu(carried_by_hand(name, attended, p, tokens), f_linear, f_norm)
                x = torch.cat([p, f], -1)
            (g_linear, g_norm, _), h, _ = sharing.attend[k]
            a = torch.sigmoid(linear_norm_relu(x, g_linear, g_norm, t) @ h.weight[t].T + h.bias[t])
            assert 0 < a.min() < a.max() < 1
            attended = a * p
            if a.ndim > 2 and tokens is None:
                a = a.flatten(1, -2).mean(1)
            elif a.ndim > 2:
                a = torch.stack(
                    [row[real > 0].mean(0) for row, real in zip(a, tokens, strict=True)]
                )
            torch.testing.assert_close(seen[f"attention.{task}.{k + 1}"], a)
        torch.testing.assert_close(found[task], attended)


def test_what_is_each_tasks_own():
    sharing = seeded(MTAN, ENCODERS["vectors"])
    sharing(rows_of(ENCODERS["vectors"], double=False))["b"].square().sum().backward()
    for p in sharing.attend.parameters():
        assert p.grad.flatten(1).any(1).tolist() == [False, True, False]
    for p in (*sharing.encoder.parameters(), *sharing.carry.parameters()):
        assert p.grad.any()
    own = {id(p) for p in sharing.attend.parameters()}
    assert {id(p) for p in sharing.shared_parameters()} == {
        id(p) for p in sharing.parameters()
    } - own


def test_attention_is_seen_in_evaluation_alone():
    make = ENCODERS["images"]
    sharing, inputs = seeded(MTAN, make), rows_of(make, double=False)
    sharing(inputs)
    assert sharing.observe() == {}
    sharing.eval()(inputs)
    seen = sharing.observe()
    assert list(seen) == [f"attention.{task}.{k}" for k in (1, 2, 3) for task in TASKS]
    assert {name: tuple(a.shape) for name, a in seen.items() if ".a." in name} == {
        "attention.a.1": (3, 4),
        "attention.a.2": (3, 8),
        "attention.a.3": (3, 16),
    }
    assert not any(a.requires_grad for a in seen.values())
    sharing.train()(inputs)
    assert sharing.observe() == {}


def test_figures():
    sharing = seeded(MTAN, ENCODERS["images"]).eval()
    assert sharing.figures({}) == {}
    sharing(rows_of(ENCODERS["images"], double=False))
    means = {name: a.mean(0) for name, a in sharing.observe().items()}
    figures = sharing.figures(means)
    assert list(figures) == [
        "attention of stage 1",
        "attention of stage 2",
        "attention of stage 3",
    ]
    table = figures["attention of stage 2"]
    assert (list(table.index), list(table.columns)) == (TASKS, [str(c) for c in range(8)])
    assert table.loc["c", "5"] == pytest.approx(float(means["attention.c.2"][5]))


@pytest.mark.parametrize("pool", [False, True])
def test_what_fills_up_a_sequence_changes_nothing(pool):
    sharing = seeded(MTAN, lambda: Tokens(pool)).double().eval()
    tokens = torch.tensor([[3, 5, 2]])
    short, short_seen = sharing({"tokens": tokens}), sharing.observe()
    long, long_seen = sharing({"tokens": F.pad(tokens, (0, 4))}), sharing.observe()
    for task in TASKS:
        torch.testing.assert_close(long[task] if pool else long[task][:, :3], short[task])
    torch.testing.assert_close(long_seen, short_seen)


@pytest.mark.parametrize(
    ("places", "to"),
    [((6, 4), (3, 2)), ((5, 3), (2, 2)), ((3, 2), (6, 4)), ((7,), (3,)), ((4,), (4,))],
)
def test_places_of_one_kind_are_pooled(places, to):
    x = torch.randn(2, 3, *places, 5, dtype=torch.float64)
    expected = torch.empty(2, 3, *to, 5, dtype=torch.float64)
    windows = [
        [slice(i * old // new, -(-(i + 1) * old // new)) for i in range(new)]
        for old, new in zip(places, to, strict=True)
    ]
    for place in torch.cartesian_prod(*map(torch.arange, to)).view(-1, len(to)).tolist():
        window = tuple(windows[d][i] for d, i in enumerate(place))
        expected[(slice(None), slice(None), *place)] = (
            x[(slice(None), slice(None), *window)].flatten(2, -2).mean(2)
        )
    torch.testing.assert_close(resize_places(x, torch.Size(to), None), expected)


def test_places_of_another_kind_get_the_mean():
    x = torch.randn(2, 3, 4, 6, 5, dtype=torch.float64)
    mean = x.mean((2, 3))
    torch.testing.assert_close(resize_places(x, torch.Size(), None), mean)
    torch.testing.assert_close(
        resize_places(x, torch.Size([2]), None), torch.stack([mean, mean], 2)
    )
    torch.testing.assert_close(
        resize_places(mean, torch.Size([1, 2]), None), torch.stack([mean, mean], 2)[:, :, None]
    )


def test_a_row_without_tokens_has_a_mean_of_0():
    x = torch.randn(2, 2, 3, 5)
    mean = average_places(x, torch.tensor([[True, False, False], [False, False, False]]))
    assert torch.equal(mean, torch.stack([x[:, 0, 0], torch.zeros(2, 5)], 1))


class Flat(Encoder):
    """Columns become tokens only in the second stage."""

    def __init__(self):
        super().__init__(InputShape((4,)))
        self.stages = nn.Sequential(
            nn.Linear(4, 6), nn.Sequential(nn.Unflatten(-1, (3, 2)), nn.Linear(2, 3))
        )
        self.features = 3


def test_vectors_that_become_sequences():
    check_contract(seeded(MTAN, Flat), Flat)
