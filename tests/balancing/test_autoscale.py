"""AutoScale: the weights it finds, in which steps, and what a run makes of them."""

import re
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch.optim import SGD

from src.balancing import AutoScale
from src.balancing.autoscale import fit_log_weights, minimise_condition
from src.balancing.balancer import Level
from src.models import MultiTaskModel
from src.models.encoders import MLP
from tests.balancing.gradient_sets import losses_of, names
from tests.cli.calling import call
from tests.launching import only_run, read_json
from tests.toy import Toy, bare_trainer

seeds = st.integers(0, 2**31)


def random_gradients(seed: int, tasks: int) -> np.ndarray:
    """Linearly independent gradients (T, N), in conflict or not, of unlike lengths."""
    rng = np.random.default_rng(seed)
    J = rng.normal(size=(tasks, tasks + int(rng.integers(1, 12))))
    J = J - rng.choice([-1.0, 0.0, 0.8]) * J.mean(0)
    return J * 10 ** rng.uniform(-2, 2, size=(tasks, 1))


def measure_similarity(J: np.ndarray) -> float:
    """The mean over pairs of the similarity of two gradients' lengths."""
    n = np.linalg.norm(J, axis=1)
    pairs = list(combinations(range(len(n)), 2))
    return float(np.mean([2 * n[s] * n[t] / (n[s] ** 2 + n[t] ** 2) for s, t in pairs]))


def measure_condition(J: np.ndarray) -> float:
    """The condition number of the system of gradients."""
    values = np.linalg.svd(J, compute_uv=False)
    return float(values[0] / values[-1])


def step(balancer: AutoScale, J: np.ndarray, present: list[bool] | None = None) -> np.ndarray:
    """Takes a step; returns the weights (T,) that it used."""
    rows = torch.from_numpy(J)
    weights, heads = balancer(losses_of(np.ones(len(J)), present), rows @ rows.T)
    if heads is not None and present is None:
        torch.testing.assert_close(heads, weights)
    return weights.numpy()


# the weights of one Gramian


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(2, 7))
def test_lengths_are_as_similar_as_can_be(seed: int, tasks: int) -> None:
    J = random_gradients(seed, tasks)
    w = np.exp(fit_log_weights(J @ J.T, "magnitude"))
    assert measure_similarity(w[:, None] * J) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_no_other_weights_have_a_lower_condition_number(seed: int) -> None:
    J = random_gradients(seed, 3 + seed % 3)
    w = np.exp(fit_log_weights(J @ J.T, "condition"))
    equal = J / np.linalg.norm(J, axis=1, keepdims=True)

    def value(logs: np.ndarray) -> float:
        return float(np.log(measure_condition(np.exp(logs)[:, None] * equal)))

    best = np.zeros(len(J))
    for _ in range(3):
        precise = {"xatol": 1e-8, "fatol": 1e-10, "maxiter": 4000}
        best = minimize(value, best, method="Nelder-Mead", options=precise).x
    found = np.log(measure_condition(w[:, None] * J))
    assert found < value(best) + 5e-3
    assert found <= value(np.zeros(len(J))) + 1e-9


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_two_gradients_are_best_conditioned_at_equal_lengths(seed: int) -> None:
    J = random_gradients(seed, 2)
    w = np.exp(fit_log_weights(J @ J.T, "condition"))
    cosine = abs(J[0] @ J[1]) / np.linalg.norm(J, axis=1).prod()
    wanted = np.sqrt((1 + cosine) / (1 - cosine))
    assert measure_condition(w[:, None] * J) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("metric", ["magnitude", "condition"])
@settings(deadline=None, max_examples=10)
@given(seeds)
def test_neither_units_nor_the_order_of_tasks_matter(metric: str, seed: int) -> None:
    J = random_gradients(seed, 4)
    rng = np.random.default_rng(seed)
    order = rng.permutation(4)
    units = 10 ** rng.uniform(-2, 2, 4)
    w = np.exp(fit_log_weights(J @ J.T, metric))
    K = units[order, None] * J[order]
    other = np.exp(fit_log_weights(K @ K.T, metric)) * units[order]
    np.testing.assert_allclose(other / other.sum(), w[order] / w.sum(), rtol=1e-5)


def test_a_singular_system_keeps_equal_lengths() -> None:
    J = random_gradients(3, 3)
    J = np.concatenate([J, J[:1] + 2 * J[1:2]])
    C = J @ J.T
    assert not minimise_condition(C / np.sqrt(C.diagonal() * C.diagonal()[:, None])).any()


# the two phases


def test_weights_change_when_windows_end_and_never_after_the_exploration() -> None:
    rng = np.random.default_rng(0)
    balancer = AutoScale(names(3), exploration=7, window=3)
    steps = [rng.normal(size=(3, 5)) * [[1.0], [20.0], [0.1]] for _ in range(12)]
    used = [step(balancer, J) for J in steps]

    # the last window has a single step
    windows = [steps[:3], steps[3:6], steps[6:7]]
    norms = [np.sqrt(np.mean([(J**2).sum(1) for J in window], axis=0)) for window in windows]
    logs = -np.log(norms)
    wanted = [np.ones(3)]
    for k in range(3):
        w = np.exp(logs[: k + 1].mean(0))
        wanted.append(3 * w / w.sum())
    windows_of_steps = [0, 0, 0, 1, 1, 1, 2, 3, 3, 3, 3, 3]
    for weights, window in zip(used, windows_of_steps, strict=True):
        np.testing.assert_allclose(weights, wanted[window], rtol=1e-12)
    assert list(balancer.found_weights()) == ["t0", "t1", "t2"]
    np.testing.assert_allclose(list(balancer.found_weights().values()), wanted[3], rtol=1e-12)


def test_a_task_that_misses_windows_is_compared_where_it_was_present() -> None:
    """All lengths fall tenfold from window to window: ratios are those of the shared windows."""
    balancer = AutoScale(names(3), exploration=4, window=1)
    J = np.diag([1.0, 2.0, 8.0])
    for k, third in enumerate([True, False, False, True]):
        step(balancer, J / 10.0**k, [True, True, third])
    w = balancer.weights_T.numpy()
    np.testing.assert_allclose(w / w[0], [1, 1 / 2, 1 / 8], rtol=1e-9)
    assert w.sum() == pytest.approx(3)


def test_a_task_without_any_label_keeps_the_weight_1() -> None:
    balancer = AutoScale(names(3), exploration=2, window=1)
    for _ in range(2):
        step(balancer, np.diag([1.0, 4.0, 1.0]), [True, True, False])
    np.testing.assert_allclose(balancer.weights_T, [1.6, 0.4, 1.0], rtol=1e-12)
    assert not balancer.explores


def test_it_resumes_in_the_middle_of_a_window_to_the_bit() -> None:
    rng = np.random.default_rng(1)
    steps = rng.normal(size=(9, 3, 4))
    make = partial(AutoScale, names(3), metric="condition", exploration=8, window=4)
    whole = make()
    used = [step(whole, J) for J in steps]
    for broken_at in (2, 6):
        first = make()
        for J in steps[:broken_at]:
            step(first, J)
        second = make()
        second.load_state_dict(first.state_dict())
        for J, wanted in zip(steps[broken_at:], used[broken_at:], strict=True):
            assert step(second, J).tolist() == wanted.tolist()


def test_it_says_what_it_found_and_whether_it_still_explores() -> None:
    balancer = AutoScale({"digit": "categorical", "ink": "gaussian"}, exploration=2, window=1)
    step(balancer, np.diag([1.0, 3.0]))
    [line] = balancer.summary()
    assert line == "AutoScale's weights after 1 of 2 steps of exploration: digit 1.5, ink 0.5"
    step(balancer, np.diag([1.0, 3.0]))
    assert balancer.summary() == ["AutoScale's weights: digit 1.5, ink 0.5"]


# in a run


@pytest.mark.parametrize("level", ["features", "parameters"])
def test_after_the_exploration_a_step_is_the_one_of_static_weights(level: Level) -> None:
    toy = Toy()
    given = {name: 0.5 + 0.25 * k for k, name in enumerate(toy.tasks)}
    fixed = {name: given[name] * task.weight for name, task in toy.tasks.items()}
    make = partial(
        MultiTaskModel,
        toy.tasks,
        toy.input_shape,
        encoder=partial(MLP, width=12),
        optimizer=partial(SGD, lr=0.05),
        scheduler=None,
    )
    plain = make(weights=fixed)
    scaled = make(balancer=partial(AutoScale, level=level))
    scaled.configure_model()
    balancer = scaled.balancer
    assert isinstance(balancer, AutoScale)
    balancer.steps.fill_(balancer.exploration)
    balancer.weights_T.copy_(torch.tensor([given[name] for name in scaled.names]))
    for model in (plain, scaled):
        bare_trainer(1, 1).fit(model, Toy())

    assert balancer.found_weights() == given
    theirs = dict(plain.named_parameters())
    for name, p in scaled.named_parameters():
        torch.testing.assert_close(p, theirs[name], rtol=1e-4, atol=1e-5)


def test_a_run_reports_its_weights_and_its_checkpoint_holds_them(tmp_path: Path) -> None:
    toy = ("--data", "tests.toy.Toy", "--max_epochs", 1, "--model.encoder.width", 12)
    words = ("--model.balancer.exploration", 10, "--model.balancer.window", 5)
    more = ("--watch.figures_every", 0, "--name", "run")
    done = call("train", "--logs", tmp_path, *toy, "--model.balancer", "AutoScale", *words, *more)
    assert done.code == 0
    run = only_run(tmp_path / "run")
    saved = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    w = saved["balancer.weights_T"]
    assert w.sum() == pytest.approx(len(w))
    assert w.min() < 0.9

    text = " ".join(done.out.split())
    [shown] = re.findall(r"AutoScale's weights: ((?:\w+ [\d.e-]+(?:, )?)+)", text)
    found = {word.split()[0]: float(word.split()[1]) for word in shown.split(", ")}
    assert list(found) and sorted(found) == sorted(Toy().tasks)
    np.testing.assert_allclose(list(found.values()), w, rtol=1e-2)
    assert read_json(run / "metrics.json")["test"]
