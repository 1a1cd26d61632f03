"""PCD against its definition, an optimiser, and the implementation of torchjd."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torchjd import aggregation as jd

from src.balancing import PCD, Problem
from src.balancing.pcd import solve_constrained
from tests.balancing.gradient_sets import SETS, active, losses_of, names


def weigh(balancer, J, tasks=None):
    tasks = np.arange(len(J)) if tasks is None else tasks
    return balancer.weigh(Problem(J @ J.T, np.ones(len(J)), tasks))


@pytest.mark.parametrize("name", list(SETS))
@pytest.mark.parametrize("tau", [0.0, 0.02, 0.5, 1.0])
def test_against_torchjd_over_steps(name, tau):
    J = active(SETS[name])
    ours = PCD(names(len(J)), tau=tau)
    theirs = jd.PCD(tau=tau, eps=0.0)
    for factor in (1.0, 0.3, 1.0):
        rows = J * np.where(np.arange(len(J)) % 2, factor, 1.0)[:, None]
        wanted = theirs(torch.tensor(rows)).numpy()
        found = weigh(ours, rows) @ rows
        np.testing.assert_allclose(found, wanted, atol=1e-5 * np.linalg.norm(rows[0]))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(0, 3))
def test_the_first_step_solves_the_problem(seed, primary):
    rng = np.random.default_rng(seed)
    J = rng.normal(size=(4, 12)) - rng.choice([0.0, 0.5]) * 1.0
    shares = rng.uniform(0, 1, 4)
    tau = {f"t{k}": float(share) for k, share in enumerate(shares)}
    d = weigh(PCD(names(4), primary=f"t{primary}", tau=tau), J) @ J

    # unit gradients: the running mean of one step is that step
    U = J / np.linalg.norm(J, axis=1, keepdims=True)
    others = [k for k in range(4) if k != primary]
    found = minimize(
        lambda x: 0.5 * ((x - U[primary]) ** 2).sum(),
        U[primary],
        jac=lambda x: x - U[primary],
        constraints=[
            {
                "type": "ineq",
                "fun": lambda x: U[others] @ x - shares[others],
                "jac": lambda _: U[others],
            }
        ],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    wanted = found.x / np.linalg.norm(found.x) * np.linalg.norm(J[primary])
    np.testing.assert_allclose(d, wanted, atol=2e-5 * np.linalg.norm(J[primary]))


def test_two_tasks_have_the_closed_form():
    J = np.array([[1.0, 0.0], [-0.6, 0.8]])
    y = solve_constrained(J @ J.T, 0, np.array([0.0, 0.3]))
    np.testing.assert_allclose(y, [1.0, 0.3 + 0.6])
    assert solve_constrained(J @ J.T, 1, np.array([0.0, 0.0])).tolist() == [0.6, 1.0]


def test_without_a_conflict_the_primary_gradient_stays():
    J = np.array([[2.0, 0.0], [1.0, 1.0]])
    assert weigh(PCD(names(2), tau=0.5), J).tolist() == [1.0, 0.0]


def test_opposite_demands_are_dropped():
    J = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert weigh(PCD(names(3), tau=0.5), J).tolist() == [1.0, 0.0, 0.0]


def test_units_of_losses_do_not_matter():
    rng = np.random.default_rng(3)
    steps = rng.normal(size=(4, 3, 9)) - 0.4
    factors = np.array([1.0, 1e-3, 1e4])[:, None]
    first = PCD(names(3), tau=0.3, beta=0.5)
    second = PCD(names(3), tau=0.3, beta=0.5)
    for J in steps:
        d = weigh(first, J) @ J
        np.testing.assert_allclose(weigh(second, factors * J) @ (factors * J), d, rtol=1e-9)


def test_without_the_primary_tasks_labels_nothing_moves_and_the_others_are_tracked():
    balancer = PCD(names(3), primary="t1")
    J = np.random.default_rng(4).normal(size=(2, 5))
    assert weigh(balancer, J, np.array([0, 2])).tolist() == [0.0, 0.0]
    assert balancer.steps_T.tolist() == [1, 0, 1]
    rows = torch.tensor(np.insert(J, 1, 0, axis=0))
    shared, own = balancer(losses_of([1.0, 0.0, 1.0], [True, False, True]), rows @ rows.T)
    assert own is None
    assert not shared.any()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"primary": "t2"}, "primary 't2' is no task: there are t0, t1"),
        ({"tau": 1.5}, "tau 1.5 is outside"),
        ({"tau": {"tx": 0.1}}, "tau names 'tx', which is no task: t0, t1"),
        ({"beta": 1.0}, "beta 1.0 is outside"),
    ],
)
def test_bad_settings_are_named(given, message):
    with pytest.raises(ValueError, match=f"PCD: {message}"):
        PCD(names(2), **given)
