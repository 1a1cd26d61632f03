"""Each solver against another exact route, which works on the gradients themselves."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, nnls
from torchjd.aggregation import DualProj, UPGrad

from src.balancing.fairness import solve_fair_weights
from src.balancing.nonnegative import (
    EPS,
    solve_nonnegative,
    solve_nonnegative_each,
    solve_semidefinite,
)
from src.balancing.solvers import (
    find_min_norm_point,
    normalise,
    project,
    project_each,
    project_to_simplex,
    solve_conflict_averse,
)
from tests.balancing.gradient_sets import SETS, active, gap, stationary, units

ALL = pytest.mark.parametrize("J", [active(J) for J in SETS.values()], ids=list(SETS))
seeds = st.integers(0, 2**31)


def any_gradients(seed):
    """Gradients of any rank, in conflict or not, of different lengths, and some of them equal."""
    rng = np.random.default_rng(seed)
    T, N, rank = rng.integers(1, 13), rng.integers(2, 20), rng.integers(1, 13)
    J = (
        rng.normal(size=(T, rank)) @ rng.normal(size=(rank, N))
        if rng.random() < 0.5
        else rng.normal(size=(T, N))
    )
    J = J - rng.choice([0, 0.9, 1.2, -1]) * J.mean(0)
    J = J[rng.integers(0, T, size=T)] if rng.random() < 0.2 else J
    return active(J * 10 ** rng.uniform(-1, 1, size=(T, 1)) if rng.random() < 0.5 else J)


def exactly(A, b):
    return nnls(A, b, maxiter=100 * A.shape[1])[0]


def shortest(J):
    """Solves for the shortest convex combination by scipy, on the gradients themselves."""
    norms = np.linalg.norm(J, axis=1)
    y = exactly(np.vstack([units(J).T, norms.min() / norms]), np.append(np.zeros(J.shape[1]), 1.0))
    return y / norms / (y / norms).sum()


def shortest_of_all_faces(J):
    """The same by trying all subsets of the gradients."""
    best, found = np.inf, None
    for size in range(1, len(J) + 1):
        for part in combinations(range(len(J)), size):
            S = J[list(part)]
            inner = (
                np.linalg.lstsq((S[1:] - S[0]).T, -S[0], rcond=None)[0] if size > 1 else np.zeros(0)
            )
            w = np.concatenate([[1 - inner.sum()], inner])
            if w.min() >= -1e-12 and np.linalg.norm(w @ S) < best:
                best, found = np.linalg.norm(w @ S), w @ S
    return found


@ALL
def test_min_norm_point(J):
    w = find_min_norm_point(J @ J.T)
    assert w.min() >= 0
    assert w.sum() == pytest.approx(1, rel=1e-12)
    assert gap(J, w, shortest(J) @ J) < 1e-7
    if len(J) <= 6:
        assert gap(J, w, shortest_of_all_faces(J)) < 1e-7


@settings(deadline=None, max_examples=200)
@given(seeds)
def test_min_norm_point_serves_all(seed):
    J = any_gradients(seed)
    d = find_min_norm_point(J @ J.T) @ J
    assert (
        J @ d - d @ d >= -1e-9 * np.linalg.norm(J, axis=1) * np.linalg.norm(J, axis=1).min()
    ).all()


@ALL
def test_nonnegative_least_squares(J):
    rng = np.random.default_rng(1)
    U = units(J)
    A, Z = (
        U @ U.T,
        np.concatenate([rng.normal(size=(5, J.shape[1])), -U[:1], U[:1], U.mean(0, keepdims=True)]),
    )
    B = U @ Z.T
    for z, x, b in zip(Z, solve_nonnegative_each(A, B).T, B.T, strict=True):
        wanted, alone = U.T @ exactly(U.T, z), solve_nonnegative(A, b)
        for y in (x, alone):
            assert y.min() >= 0
            slope = b - A @ y
            assert slope.max() < 1e-9 * max(1, np.abs(y).sum())
            assert np.abs(slope * y).max() < 1e-9 * max(1, np.abs(y).sum()) ** 2
            np.testing.assert_allclose(U.T @ y, wanted, atol=1e-7 * max(1, np.abs(y).max()))


def test_nonnegative_without_anything_to_do():
    A = np.eye(3)
    np.testing.assert_array_equal(solve_nonnegative(A, np.zeros(3)), 0)
    np.testing.assert_array_equal(solve_nonnegative(A, -np.ones(3)), 0)
    np.testing.assert_array_equal(
        solve_nonnegative_each(A, np.array([[1.0, -1], [0, 2], [-3, 0]])), [[1, 0], [0, 2], [0, 0]]
    )


def projected(J, u):
    """Returns u without its projection onto the cone of -g: the nearest without conflict."""
    U, scale = units(J), np.linalg.norm(u)
    return u + scale * U.T @ exactly(U.T, -u / scale) if scale else u


@ALL
def test_projection_of_one_direction(J):
    rng, n, norms = np.random.default_rng(2), len(J), np.linalg.norm(J, axis=1)
    for wanted in (np.full(n, 1 / n), np.eye(n)[0], rng.uniform(size=n) / norms):
        w = project(J @ J.T, wanted)
        assert (w >= wanted * (1 - 1e-12)).all()
        assert gap(J, w, projected(J, wanted @ J)) < 1e-7
    np.testing.assert_array_equal(project(J @ J.T, np.zeros(n)), 0)


@ALL
def test_projection_of_each_gradient(J):
    W = project_each(J @ J.T)
    for w, g in zip(W, J, strict=True):
        assert gap(J, w, projected(J, g)) < 1e-7


@pytest.mark.parametrize(
    "name", ["two random", "five random", "ten random", "three conflicting", "eight conflicting"]
)
def test_projections_against_torchjd(name):
    J = SETS[name]  # torchjd regularises the Gramian, which costs digits
    scale, n = np.linalg.norm(J, axis=1).max(), len(J)
    d = project(J @ J.T, np.full(n, 1 / n)) @ J
    np.testing.assert_allclose(d, DualProj()(torch.tensor(J)).numpy(), atol=1e-3 * scale)
    d = project_each(J @ J.T).mean(0) @ J
    np.testing.assert_allclose(d, UPGrad()(torch.tensor(J)).numpy(), atol=1e-3 * scale)


@settings(deadline=None, max_examples=200)
@given(seeds)
def test_projections_of_any_gradients(seed):
    J = any_gradients(seed)
    n = len(J)
    assert gap(J, w := project(J @ J.T, np.full(n, 1 / n)), projected(J, J.mean(0))) < 1e-6, w
    for w, g in zip(project_each(J @ J.T), J, strict=True):
        assert gap(J, w, projected(J, g)) < 1e-6


def averse(J, c):
    """Returns the weights, and how far CAGrad's direction is from optimal and from the ball.

    Both are relative to the shortest gradient.

    The best of all directions cannot serve the worst-off task better than F(w), whatever w is.
    """
    weights, mean, norms = solve_conflict_averse(J @ J.T, c), J.mean(0), np.linalg.norm(J, axis=1)
    d, length = weights @ J, np.linalg.norm(mean)
    if length < 1e-7 * norms.mean():
        return weights, np.linalg.norm(d) / norms.max(), 0
    outside = np.linalg.norm(d - mean) / length - c
    w = weights - 1 / len(J)
    if w.min() >= -1e-9 * w.max() and w.max() > 0:
        w = np.maximum(w, 0) / np.maximum(w, 0).sum()
    along = w @ J
    bound = along @ mean + c * length * np.linalg.norm(along)
    rest = shortest(J)  # where the gradients balance each other the bound is 0
    bound = min(bound, rest @ J @ mean + c * length * np.linalg.norm(rest @ J))
    return weights, (bound - (J @ d).min()) / (length * norms.min()), outside


@pytest.mark.parametrize("c", [0.0, 0.1, 0.5, 0.9, 1.0, 2.0])
@ALL
def test_conflict_averse_has_no_duality_gap(J, c):
    _, off, outside = averse(J, c)
    assert -1e-6 < off < 1e-6 or c == 0
    assert outside < 1e-6


def balanced(seed):
    """Linearly independent, with a convex combination that nearly is 0."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 13))
    J, x = rng.normal(size=(n, n + int(rng.integers(5)))), rng.uniform(0.05, 1, size=n)
    J = J - np.outer(x, x @ J / (x @ x)) * (1 - 10 ** rng.uniform(-9, -3))
    return J * 10 ** rng.uniform(-1, 1, size=(n, 1)) if rng.random() < 0.5 else J


def rounding(J):
    """Returns the relative error of the shortest length as products in float64 tell it."""
    w = shortest(J)
    relative = np.linalg.norm(w @ J) / (w @ np.linalg.norm(J, axis=1))
    return min(4 * EPS / relative**2, 0.02) if relative > 1e-8 else 0.0


@pytest.mark.parametrize("make", [any_gradients, balanced])
@settings(deadline=None, max_examples=300)
@given(seed=seeds, c=st.sampled_from([0.05, 0.3, 0.5, 0.8, 1.0, 1.5]))
@example(seed=3078, c=1.5)
def test_conflict_averse_has_no_duality_gap_on_any_gradients(make, seed, c):
    J = make(seed)
    norms = np.linalg.norm(J, axis=1)
    _, off, outside = averse(J, c)
    assert off < 1e-6 + rounding(J) * norms.max() / norms.min()
    assert outside < 1e-6 + rounding(J)


@pytest.mark.parametrize(
    "name",
    [
        "two random",
        "five random",
        "three conflicting",
        "nearly parallel",
        "duplicated",
        "orthogonal",
    ],
)
def test_conflict_averse_against_scipy(name):
    J, c = SETS[name], 0.5
    n, mean = len(J), J.mean(0)
    length = np.linalg.norm(mean)

    def objective(w):
        return (w @ J @ mean + c * length * np.linalg.norm(w @ J)) / length**2

    bounds, constraint = [(0, 1)] * n, {"type": "eq", "fun": lambda w: w.sum() - 1}
    found = minimize(
        objective,
        np.full(n, 1 / n),
        method="SLSQP",
        bounds=bounds,
        constraints=constraint,
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    along = found.x @ J
    wanted = mean + c * length * along / np.linalg.norm(along)
    assert (
        gap(J, solve_conflict_averse(J @ J.T, c), wanted) < 1e-4
    )  # SLSQP's gradients are differences


@pytest.mark.parametrize("seed", range(4))
def test_conflict_averse_has_no_duality_gap_on_small_integers(seed):
    """Where gradients are parallel, opposite or balance each other more often than not."""
    rng = np.random.default_rng(seed)
    for _ in range(800):
        J = active(rng.integers(-4, 5, size=(rng.integers(2, 7), rng.integers(2, 4))).astype(float))
        c = rng.choice([0.1, 0.3, 0.5, 0.8, 0.9, 1.0, 1.5])
        if len(J):
            _, off, outside = averse(J, c)
            assert abs(off) < 1e-8, (J.tolist(), c)
            assert outside < 1e-8, (J.tolist(), c)


def best_in_the_ball(J, c):
    """Solves by SLSQP for the direction in the ball with the best smallest gain."""
    mean = J.mean(0)
    radius = c * np.linalg.norm(mean)
    rules = [
        {
            "type": "ineq",
            "fun": lambda x: J @ x[:-1] - x[-1],
            "jac": lambda x: np.hstack([J, -np.ones((len(J), 1))]),
        },
        {
            "type": "ineq",
            "fun": lambda x: radius**2 - (x[:-1] - mean) @ (x[:-1] - mean),
            "jac": lambda x: np.append(-2 * (x[:-1] - mean), 0.0),
        },
    ]
    start = np.append(mean, (J @ mean).min())
    found = minimize(
        lambda x: -x[-1],
        start,
        jac=lambda x: np.append(np.zeros(len(mean)), -1.0),
        method="SLSQP",
        constraints=rules,
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return found.x[:-1]


@pytest.mark.parametrize(
    ("rows", "c", "wanted"),
    [
        (
            [[-1, 3], [0, 1], [4, -3], [0, -1]],
            0.5,
            [0.38775, 0.09694],
        ),  # harms two tasks, and any other in the ball harms more
        (
            [[1, 0], [-1, 0], [0, 1]],
            0.5,
            [0.0, 1 / 3],
        ),  # not all can gain: the nearest to the mean that harms none
        ([[2, 1], [-2, 1], [1, 0]], 0.2, None),
        ([[3, 1], [-3, 1], [0, -1], [2, 2]], 0.8, None),
    ],
)
def test_conflict_averse_by_two_routes(rows, c, wanted):
    J = np.array(rows, dtype=float)
    d = solve_conflict_averse(J @ J.T, c) @ J
    other = best_in_the_ball(J, c)
    assert (J @ d).min() == pytest.approx((J @ other).min(), abs=1e-6)
    if wanted is not None:
        np.testing.assert_allclose(d, wanted, atol=1e-5)


def test_conflict_averse_without_a_ball_is_the_mean():
    J = SETS["eight conflicting"]
    np.testing.assert_array_equal(solve_conflict_averse(J @ J.T, 0.0), 1 / 8)


ALPHAS = [0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0]


def unfair(J, w, alpha):
    """Returns the error of <g_t, d> = w_t^(-1/alpha), weighed by w, as it shows in d."""
    gains, wanted = J @ (w @ J), w ** (-1 / alpha)
    return np.abs(w * (gains - wanted)).sum() / (w * wanted).sum()


@pytest.mark.parametrize("alpha", ALPHAS)
@ALL
def test_fair_weights(J, alpha):
    w = solve_fair_weights(J @ J.T, alpha)
    if stationary(J):
        assert (w == 0).all()
    else:
        assert w.min() > 0
        assert unfair(J, w, alpha) < 1e-8 + rounding(J)
        if 0.5 <= alpha <= 5:
            np.testing.assert_allclose(J @ (w @ J), w ** (-1 / alpha), rtol=1e-6)


@pytest.mark.parametrize("off", [1e-2, 1e-4])
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("T", [2, 6, 20])
def test_fair_weights_of_gradients_that_nearly_balance_each_other(T, alpha, off):
    rng = np.random.default_rng(4)
    J = rng.normal(size=(T, 50))
    J = J - J.mean(0) + off * rng.normal(size=50)
    w = solve_fair_weights(J @ J.T, alpha)
    assert w.min() > 0
    assert unfair(J, w, alpha) < 1e-6
    if alpha >= 0.5:
        np.testing.assert_allclose(J @ (w @ J), w ** (-1 / alpha), rtol=1e-6)


@settings(deadline=None, max_examples=300)
@given(seeds, st.sampled_from(ALPHAS))
def test_fair_weights_of_any_gradients(seed, alpha):
    J = any_gradients(seed) * 10 ** np.random.default_rng(seed).uniform(-1, 1)
    w = solve_fair_weights(J @ J.T, alpha)
    if (w == 0).all():
        rest = shortest(units(J)) @ units(J)
        assert np.linalg.norm(rest) < 1e-6
    else:
        assert unfair(J, w, alpha) < 1e-7 + rounding(J)


def fairest(J, alpha):
    """The direction d that maximises sum_t U(<g_t, d>) - |d|^2 / 2, U' = x^-alpha, by BFGS on d."""

    def negative(d):
        gains = J @ d
        if gains.min() <= 0:
            return np.inf
        utility = np.log(gains).sum() if alpha == 1 else (gains ** (1 - alpha)).sum() / (1 - alpha)
        return d @ d / 2 - utility

    d = shortest(J) @ J
    d /= (J @ d).min()
    for _ in range(5):
        with np.errstate(all="ignore"):  # steps out of the cone come back by their infinite value
            d = minimize(
                negative,
                d,
                jac=lambda d: d - (J @ d) ** -alpha @ J,
                method="BFGS",
                options={"gtol": 1e-12},
            ).x
    return d


@pytest.mark.parametrize(
    ("rows", "alpha", "wanted"),
    [
        (
            [[1, 3, -1], [100, 0, -100]],
            10.0,
            [0.11305, 0.33916, -0.11305],
        ),  # the second weight is 3e-14
        ([[2, 0, 0], [20, 20, 30]], 20.0, [0.53412, 0, 0]),
        ([[1, 0.2], [-0.1, 3], [0.3, 0.4]], 0.1, None),
        ([[1, 0.2], [-0.5, 3], [0.3, 0.4]], 0.25, None),
        ([[1, 0.2, 0], [-0.5, 3, 1]], 2.0, None),
    ],
)
def test_fair_weights_by_two_routes(rows, alpha, wanted):
    J = np.array(rows, dtype=float)
    d = solve_fair_weights(J @ J.T, alpha) @ J
    np.testing.assert_allclose(d, fairest(J, alpha), atol=1e-4)
    if wanted is not None:
        np.testing.assert_allclose(d, wanted, atol=1e-5)


@pytest.fixture
def solves(monkeypatch):
    """The shapes of the systems that were solved."""
    shapes, real = [], np.linalg.solve
    monkeypatch.setattr(np.linalg, "solve", lambda a, b: (shapes.append(a.shape), real(a, b))[1])
    return shapes


def crowd(kind, T):
    """Many gradients of which some are dependent."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(T // 2, 3 * T))
    Y = X - 1.2 * X.mean(0)
    return {
        "duplicates": np.vstack([X, X]),
        "opposite": np.vstack([X, -X]),
        "duplicates and opposite": np.vstack([X[::2], X[::2], -X[::2], -X[::2]]),
        "some of each": np.vstack([X, X[::2], -X[1::2]]),
        "duplicates in conflict": np.vstack([Y, Y]) * 10 ** rng.uniform(-1, 1, size=(T, 1)),
        "of low rank": rng.normal(size=(T, T // 4)),
    }[kind]


CROWDS = [
    "duplicates",
    "opposite",
    "duplicates and opposite",
    "some of each",
    "duplicates in conflict",
    "of low rank",
]


@pytest.mark.parametrize("T", [64, 128])
@pytest.mark.parametrize("kind", CROWDS)
def test_many_dependent_gradients_are_projected_together(kind, T, solves):
    """In a few batched solves, not in some for each gradient."""
    J = crowd(kind, T)
    V = project_each(J @ J.T)
    assert len(solves) <= 15
    U = units(J)
    norms = np.linalg.norm(J, axis=1)
    for i in range(0, T, 9):
        d, wanted = V[i] @ J / norms[i], projected(J / norms[:, None], U[i])
        assert (U @ d).min() > -1e-11
        np.testing.assert_allclose(d, wanted, atol=1e-9)


@pytest.mark.parametrize("off", [1e-1, 1e-3, 1e-5, 1e-6])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 10.0])
def test_newton_takes_few_steps_near_a_pareto_front(alpha, off, solves):
    rng = np.random.default_rng(5)
    J = rng.normal(size=(12, 40))
    J = J - J.mean(0) + off * rng.normal(size=40)
    w = solve_fair_weights(J @ J.T, alpha)
    assert w.min() > 0
    assert sum(shape == (12, 12) for shape in solves) <= 10


@settings(deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12))
def test_onto_simplex(values):
    v = np.array(values)
    w = project_to_simplex(v)
    assert w.min() >= 0
    assert w.sum() == pytest.approx(1, abs=1e-9)
    level = (v - w)[w > 0]
    np.testing.assert_allclose(level, level[0], atol=1e-9)
    assert (v[w == 0] <= level[0] + 1e-9).all()


def test_onto_simplex_by_hand():
    np.testing.assert_allclose(project_to_simplex(np.array([0.5, 0.5])), [0.5, 0.5])
    np.testing.assert_allclose(project_to_simplex(np.array([3.0, 0.0, 2.5])), [0.75, 0, 0.25])
    np.testing.assert_allclose(project_to_simplex(np.array([-7.0])), [1])


@ALL
def test_solve_is_the_shortest_least_squares_solution(J):
    C, norms = normalise(J @ J.T)
    np.testing.assert_allclose(C * norms[:, None] * norms, J @ J.T, atol=1e-12 * norms.max() ** 2)
    for b in (np.ones(len(J)), np.random.default_rng(3).normal(size=len(J)), C[0]):
        x, wanted = (
            solve_semidefinite(C, b),
            np.linalg.pinv(units(J), rcond=1e-7).T @ (np.linalg.pinv(units(J), rcond=1e-7) @ b),
        )
        np.testing.assert_allclose(x, wanted, rtol=1e-6, atol=1e-7 * np.abs(wanted).max() + 1e-14)
