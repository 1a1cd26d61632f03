"""Methods that see the losses' values alone."""

import io
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import src.balancing as balancing
from src.balancing import (
    FAMO,
    AutoLambda,
    DynamicWeightAverage,
    GeometricMean,
    ImpartialLoss,
    LogSum,
    LossBalancer,
    RandomWeights,
    SmoothTchebycheff,
    StaticWeights,
    TaskLosses,
    UncertaintyWeights,
)
from src.balancing.adam import Adam
from tests.balancing.gradient_sets import losses_of, names

METHODS = {
    c.__name__: c
    for c in (getattr(balancing, name) for name in balancing.__all__)
    if isinstance(c, type) and issubclass(c, LossBalancer) and c is not LossBalancer
}
EVERY = pytest.mark.parametrize("method", list(METHODS.values()), ids=list(METHODS))
values = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8)


def stepped(balancer, losses):
    """The scalar, the weights and the gradient with respect to the losses."""
    total, weights = balancer(losses)
    total.backward()
    assert not weights.requires_grad
    return total.item(), weights.double().numpy(), losses.local_T.grad.numpy()


@EVERY
def test_weights_come_from_the_global_losses_and_gradients_go_to_the_local_ones(method):
    local = torch.tensor([2.0, 6.0, 1.0], requires_grad=True)
    losses = TaskLosses(local, torch.tensor([4.0, 3.0, 0.5]), torch.tensor([True, True, True]), 5)
    _, weights, gradient = stepped(method(names(3)), losses)
    np.testing.assert_allclose(gradient, weights, rtol=1e-6)
    same = TaskLosses(torch.full((3,), 9.0), losses.global_T, losses.present_T, 5)
    np.testing.assert_allclose(method(names(3))(same)[1].numpy(), weights, rtol=1e-6)


@EVERY
@pytest.mark.parametrize(
    ("losses", "present"),
    [
        ([1.0, 0.0, 2.0], [True, False, True]),
        ([1.0, 0.0, 2.0], [True, True, True]),
        ([0.0, 0.0, 0.0], [False, False, False]),
        ([0.0, 0.0, 0.0], [True, True, True]),
        ([1e-30, 1e30, 1.0], [True, True, True]),
    ],
)
def test_nothing_is_ever_nan(method, losses, present):
    balancer = method(names(3))
    for _ in range(3):
        total, weights, gradient = stepped(balancer, losses_of(losses, present))
        assert math.isfinite(total)
        assert np.isfinite(weights).all()
        assert np.isfinite(gradient).all()
        if balancer.needs_reevaluation:
            balancer.after_step(losses_of(losses, present), losses_of(losses, present))
        if hasattr(balancer, "on_epoch_end"):
            balancer.on_epoch_end()
    for parameter in balancer.parameters():
        assert parameter.grad.isfinite().all()
        assert (parameter.grad[~torch.tensor(present)] == 0).all()
    assert all(
        value.isfinite().all() or isinstance(balancer, DynamicWeightAverage)
        for value in balancer.state_dict().values()
    )


@EVERY
def test_a_run_that_resumes_goes_on_with_the_same_bits(method):
    rng = np.random.default_rng(0)
    losses, (first, second) = rng.uniform(0.5, 2, size=(6, 3)), (method(names(3)) for _ in range(2))
    for parameter in first.parameters():
        parameter.data.normal_()
    for k, (before, after) in enumerate(pairwise(losses)):
        first(losses_of(before, key=k))
        if first.needs_reevaluation:
            first.after_step(losses_of(before), losses_of(after))
        if hasattr(first, "on_epoch_end") and k != 3:
            first.on_epoch_end()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    if hasattr(first, "on_epoch_end"):
        for balancer in (first, second):
            balancer(losses_of(losses[5]))
            balancer.on_epoch_end()
    for a, b in zip(
        first(losses_of(losses[5], key=9)), second(losses_of(losses[5], key=9)), strict=True
    ):
        assert torch.equal(a, b)


# fixed and random weights


@settings(deadline=None)
@given(values)
def test_static_weights_are_the_sum(losses):
    total, weights, gradient = stepped(
        balancer := StaticWeights(names(len(losses))), losses_of(losses)
    )
    assert total == pytest.approx(sum(losses))
    assert (weights == 1).all()
    assert (gradient == 1).all()
    assert balancer.state_dict() == {}
    assert list(balancer.parameters()) == []


@settings(deadline=None)
@given(values, st.integers(0, 2**62))
def test_random_weights_are_a_function_of_the_key(losses, key):
    T = len(losses)
    w = RandomWeights(names(T))(losses_of(losses, key=key))[1]
    assert w.sum() == pytest.approx(1)
    assert w.min() > 0
    assert torch.equal(w, RandomWeights(names(T))(losses_of(np.ones(T), key=key))[1])
    present = [t % 2 == 0 for t in range(T)]
    some = RandomWeights(names(T))(losses_of(losses, present, key))[1]
    kept = torch.where(torch.tensor(present), w, 0)
    np.testing.assert_allclose(some, kept / kept.sum(), rtol=1e-9)


def test_random_weights_are_softmaxes_of_normal_numbers():
    w = (
        torch.stack(
            [RandomWeights(names(3))(losses_of(np.ones(3), key=key))[1] for key in range(4000)]
        )
        .log()
        .numpy()
    )
    for i, j in ((0, 1), (1, 2), (0, 2)):
        x = (w[:, i] - w[:, j]) / np.sqrt(2)
        assert abs(x.mean()) < 4 / np.sqrt(len(x))
        assert x.var() == pytest.approx(1, abs=0.1)
        assert (np.abs(x) < 1).mean() == pytest.approx(0.6827, abs=0.03)


# learnt scales


KINDS = {"g": "gaussian", "l": "laplace", "c": "categorical"}


def test_uncertainty_follows_its_formula():
    balancer, L = UncertaintyWeights(KINDS).double(), np.array([2.0, 0.5, 1.5])
    s = np.array([0.3, -1.0, 0.7])
    balancer.log_variances_T.data = torch.tensor(s)
    total, weights, gradient = stepped(balancer, losses_of(L))
    wanted = np.array([np.exp(-s[0]) / 2, np.exp(-s[1] / 2), np.exp(-s[2])])
    assert total == pytest.approx((wanted * L).sum() + s.sum() / 2)
    np.testing.assert_allclose(weights, wanted)
    np.testing.assert_allclose(gradient, wanted)
    slope = -wanted * L * [1, 0.5, 1] + 0.5
    np.testing.assert_allclose(balancer.log_variances_T.grad, slope)


def test_uncertainty_is_the_negative_log_likelihood():
    """Up to constants, of the noise that each loss stands for; s = log sigma^2."""
    e, sigma = 0.7, 1.3
    balancer = UncertaintyWeights({"g": "gaussian", "l": "laplace"}).double()
    balancer.log_variances_T.data = torch.full((2,), 2 * math.log(sigma), dtype=torch.float64)
    wanted = (
        -torch.distributions.Normal(0.0, sigma).log_prob(torch.tensor(e, dtype=torch.float64))
        - math.log(2 * math.pi) / 2
    )
    assert balancer(losses_of([e**2, 0], [True, False]))[0].item() == pytest.approx(wanted.item())
    wanted = -torch.distributions.Laplace(0.0, sigma).log_prob(
        torch.tensor(e, dtype=torch.float64)
    ) - math.log(2)
    assert balancer(losses_of([0, e], [False, True]))[0].item() == pytest.approx(wanted.item())


def test_an_uncertainty_loss_is_negative_where_labels_are_explained_well():
    """Its minimum over s is log L / 2 + 1/2: below 0 for a squared error below 1 / e."""
    balancer = UncertaintyWeights(names(1)).double()
    for L in (0.5, 0.05):
        balancer.log_variances_T.data = torch.tensor([math.log(L)], dtype=torch.float64)
        total, _ = balancer(losses_of([L]))
        assert total.item() == pytest.approx(math.log(L) / 2 + 0.5)
        assert (total.item() < 0) == (math.log(L) < -1)


def test_uncertainty_recovers_the_noise():
    rng, n = np.random.default_rng(2), 100_000
    spread = {"gaussian": 3.0, "laplace": 0.2}
    L = [
        np.mean(rng.normal(scale=3.0, size=n) ** 2),
        np.mean(np.abs(rng.laplace(scale=0.2, size=n))),
        0.8,
    ]
    balancer = UncertaintyWeights(KINDS).double()
    optimizer = torch.optim.LBFGS(
        balancer.parameters(), max_iter=200, tolerance_grad=1e-10, tolerance_change=1e-14
    )

    def closure():
        optimizer.zero_grad()
        total = balancer(losses_of(L))[0]
        total.backward()
        return total

    optimizer.step(closure)
    s = balancer.log_variances_T.detach().numpy()
    np.testing.assert_allclose(np.exp(s[:2] / 2), list(spread.values()), rtol=0.02)
    np.testing.assert_allclose(s, [np.log(L[0]), 2 * np.log(L[1]), np.log(2 * L[2])], rtol=1e-5)
    np.testing.assert_allclose(
        balancer(losses_of(L))[1].numpy(), [0.5 / L[0], 1 / L[1], 0.5 / L[2]], rtol=1e-5
    )


def test_a_likelihood_is_not_of_the_checkpoint_but_of_the_task():
    assert list(UncertaintyWeights(KINDS).state_dict()) == ["log_variances_T"]


def test_impartial_loss_follows_its_formula_and_brings_all_losses_to_1():
    balancer, L = ImpartialLoss(names(3)).double(), np.array([2.0, 0.5, 30.0])
    balancer.scales_T.data = torch.tensor(s := np.array([0.3, -1.0, 0.7]))
    total, weights, _ = stepped(balancer, losses_of(L))
    assert total == pytest.approx((np.exp(s) * L - s).sum())
    np.testing.assert_allclose(weights, np.exp(s))
    np.testing.assert_allclose(balancer.scales_T.grad, np.exp(s) * L - 1)
    balancer.scales_T.data = -torch.tensor(L).log()
    balancer.scales_T.grad = None
    stepped(balancer, losses_of(L))
    np.testing.assert_allclose(balancer.scales_T.grad, 0, atol=1e-12)


# formulas of the losses


def test_dynamic_weights_follow_the_last_two_epochs():
    balancer, rng = DynamicWeightAverage(names(3), temperature=1.5), np.random.default_rng(3)
    epochs = rng.uniform(0.2, 3, size=(5, 4, 3))
    means = epochs.mean(1)
    for k, epoch in enumerate(epochs):
        for losses in epoch:
            r = means[k - 1] / means[k - 2] if k > 1 else np.ones(3)
            wanted = np.exp(r / 1.5)
            np.testing.assert_allclose(
                balancer(losses_of(losses))[1], 3 * wanted / wanted.sum(), rtol=1e-9
            )
        balancer.on_epoch_end()


def test_dynamic_weights_where_labels_are_missing():
    balancer = DynamicWeightAverage(names(2), temperature=1.0)
    for first, second in ((4.0, 1.0), (1.0, 1.0)):
        balancer(losses_of([first, second]))
        balancer(losses_of([0.0, second], [False, True]))  # counts for the second task alone
        balancer.on_epoch_end()
    wanted = 2 * np.exp([0.25, 1]) / np.exp([0.25, 1]).sum()
    np.testing.assert_allclose(balancer(losses_of([1.0, 1.0]))[1], wanted)
    balancer.on_epoch_end()
    balancer(losses_of([0.0, 2.0], [False, True]))
    balancer.on_epoch_end()  # a whole epoch without the first task: its last mean stands for it
    wanted = 2 * np.exp([1.0, 2.0]) / np.exp([1.0, 2.0]).sum()
    np.testing.assert_allclose(balancer(losses_of([1.0, 1.0]))[1], wanted)


def scalar_and_gradient(function, losses):
    x = torch.tensor(losses, dtype=torch.float64, requires_grad=True)
    function(x).backward()
    return x.grad.numpy()


@pytest.mark.parametrize(
    ("balancer", "function"),
    [
        (LogSum, lambda x: x.log().sum()),
        (GeometricMean, lambda x: x.log().mean().exp()),
        (SmoothTchebycheff, lambda x: x.logsumexp(0)),
        (lambda tasks: SmoothTchebycheff(tasks, mu=0.1), lambda x: 0.1 * (x / 0.1).logsumexp(0)),
    ],
    ids=["LogSum", "GeometricMean", "SmoothTchebycheff", "sharper"],
)
@settings(deadline=None)
@given(values)
def test_weights_are_the_gradient_of_the_scalar(balancer, function, losses):
    _, weights, gradient = stepped(balancer(names(len(losses))), losses_of(losses))
    wanted = scalar_and_gradient(function, losses)
    np.testing.assert_allclose(weights, wanted, rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-9, atol=1e-300)
    some = losses_of([*losses, 0.0, 0.0], [True] * len(losses) + [True, False])
    if not isinstance(balancer(names(1)), SmoothTchebycheff):  # a loss of 0 leaves the logarithms
        np.testing.assert_allclose(
            balancer(names(len(losses) + 2))(some)[1], [*wanted, 0, 0], rtol=1e-9
        )


@settings(deadline=None)
@given(values, st.floats(-3, 3))
def test_logarithms_do_not_see_the_scale_of_a_loss(losses, exponent):
    factor = np.ones(T := len(losses))
    factor[0] = 10**exponent
    for method, power in ((LogSum, 0), (GeometricMean, 1 / T), (FAMO, None)):
        w = method(names(T))(losses_of(losses))[1].numpy() * losses
        v = method(names(T))(losses_of(factor * losses))[1].numpy() * factor * losses
        if power is None:
            w, v, power = w / w.sum(), v / v.sum(), 0
        np.testing.assert_allclose(v, w * factor[0] ** power, rtol=1e-9)


def test_tchebycheff_between_the_largest_loss_and_the_mean():
    L = losses_of([1.0, 3.0, 2.0])
    np.testing.assert_allclose(SmoothTchebycheff(names(3), mu=1e-3)(L)[1], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(SmoothTchebycheff(names(3), mu=1e6)(L)[1], 1 / 3, rtol=1e-5)
    w = SmoothTchebycheff(names(3))(losses_of([1.0, 0.0, 2.0], [True, False, True]))[1]
    np.testing.assert_allclose(w, [1 / (1 + math.e), 0, math.e / (1 + math.e)])


def stch_as_published(epochs, mu, warmup):
    """The weights of all steps, by autograd, as the paper's authors train on several tasks."""
    n, found = epochs[0].shape[1], []
    for e, epoch in enumerate(epochs):
        nadir = torch.tensor(epochs[warmup].mean(0))
        for L in epoch:
            if e <= warmup:
                found.append(scalar_and_gradient(lambda x: x.log().sum(), L))
            else:
                found.append(
                    scalar_and_gradient(
                        lambda x, z=nadir: n * mu * ((x / z).log() / mu).logsumexp(0), L
                    )
                )
    return found


@pytest.mark.parametrize("warmup", [0, 1, 4])
@pytest.mark.parametrize("mu", [0.1, 1.0])
def test_tchebycheff_with_warmup_and_nadir_is_as_published(mu, warmup):
    epochs = list(np.random.default_rng(8).uniform(0.2, 3, size=(warmup + 3, 5, 3)) * [1, 50, 0.01])
    wanted = iter(stch_as_published(epochs, mu, warmup))
    balancer = SmoothTchebycheff(names(3), mu=mu, warmup=warmup, nadir=True)
    shapes = {name: value.shape for name, value in balancer.state_dict().items()}
    for e, epoch in enumerate(epochs):
        for k, L in enumerate(epoch):
            np.testing.assert_allclose(balancer(losses_of(L))[1], next(wanted), rtol=1e-9)
            if (e + k) % 3 == 0:  # a run that is broken off and resumed at any place
                state, balancer = (
                    balancer.state_dict(),
                    SmoothTchebycheff(names(3), mu=mu, warmup=warmup, nadir=True),
                )
                balancer.load_state_dict(state)
        balancer.on_epoch_end()
    assert {name: value.shape for name, value in balancer.state_dict().items()} == shapes


def test_tchebycheff_with_warmup_alone():
    balancer, L = SmoothTchebycheff(names(2), warmup=2), losses_of([1.0, 4.0])
    for wanted in ([1, 0.25], [1, 0.25], [1 / (1 + math.exp(3)), 1 / (1 + math.exp(-3))]):
        np.testing.assert_allclose(balancer(L)[1], wanted)
        balancer.on_epoch_end()
    assert SmoothTchebycheff(names(2)).state_dict() == {}


def test_tchebycheffs_nadir_where_labels_are_missing():
    """Means are over steps with labels; a task without labels in that epoch leaves the sum."""
    balancer = SmoothTchebycheff(names(4), nadir=True)
    balancer(losses_of([1.0, 2.0, 0.0, 1.0], [True, True, False, True]))
    balancer(losses_of([3.0, 0.0, 0.0, 1.0], [True, False, False, True]))
    balancer.on_epoch_end()
    weights = balancer(losses_of([4.0, 1.0, 5.0, 0.0]))[1].numpy()
    # relative to the nadirs 2 and 2 the losses are 2 and 1/2
    np.testing.assert_allclose(weights, [2 * (2 / 2.5) / 4, 2 * (0.5 / 2.5) / 1, 0, 0])


# FAMO


def test_famo_follows_its_formula():
    T, rng = 4, np.random.default_rng(4)
    balancer = FAMO(names(T), lr=0.03, decay=0.01)
    xi = torch.zeros(T, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([xi], lr=0.03)
    for _ in range(6):
        before, after = rng.uniform(0.1, 3, T), rng.uniform(0.1, 3, T)
        z = xi.detach().softmax(0).numpy()
        w = z / before / (z / before).sum()
        np.testing.assert_allclose(balancer(losses_of(before))[1], w, rtol=1e-9)
        balancer.after_step(losses_of(before), losses_of(after))
        adam.zero_grad()
        (
            torch.dot(xi.softmax(0), torch.tensor(np.log(before) - np.log(after)))
            + 0.01 * xi.square().sum() / 2
        ).backward()
        adam.step()
        np.testing.assert_allclose(balancer.xi_T, xi.detach(), rtol=1e-7, atol=1e-12)


@settings(deadline=None)
@given(st.integers(0, 2**31))
def test_famo_does_not_see_the_scales_of_losses(seed):
    rng = np.random.default_rng(seed)
    first, second, scales = FAMO(names(3)), FAMO(names(3)), 10 ** rng.uniform(-3, 3, 3)
    for _ in range(4):
        before, after = rng.uniform(0.1, 3, size=(2, 3))
        a, b = (
            first(losses_of(before))[1].numpy() * before,
            second(losses_of(scales * before))[1].numpy() * scales * before,
        )
        np.testing.assert_allclose(b / b.sum(), a / a.sum(), rtol=1e-6)
        first.after_step(losses_of(before), losses_of(after))
        second.after_step(losses_of(scales * before), losses_of(scales * after))
    np.testing.assert_allclose(second.xi_T, first.xi_T, rtol=1e-4, atol=1e-7)


def test_famo_turns_to_the_task_that_falls_slowly():
    balancer = FAMO(names(2))
    for _ in range(10):
        balancer.after_step(losses_of([1.0, 1.0]), losses_of([0.5, 0.99]))
    z = balancer.xi_T.softmax(0)
    assert z[1] > 0.55


def test_famo_leaves_absent_tasks_and_bad_steps_alone():
    balancer = FAMO(names(3))
    some = losses_of([1.0, 0.0, 2.0], [True, False, True])
    w = balancer(some)[1]
    np.testing.assert_allclose(w, [2 / 3, 0, 1 / 3])
    balancer.after_step(some, losses_of([0.5, 0.7, 1.9]))
    assert balancer.xi_T[1] == 0
    assert balancer.xi_T[0] < 0 < balancer.xi_T[2]
    before = {name: value.clone() for name, value in balancer.state_dict().items()}
    balancer.after_step(losses_of([1.0, 1.0, 1.0]), losses_of([1.0, float("inf"), 1.0]))
    balancer.after_step(losses_of([1.0, 1.0, 1.0]), losses_of([float("nan")] * 3))
    absent = losses_of(np.zeros(3), [False] * 3)
    balancer.after_step(absent, absent)
    for name, value in balancer.state_dict().items():
        assert value.equal(before[name]), name


def test_a_task_without_labels_is_as_if_the_step_had_not_been():
    """What FAMO learns of two tasks that come one at a time is what it learns of each by itself."""
    rng = np.random.default_rng(6)
    both, alone = FAMO(names(2), decay=0.1), [FAMO(names(2), decay=0.1) for _ in range(2)]
    for balancer in (both, *alone):
        balancer.xi_T.copy_(torch.tensor([0.3, -0.2]))
    for k in range(12):
        here = int(rng.integers(2))
        present = [here == 0, here == 1]
        before, after = (losses_of(rng.uniform(0.5, 2, 2) * present, present) for _ in range(2))
        both.after_step(before, after)
        alone[here].after_step(before, after)
        for t in range(2):
            assert both.xi_T[t] == alone[t].xi_T[t], k
            assert torch.equal(both.adam.moments_2T[:, t], alone[t].adam.moments_2T[:, t]), k
            assert both.adam.steps_T[t] == alone[t].adam.steps_T[t]


def test_adam_is_torchs_in_the_steps_in_which_a_number_takes_part():
    rng, adam = np.random.default_rng(7), Adam(3, lr=0.1)
    x = [torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    references, found = (
        [torch.optim.Adam([p], lr=0.1) for p in x],
        torch.zeros(3, dtype=torch.float64),
    )
    for _ in range(20):
        gradient, present = torch.tensor(rng.normal(size=3)), torch.tensor(rng.random(3) < 0.5)
        found -= adam.step(gradient, present)
        for t in present.nonzero().flatten().tolist():
            x[t].grad = gradient[t : t + 1].clone()
            references[t].step()
        np.testing.assert_allclose(found, torch.cat(x).detach(), rtol=1e-9)


def test_auto_lambda_leaves_tasks_without_a_slope_alone():
    balancer = AutoLambda(names(2), lr=0.1, first=1.0)
    balancer.learn_from_lookahead(torch.tensor([1.0, 2.0]), 0.5)
    before = balancer.lambdas_T.clone()
    assert (before > 1).all()  # a step along the losses helps the other batch
    balancer.learn_from_lookahead(torch.tensor([0.0, 2.0]), 0.5)
    assert balancer.lambdas_T[0] == before[0]
    assert balancer.lambdas_T[1] > before[1]
    assert balancer.adam.steps_T.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda tasks: DynamicWeightAverage(tasks, temperature=0.0), "temperature 0.0"),
        (lambda tasks: SmoothTchebycheff(tasks, mu=0.0), "mu 0.0"),
        (lambda tasks: SmoothTchebycheff(tasks, warmup=-1), "warmup -1"),
        (lambda tasks: FAMO(tasks, lr=0.0), "lr 0.0"),
        (lambda tasks: FAMO(tasks, decay=-1.0), "decay -1.0"),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make(names(2))
