"""Methods that make a direction of the gradients themselves."""

import io
from collections import Counter

import numpy as np
import pytest
import torch

from src.balancing import Coordinates, ExcessMTL, GradDrop
from src.rng import draw_uniform
from tests.balancing.gradient_sets import SETS, losses_of, names

ALL = pytest.mark.parametrize("J", list(SETS.values()), ids=list(SETS))


def alone(balancer, J, losses, first=0):
    """The direction where each coordinate is by itself."""
    return balancer.combine(torch.as_tensor(J), losses, Coordinates(first))


def per_sample(T, **settings):
    return GradDrop(names(T), per_sample=True, **settings)


def dropped(J, signal, U, leaks):
    """Algorithm 1 for rows J (T, N) and their signals (T, N), coordinate by coordinate."""
    d = np.zeros(J.shape[1])
    for i, u in enumerate(U):
        total = np.abs(signal[:, i]).sum()
        positive = u < (1 + (signal[:, i].sum() / total if total else 0)) / 2
        for g, s, leak in zip(J[:, i], signal[:, i], leaks, strict=True):
            d[i] += g if s != 0 and (s > 0) == positive else leak * g
    return d


@pytest.mark.parametrize(
    "make", [per_sample, lambda T, **settings: GradDrop(names(T), "parameters", **settings)]
)
@pytest.mark.parametrize("leak", [0.0, 0.3])
@ALL
def test_graddrop_by_coordinates(J, leak, make):
    T, N = J.shape
    for key in (0, 2**61 + 5):
        d = alone(make(T, leak=leak), J, losses_of(np.ones(T), key=key))
        wanted = dropped(J, J, draw_uniform(key, 0, N, torch.device("cpu")).numpy(), [leak] * T)
        np.testing.assert_allclose(d.numpy(), wanted, atol=1e-12 * np.abs(J).max())


def batch(T, B, F, seed=0):
    """Features (B, F) and gradients (T, B, F)."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(B, F)), rng.normal(size=(T, B, F)) + rng.normal(size=(T, 1, F))


@pytest.mark.parametrize("leak", [0.0, 0.3, {"t1": 1.0, "t3": 0.25}])
def test_graddrop_is_the_papers(leak):
    """One draw for all samples of a feature, by the sign of sum over samples of sign(z) g."""
    z, g = batch(4, 6, 9)
    z[:, 2] = (
        0  # a unit that is dead for the whole batch has no sign: what does not leak is dropped
    )
    leaks = [leak.get(name, 0.0) for name in names(4)] if isinstance(leak, dict) else [leak] * 4
    for key in (0, 5, 2**61 + 5):
        where = Coordinates(77, torch.tensor(z))
        d = GradDrop(names(4), leak=leak).combine(
            torch.tensor(g).flatten(1), losses_of(np.ones(4), key=key), where
        )
        U, signal = draw_uniform(key, 0, 9, torch.device("cpu")).numpy(), (np.sign(z) * g).sum(1)
        wanted = np.stack([dropped(g[:, b], signal, U, leaks) for b in range(6)])
        np.testing.assert_allclose(d.view(6, 9).numpy(), wanted, atol=1e-12)


def outcomes(balancer, z, g, keys=2000):
    """{direction: how often}."""
    where = Coordinates(0, torch.tensor(z))
    return Counter(
        tuple(
            balancer.combine(
                torch.tensor(g).flatten(1), losses_of(np.ones(len(g)), key=key), where
            ).tolist()
        )
        for key in range(keys)
    )


def test_graddrop_of_two_tasks_in_conflict():
    """Two samples of one feature: the paper keeps one task; by samples there are four outcomes."""
    z, g = np.array([[1.0], [-1.0]]), np.array([[[2.0], [-1.0]], [[-1.0], [2.0]]])
    found = outcomes(GradDrop(names(2)), z, g)
    assert set(found) == {(2, -1), (-1, 2)}
    assert abs(found[2, -1] / 2000 - 0.5) < 0.04
    found = outcomes(per_sample(2), z, g)
    assert set(found) == {(a, b) for a in (2, -1) for b in (2, -1)}
    assert found[2, 2] / 2000 == pytest.approx(4 / 9, abs=0.04)


def test_graddrop_does_not_take_rounding_for_a_pull():
    """The signs of absolute errors cancel to the last bit on one device, but not on two."""
    z, losses = torch.ones(2, 2, dtype=torch.float64), losses_of(np.ones(2))
    for off in (-1e-9, 0.0, 1e-9):
        rows = torch.tensor([[0.1, 1.0, 0.3, 1.0], [0.5, 1.0, -0.5 + off, 1.0]])
        d = GradDrop(names(2)).combine(rows, losses, Coordinates(0, z))
        np.testing.assert_allclose(d, [0.1, 2.0, 0.3, 2.0], atol=1e-8)


def test_graddrop_on_two_ranks_is_that_of_one():
    """Each rank has some of the samples, and the sum of all ranks' signals."""
    z, g = batch(5, 8, 11, seed=1)
    balancer, losses = GradDrop(names(5)), losses_of(np.ones(5), key=3)
    z, rows = torch.tensor(z), torch.tensor(g)
    signal = (rows * z.sign()).sum(1)

    def of_all(mine):
        mine.copy_(signal)
        return mine

    whole = balancer.combine(rows.flatten(1), losses, Coordinates(0, z))
    parts = [
        balancer.combine(
            rows[:, part].flatten(1), losses, Coordinates(part.start * 11, z[part], of_all)
        )
        for part in (slice(0, 3), slice(3, 8))
    ]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(whole, rows.sum(0).flatten())


@pytest.mark.parametrize("first", [0, 1, 77, 123])
def test_graddrop_by_samples_on_two_ranks_is_that_of_one(first):
    J = torch.tensor(SETS["eight conflicting"].repeat(10, axis=1))
    balancer, losses = per_sample(8), losses_of(np.ones(8), key=3)
    parts = [alone(balancer, J[:, :first], losses), alone(balancer, J[:, first:], losses, first)]
    torch.testing.assert_close(
        torch.cat(parts), alone(balancer, J, losses), rtol=0, atol=1e-13
    )  # sums of 8, in any order


@ALL
def test_graddrop_that_leaks_all_is_the_sum(J):
    d = alone(per_sample(len(J), leak=1.0), J, losses_of(np.ones(len(J))))
    np.testing.assert_allclose(d.numpy(), J.sum(0), atol=1e-12 * np.abs(J).max())


def test_graddrop_keeps_each_sign_as_often_as_its_share():
    J, keys = SETS["five random"], 4000
    balancer = per_sample(5)
    drawn = np.stack(
        [alone(balancer, J, losses_of(np.ones(5), key=key)).numpy() for key in range(keys)]
    )
    up, down = np.maximum(J, 0).sum(0), np.minimum(J, 0).sum(0)
    P = up / (up - down)
    deviation = np.sqrt(P * (1 - P) / keys) * (up - down)
    assert (np.abs(drawn.mean(0) - (P * up + (1 - P) * down)) <= 4.5 * deviation + 1e-9).all()


def test_what_graddrop_draws_is_uniform_over_coordinates_and_over_keys():
    U = np.stack([draw_uniform(key, 0, 1000, torch.device("cpu")).numpy() for key in range(1000)])
    assert 0 <= U.min() < 1e-4
    assert 1 - 1e-4 < U.max() < 1
    z = (U - 0.5) * np.sqrt(12)
    assert np.abs(np.histogram(U, 20, (0, 1))[0] / 5e4 - 1).max() < 0.03
    assert z.mean(0).std() * np.sqrt(1000) == pytest.approx(1, abs=0.15)
    assert z.mean(1).std() * np.sqrt(1000) == pytest.approx(1, abs=0.15)
    for product in (
        z[1:] * z[:-1],
        z[:, 1:] * z[:, :-1],
        z[1:, 1:] * z[:-1, :-1],
        z[1:, :-1] * z[:-1, 1:],
    ):
        assert abs(product.mean()) * 1000 < 4.5  # standard errors


def test_graddrop_where_all_agree_drops_nothing():
    z, g = batch(5, 4, 7)
    g = np.abs(g) * np.sign(z)
    d = GradDrop(names(5)).combine(
        torch.tensor(g).flatten(1), losses_of(np.ones(5), key=9), Coordinates(0, torch.tensor(z))
    )
    np.testing.assert_allclose(d.view(4, 7).numpy(), g.sum(0))
    zero = alone(per_sample(2), torch.zeros(2, 4), losses_of(np.ones(2)))
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
        d = alone(balancer, torch.tensor(rows), losses)
        np.testing.assert_allclose(d.numpy(), w @ rows, atol=1e-9 * np.abs(rows).max())
        np.testing.assert_allclose(balancer.head_weights(losses).numpy(), w, rtol=1e-9)


def test_excess_risk_leaves_absent_tasks_and_bad_steps_alone():
    balancer = prepared(3, 4)
    rows = torch.tensor(SETS["one task"].repeat(3, 0)[:, :4])
    rows[1] = 0
    for _ in range(3):
        alone(balancer, rows, losses_of([1.0, 0, 1], [True, False, True]))
    assert balancer.first_T.isnan().tolist() == [False, True, False]
    w = balancer.weights_T
    assert w.sum() == pytest.approx(3)
    assert w[0] == w[2] > w[1] > 0
    before = {name: value.clone() for name, value in balancer.state_dict().items()}
    rows[0, 0] = torch.inf
    assert not alone(balancer, rows, losses_of(np.ones(3))).isfinite().all()
    assert all(
        torch.equal(value.nan_to_num(-1), before[name].nan_to_num(-1))
        for name, value in balancer.state_dict().items()
    )


def test_excess_risk_resumes_with_the_same_bits():
    rows, losses, first, second = (
        torch.tensor(SETS["five random"]),
        losses_of(np.ones(5)),
        prepared(5, 50),
        prepared(5, 50),
    )
    for k in range(3):
        alone(first, rows * (k + 1), losses)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(alone(first, rows, losses), alone(second, rows, losses))


def test_excess_risk_refuses_features_and_bad_settings():
    with pytest.raises(ValueError, match=r"set --model\.balancer\.level parameters"):
        ExcessMTL(names(2), "features")
    with pytest.raises(ValueError, match=r"eta 0\.0"):
        ExcessMTL(names(2), "parameters", eta=0.0)
    with pytest.raises(ValueError, match=r"leak 1\.5"):
        GradDrop(names(2), leak=1.5)
    with pytest.raises(ValueError, match=r"leak names 'ink', which is no task; there are t0, t1"):
        GradDrop(names(2), leak={"t0": 1.0, "ink": 0.5})
    with pytest.raises(ValueError, match=r"not per sample: set --model\.balancer\.level features"):
        GradDrop(names(2), "parameters", per_sample=True)
