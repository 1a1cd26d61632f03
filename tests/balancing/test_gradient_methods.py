"""Methods that make a direction of the gradients themselves."""

import io

import numpy as np
import pytest
import torch

from src.balancing import ExcessMTL, GradDrop
from src.hashing import uniform
from tests.balancing.gradient_sets import SETS, losses_of, names

ALL = pytest.mark.parametrize("J", list(SETS.values()), ids=list(SETS))


def dropped(J, U, leak):
    d = np.zeros(J.shape[1])
    for i, (column, u) in enumerate(zip(J.T, U, strict=True)):
        total = np.abs(column).sum()
        positive = u < (1 + (column.sum() / total if total else 0)) / 2
        for g in column:
            d[i] += g if (g > 0) == positive else leak * g
    return d


@pytest.mark.parametrize("leak", [0.0, 0.3])
@ALL
def test_graddrop(J, leak):
    N = J.shape[1]
    for key in (0, 2**61 + 5):
        d = GradDrop(names(len(J)), leak=leak).combine(torch.tensor(J), losses_of(np.ones(len(J)), key=key), 0)
        wanted = dropped(J, uniform(key, 0, N, torch.device("cpu")).numpy(), leak)
        np.testing.assert_allclose(d.numpy(), wanted, atol=1e-12 * np.abs(J).max())


@pytest.mark.parametrize("first", [0, 1, 77, 123])
def test_graddrop_on_two_ranks_is_that_of_one(first):
    J = torch.tensor(SETS["eight conflicting"].repeat(10, axis=1))
    balancer, losses = GradDrop(names(8)), losses_of(np.ones(8), key=3)
    parts = [balancer.combine(J[:, :first], losses, 0), balancer.combine(J[:, first:], losses, first)]
    torch.testing.assert_close(torch.cat(parts), balancer.combine(J, losses, 0), rtol=0, atol=1e-13)  # sums of 8, in any order


@ALL
def test_graddrop_that_leaks_all_is_the_sum(J):
    d = GradDrop(names(len(J)), leak=1.0).combine(torch.tensor(J), losses_of(np.ones(len(J))), 0)
    np.testing.assert_allclose(d.numpy(), J.sum(0), atol=1e-12 * np.abs(J).max())


def test_graddrop_keeps_each_sign_as_often_as_its_share():
    J, keys = SETS["five random"], 4000
    balancer, rows = GradDrop(names(5)), torch.tensor(SETS["five random"])
    drawn = np.stack([balancer.combine(rows, losses_of(np.ones(5), key=key), 0).numpy() for key in range(keys)])
    up, down = np.maximum(J, 0).sum(0), np.minimum(J, 0).sum(0)
    P = up / (up - down)
    deviation = np.sqrt(P * (1 - P) / keys) * (up - down)
    assert (np.abs(drawn.mean(0) - (P * up + (1 - P) * down)) <= 4.5 * deviation + 1e-9).all()


def test_what_graddrop_draws_is_uniform_over_coordinates_and_over_keys():
    U = np.stack([uniform(key, 0, 1000, torch.device("cpu")).numpy() for key in range(1000)])
    assert 0 <= U.min() < 1e-4
    assert 1 - 1e-4 < U.max() < 1
    z = (U - 0.5) * np.sqrt(12)
    assert np.abs(np.histogram(U, 20, (0, 1))[0] / 5e4 - 1).max() < 0.03
    assert z.mean(0).std() * np.sqrt(1000) == pytest.approx(1, abs=0.15)
    assert z.mean(1).std() * np.sqrt(1000) == pytest.approx(1, abs=0.15)
    for product in (z[1:] * z[:-1], z[:, 1:] * z[:, :-1], z[1:, 1:] * z[:-1, :-1], z[1:, :-1] * z[:-1, 1:]):
        assert abs(product.mean()) * 1000 < 4.5  # standard errors


def test_graddrop_where_all_agree_drops_nothing():
    J = np.abs(SETS["five random"])
    d = GradDrop(names(5)).combine(torch.tensor(J), losses_of(np.ones(5), key=9), 0)
    np.testing.assert_allclose(d.numpy(), J.sum(0))
    zero = GradDrop(names(2)).combine(torch.zeros(2, 4), losses_of(np.ones(2)), 0)
    assert zero.tolist() == [0, 0, 0, 0]


def prepared(T, N, eta=0.2):
    balancer = ExcessMTL(names(T), "parameters", eta=eta)
    balancer.prepare(N)
    return balancer.double()


@ALL
def test_excess_risk(J):
    T, N = J.shape
    rng, balancer = np.random.default_rng(1), prepared(T, N)
    h, w, first = np.zeros((T, N)), np.ones(T), None
    for _ in range(5):
        rows = J * rng.normal(size=(T, N))
        h += rows**2
        excess = (rows**2 / (np.sqrt(h) + 1e-7)).sum(1)
        first = excess if first is None else first
        w = w * np.exp(0.2 * np.divide(excess, first, out=np.zeros(T), where=first > 0))
        w = T * w / w.sum()
        losses = losses_of(np.ones(T))
        d = balancer.combine(torch.tensor(rows), losses, 0)
        np.testing.assert_allclose(d.numpy(), w @ rows, atol=1e-9 * np.abs(rows).max())
        np.testing.assert_allclose(balancer.head_weights(losses).numpy(), w, rtol=1e-9)


def test_excess_risk_leaves_absent_tasks_and_bad_steps_alone():
    balancer = prepared(3, 4)
    rows = torch.tensor(SETS["one task"].repeat(3, 0)[:, :4])
    rows[1] = 0
    for _ in range(3):
        balancer.combine(rows, losses_of([1.0, 0, 1], [True, False, True]), 0)
    assert balancer.first_T.isnan().tolist() == [False, True, False]
    w = balancer.weights_T
    assert w.sum() == pytest.approx(3)
    assert w[0] == w[2] > w[1] > 0
    before = {name: value.clone() for name, value in balancer.state_dict().items()}
    rows[0, 0] = torch.inf
    assert not balancer.combine(rows, losses_of(np.ones(3)), 0).isfinite().all()
    assert all(torch.equal(value.nan_to_num(-1), before[name].nan_to_num(-1)) for name, value in balancer.state_dict().items())


def test_excess_risk_resumes_with_the_same_bits():
    rows, losses, first, second = torch.tensor(SETS["five random"]), losses_of(np.ones(5)), prepared(5, 50), prepared(5, 50)
    for k in range(3):
        first.combine(rows * (k + 1), losses, 0)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(first.combine(rows, losses, 0), second.combine(rows, losses, 0))


def test_excess_risk_refuses_features_and_bad_settings():
    with pytest.raises(ValueError, match=r"set --model\.balancer\.level parameters"):
        ExcessMTL(names(2), "features")
    with pytest.raises(ValueError, match=r"eta 0\.0"):
        ExcessMTL(names(2), "parameters", eta=0.0)
    with pytest.raises(ValueError, match=r"leak 1\.5"):
        GradDrop(names(2), leak=1.5)
