"""LassoNet: the operator against its definition, the linear part, and closed columns."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch.optim import SGD

from src.batch import InputShape
from src.errors import UserError
from src.models import MultiTaskModel
from src.models.encoders import MLP
from src.models.feature_selection import LassoNet, StepSizes
from src.models.feature_selection.lassonet import find_bounds
from src.models.sharing import HardSharing, Separate
from src.tasks import Regression

TABLE = InputShape((3,), (4, 2), columns=("age", "age", "hours", "job", "sex"))
TASKS = {name: Regression(mean=(0.0,), std=(1.0,)) for name in "ab"}


def build(select=LassoNet, sharing=HardSharing, shape=TABLE):
    model = MultiTaskModel(TASKS, shape, partial(MLP, width=4, depth=1), sharing, select=select)
    model.configure_model()
    return model


def solve(theta, weights, cut, hierarchy):
    """Solves the definition over (b, V) numerically, in float64."""
    P = len(theta)

    def objective(x):
        b, v = x[:P], x[P:]
        gap = ((b - theta) ** 2).sum() / 2 + ((v - weights) ** 2).sum() / 2
        return gap + cut * np.sqrt((b**2).sum() + 1e-18)

    def slack(x):
        bound = hierarchy * np.sqrt((x[:P] ** 2).sum() + 1e-18)
        return np.concatenate([bound - x[P:], bound + x[P:]])

    best = None
    for start in (np.concatenate([theta, weights]), np.concatenate([theta, 0 * weights])):
        options = {"maxiter": 500, "ftol": 1e-14}
        constraint = {"type": "ineq", "fun": slack}
        found = minimize(objective, start, constraints=[constraint], options=options)
        if best is None or found.fun < best.fun:
            best = found
    return best.x[:P], best.x[P:], best.fun, objective


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 3),
    st.integers(1, 6),
    st.floats(0.0, 2.0),
    st.sampled_from([0.3, 1.0, 10.0]),
)
def test_the_operator_is_what_its_definition_says(seed, P, K, cut, hierarchy):
    rng = np.random.default_rng(seed)
    theta, weights = rng.normal(size=P), rng.normal(size=K)
    norm = np.linalg.norm(theta)
    bound = float(
        find_bounds(
            torch.tensor([norm]), torch.tensor(weights)[None], torch.tensor([cut]), hierarchy
        )[0]
    )
    b = bound / hierarchy * theta / norm
    v = weights.clip(-bound, bound)
    _, _, best, objective = solve(theta, weights, cut, hierarchy)
    # feasible, and no worse than what the solver has found
    assert np.abs(v).max() <= hierarchy * np.linalg.norm(b) + 1e-9
    assert objective(np.concatenate([b, v])) <= best + 1e-6


def test_columns_of_fewer_weights_are_filled_up_with_zeros():
    weights = torch.tensor([[3.0, -2.0]], dtype=torch.float64)
    norm, cut = torch.tensor([1.0]).double(), torch.tensor([0.5]).double()
    padded = torch.cat([weights, torch.zeros(1, 3)], 1)
    assert find_bounds(norm, padded, cut, 2.0) == find_bounds(norm, weights, cut, 2.0)


def test_the_features_have_a_linear_part_of_each_column():
    model = build().eval()
    rows = TABLE.example(5)
    with torch.no_grad():
        found = model.sharing(rows)
        inner = model.selection.architecture(rows)
        linear = rows["dense"] @ model.selection.skip[0]
        for k, table in enumerate(model.selection.skips):
            linear = linear + table[0][rows["categorical"][:, k]]
    torch.testing.assert_close(found["a"], inner["a"] + linear)
    assert found["a"] is found["b"]


def test_a_step_closes_columns_and_keeps_the_hierarchy():
    selection = build(
        partial(LassoNet, per="task", strength=0.3, hierarchy=2.0), Separate
    ).selection
    with torch.no_grad():
        # hours counts little for the first task
        selection.skip[0, 2] *= 0.01
        selection.weights()[0][0, :, 2] *= 0.01
    optimizer = SGD(selection.parameters(), lr=0.05)
    for _ in range(12):
        selection.begin_step(0.0, None)
        optimizer.zero_grad()
        features = selection(TABLE.example(8))
        sum(0.1 * z[:, 0].mean() for z in features.values()).backward()
        optimizer.step()
        selection.finish_step(StepSizes(optimizer))
    is_open = selection.is_open()
    assert is_open.tolist() == [[True, False, True, True], [True] * 4]

    (weight,) = selection.weights()
    norms = selection.norms()
    for d in range(4):
        own = weight[..., selection.column_of == d].abs().amax((1, 2)).double()
        assert (own <= 2.0 * norms[:, d] + 1e-6).all()
        # exactly zero, with the table or the rows of the linear part
        assert not own[~is_open[:, d]].any()
    assert torch.equal(selection.closed, norms == 0)


@pytest.mark.parametrize("hierarchy", [0.0, -1.0, float("inf")])
def test_a_hierarchy_that_is_none_is_refused(hierarchy):
    with pytest.raises(UserError, match="hierarchy"):
        build(partial(LassoNet, hierarchy=hierarchy))
