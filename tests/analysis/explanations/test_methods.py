"""Attributions: exact for a linear model, complete for networks, and a function of the seed."""

from functools import partial

import numpy as np
import pytest
import torch

from src.analysis.explanations.checks import measure_completeness
from src.analysis.explanations.methods import METHODS, Explained, attribute
from src.analysis.explanations.path import InputPath
from src.batch import InputShape
from src.models.encoders import MLP, ConvNet, TabularTransformer, Transformer
from src.models.sharing import HardSharing
from tests.analysis.explanations.made import explain, make_columns, make_model, make_rows

pytest.importorskip("captum")
WEIGHTS = torch.tensor([2.0, -1.0, 0.5, 0.0], dtype=torch.float64)


def linear(rows=40, baselines=1, size=64):
    """A linear model, its rows and its baselines."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 4, generator=draw, dtype=torch.float64)
    b = torch.randn(baselines, 4, generator=draw, dtype=torch.float64)
    path = InputPath(x, {"dense": b}, make_columns(4))
    run = lambda own: (own @ WEIGHTS)[:, None]  # noqa: E731
    return x, b, Explained(path, run, lambda outputs, plain: outputs[:, 0], run(x), size)


@pytest.mark.parametrize("method", ["IntegratedGradients", "FeatureAblation", "GradientShap"])
def test_attributions_of_a_linear_model_are_exact(method):
    """a_j = w_j (x_j - b_j)."""
    x, b, own = linear()
    found = attribute(own, method, seed=0)
    # captum holds the weights of its quadrature in single precision; their sum is 1 to 1e-9
    rounding = 2e-9 if method == "IntegratedGradients" else 1e-12
    torch.testing.assert_close(found, WEIGHTS * (x - b), rtol=rounding, atol=1e-12)


def test_gradient_shap_of_a_linear_model_averages_over_baselines():
    """a_j -> w_j (x_j - mean b_j), with the error of the mean of the baselines that are drawn."""
    x, b, own = linear(baselines=5)
    steps = 400
    found = attribute(own, "GradientShap", seed=0, steps=steps, baselines=5)
    error = (found - WEIGHTS * (x - b.mean(0))).abs()
    spread = (WEIGHTS * b.std(0, correction=0)).abs() / steps**0.5
    assert (error <= 5 * spread + 1e-12).all()


def test_permutations_of_a_linear_model_exchange_values():
    """a_nj = w_j (x_nj - x_mj): over all rows they sum to 0, for each column."""
    x, _, own = linear()
    found = attribute(own, "Permutation", seed=0)
    torch.testing.assert_close(
        found.sum(0), torch.zeros(4, dtype=torch.float64), atol=1e-10, rtol=0
    )
    # about w_j (x_nj - mean), since ten rows stand for all
    expected = WEIGHTS * (x - x.mean(0))
    assert (found[:, 3] == 0).all()
    for column in range(3):
        pair = torch.stack([found[:, column], expected[:, column]])
        assert float(torch.corrcoef(pair)[0, 1]) > 0.9


@pytest.mark.parametrize("method", METHODS)
def test_attributions_are_a_function_of_the_seed_and_leave_generators_alone(method):
    _, _, own = linear(baselines=3)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    first = attribute(own, method, seed=1, steps=10, baselines=3)
    torch.manual_seed(99)
    torch.random.set_rng_state(before[0])
    assert torch.equal(first, attribute(own, method, seed=1, steps=10, baselines=3))
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    other = attribute(own, method, seed=2, steps=10, baselines=3)
    assert torch.equal(first, other) == (method in ("IntegratedGradients", "FeatureAblation"))


@pytest.mark.parametrize("size", [7, 100])
def test_the_number_of_rows_at_once_changes_nothing(size):
    _, _, whole = linear(size=10_000)
    _, _, parts = linear(size=size)
    for method in ("IntegratedGradients", "FeatureAblation", "Permutation"):
        one, other = attribute(whole, method, seed=0), attribute(parts, method, seed=0)
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


NETWORKS = {
    "MLP on a table": (partial(MLP, width=8, depth=2), InputShape((3,), (4, 2)), 50, 1e-3),
    "transformer on a table": (
        partial(TabularTransformer, width=8, depth=2, heads=2),
        InputShape((3,), (4, 2)),
        50,
        1e-3,
    ),
    "transformer on texts": (
        partial(Transformer, width=8, depth=2, heads=2, pool="mean"),
        InputShape(tokens=9, parts=5),
        50,
        1e-2,
    ),
    "ConvNet on images": (partial(ConvNet, width=8, depth=1), InputShape((1, 6, 6)), 400, 3e-2),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_integrated_gradients_of_networks_are_complete(name):
    make, shape, steps, most = NETWORKS[name]
    model = make_model(make, shape, HardSharing)
    inputs, path = make_rows(shape, rows=6)
    own = explain(model, inputs, path)
    found = attribute(own, "IntegratedGradients", seed=0, steps=steps)
    rows = torch.arange(6)
    zeros = torch.zeros(6, len(path.features), dtype=torch.float64)
    at_rows, at_baseline = own.in_parts(zeros + 1, rows), own.in_parts(zeros, rows)
    check = measure_completeness(found, at_rows, at_baseline)
    assert check.difference > 1e-3
    assert check.mean < most

    # fewer points on the path leave a larger gap
    rough = attribute(own, "IntegratedGradients", seed=0, steps=2)
    assert measure_completeness(rough, at_rows, at_baseline).mean > check.mean


def test_ablation_is_the_difference_without_a_feature():
    shape = InputShape((3,), (4, 2))
    model = make_model(partial(MLP, width=8, depth=1), shape, HardSharing)
    inputs, path = make_rows(shape, rows=5)
    own = explain(model, inputs, path)
    found = attribute(own, "FeatureAblation", seed=0)
    changed = {key: values.clone() for key, values in inputs.items()}
    changed["categorical"][:, 1] = 1
    expected = own.read(own.plain, own.plain) - own.read(model(changed)["number"], own.plain)
    torch.testing.assert_close(found[:, 4], expected, rtol=1e-9, atol=1e-12)
