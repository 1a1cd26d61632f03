"""Gramian methods against their formulas on the gradients themselves."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchjd import aggregation as jd

import src.balancing as balancing
from src.balancing import (
    MGDA,
    PCD,
    AlignedMTL,
    AutoScale,
    CAGrad,
    ConFIG,
    DualBalance,
    DualProj,
    FairGrad,
    GradNorm,
    GradVac,
    GramianBalancer,
    ImpartialGradients,
    MoCo,
    NashMTL,
    PCGrad,
    Problem,
    SDMGrad,
    UPGrad,
)
from src.balancing.pcgrad import shuffle_other_tasks
from tests.balancing.gradient_sets import SETS, active, gap, losses_of, names, stationary, units

EPS = np.finfo(float).eps
MAKE = {
    "AlignedMTL": AlignedMTL,
    "AutoScale": lambda tasks: AutoScale(tasks, exploration=6, window=1),
    "CAGrad": CAGrad,
    "ConFIG": ConFIG,
    "DualBalance": DualBalance,
    "DualBalance, tracked": lambda tasks: DualBalance(tasks, "parameters", beta=0.6),
    "DualProj": DualProj,
    "FairGrad": FairGrad,
    "GradNorm": GradNorm,
    "GradVac": lambda tasks: GradVac(tasks, beta=0.3),
    "ImpartialGradients": ImpartialGradients,
    "MGDA": MGDA,
    "MoCo": lambda tasks: MoCo(tasks, "parameters", rho=0.1),
    "NashMTL": NashMTL,
    "PCD": lambda tasks: PCD(tasks, tau=0.5),
    "PCGrad": PCGrad,
    "SDMGrad": SDMGrad,
    "UPGrad": UPGrad,
}
EVERY = pytest.mark.parametrize("method", list(MAKE))
STATEFUL = pytest.mark.parametrize(
    "method", ["AutoScale", "DualBalance, tracked", "GradNorm", "GradVac", "MoCo", "PCD", "SDMGrad"]
)
ALL = pytest.mark.parametrize("name", list(SETS))
seeds = st.integers(0, 2**31)


def test_every_method_is_here():
    public = [getattr(balancing, name) for name in balancing.__all__]
    wanted = {
        c
        for c in public
        if isinstance(c, type) and issubclass(c, GramianBalancer) and c is not GramianBalancer
    }
    assert {type(make(names(2))) for make in MAKE.values()} == wanted


def made(method, J):
    """In float64 throughout, so that formulas are met to rounding."""
    T, N = J.shape
    balancer = MAKE[method](names(T)) if isinstance(method, str) else method(names(T))
    balancer.prepare(N)
    return balancer.double()


def step(balancer, J, losses=None):
    """The weights of a step, those of the heads, and the direction."""
    losses = losses_of(np.ones(len(J))) if losses is None else losses
    rows = torch.tensor(J)
    if balancer.level == "parameters":
        rows = balancer.track(rows, losses).double()
    shared, own = balancer(losses, rows @ rows.T)
    own = torch.ones_like(shared) if own is None else own
    return shared.double().numpy(), own.double().numpy(), shared.double().numpy() @ rows.numpy()


def order_of(J, key=0):
    here = (np.linalg.norm(J, axis=1) > 0).nonzero()[0]
    return shuffle_other_tasks(Problem(np.eye(len(here)), np.ones(len(here)), here, key))


# stateless methods


def aligned(J):
    """The balance transformation by a singular value decomposition of the gradients."""
    U, s, Vt = np.linalg.svd(J, full_matrices=False)
    kept = s > s[0] * np.sqrt(len(J) * EPS)
    return s[kept].min() * np.ones(len(J)) / len(J) @ U[:, kept] @ Vt[kept]


def conflict_free(J):
    u = np.linalg.pinv(units(J), rcond=1e-7) @ np.ones(len(J))
    u = u / np.linalg.norm(u) if np.linalg.norm(u) > 1e-9 else 0 * u
    return (J @ u).sum() * u


def impartial(J):
    """Returns the d in the span with <d, u_t> = a, an affine combination up to its sign."""
    U, norms = units(J), np.linalg.norm(J, axis=1)
    d = np.linalg.pinv(U, rcond=1e-7) @ np.ones(len(J))
    if np.abs(U @ d - 1).max() > 1e-6:
        return 0 * d
    w = np.linalg.pinv(U.T, rcond=1e-7) @ d / norms
    return d / abs(w.sum()) if abs(w.sum()) > 1e-9 * np.abs(w).sum() else 0 * d


def surgery(J):
    left, rows = [], active(J)
    for t, order in enumerate(order_of(J)):
        v = rows[t].copy()
        for j in order:
            if v @ rows[j] < 0:
                v = v - v @ rows[j] / (rows[j] @ rows[j]) * rows[j]
        left.append(v)
    return np.sum(left, axis=0)


FORMULAS = {
    "AlignedMTL": lambda J: aligned(active(J)),
    "ConFIG": lambda J: conflict_free(active(J)),
    "ImpartialGradients": lambda J: impartial(active(J)),
    "PCGrad": surgery,
}


@pytest.mark.parametrize("method", list(FORMULAS))
@ALL
def test_formulas(method, name):
    J = SETS[name]
    shared, own, _ = step(made(method, J), J)
    assert gap(J, shared, FORMULAS[method](J)) < 1e-6
    assert (own == 1).all()


def well_posed(J):
    return np.linalg.matrix_rank(units(active(J)), tol=1e-6) == len(active(J))


@ALL
def test_against_torchjd(name):
    J = active(SETS[name])
    rows = torch.tensor(J)
    norms = np.linalg.norm(J, axis=1)
    if name not in (
        "stationary sum",
        "stationary triangle",
        "opposite",
    ):  # where d = 0 up to rounding
        assert (
            gap(J, step(made("AlignedMTL", J), J)[0], jd.AlignedMTL()(rows).numpy()) < 1e-4
        )  # the Gramian's least eigenvalue
    if well_posed(J):
        assert gap(J, step(made("ConFIG", J), J)[0], jd.ConFIG()(rows).numpy()) < 1e-6
    if (
        well_posed(J) and norms.max() / norms.min() < 100 and "tiny" not in name
    ):  # its pseudo-inverse is of G, not of C
        w = jd.IMTLG().gramian_weighting(rows @ rows.T).numpy()
        y = np.linalg.solve(J @ J.T, norms)
        if y.sum() > 1e-6 * np.abs(y).sum():
            assert gap(J, step(made("ImpartialGradients", J), J)[0], w @ J) < 1e-5
        else:
            assert gap(J, step(made("ImpartialGradients", J), J)[0], -w @ J) < 1e-5
    ours, theirs = step(made("MGDA", J), J)[2], jd.MGDA()(rows).numpy()
    assert np.linalg.norm(ours) <= np.linalg.norm(theirs) + 1e-6 * norms.min()
    if norms.max() / norms.min() < 100 and not stationary(J) and 1e-3 < norms.mean() < 1e3:
        for method, reference in (("UPGrad", jd.UPGrad()), ("DualProj", jd.DualProj())):
            np.testing.assert_allclose(
                step(made(method, J), J)[2], reference(rows).numpy(), atol=2e-3 * norms.max()
            )


# what defines the methods that are solutions of a problem


@ALL
def test_solutions_have_the_properties_that_define_them(name):
    J = SETS[name]
    rows, n = active(J), len(active(J))
    U, norms, mean = units(rows), np.linalg.norm(rows, axis=1), rows.mean(0)
    here = np.linalg.norm(J, axis=1) > 0

    w, _, d = step(made("MGDA", J), J)  # <g_t, d> >= |d|^2, with equality where w is above 0
    assert w.sum() == pytest.approx(1, abs=1e-6)
    excess = (rows @ d - d @ d) / (norms * norms.min())
    assert excess.min() > -1e-6
    assert (w[here] * excess).max() < 1e-6

    # the nearest direction to the mean: d - g_0 is normal to d, and made of gradients normal to d
    wanted = np.linalg.norm(mean)
    w, _, d = step(made("DualProj", J), J)
    scale = norms.max()
    assert (U @ d).min() > -1e-6 * scale
    assert abs(d @ (d - mean)) < 1e-6 * scale**2
    assert np.linalg.norm(d) <= wanted + 1e-6 * scale

    d = step(made("UPGrad", J), J)[2]
    assert (U @ d).min() > -1e-6 * scale

    for method, power in (("NashMTL", 1.0), ("FairGrad", 0.5)):
        w, _, d = step(made(method, J), J)
        if stationary(J):
            assert (w == 0).all()
        else:
            np.testing.assert_allclose(
                rows @ d, w[here] ** -power, rtol=1e-5 if "nearly" not in name else 1e-3
            )
    if not stationary(J):
        assert np.linalg.norm(step(made("NashMTL", J), J)[2]) == pytest.approx(np.sqrt(n), rel=1e-5)

    d = step(made("CAGrad", J), J)[2]
    assert np.linalg.norm(d - mean) <= 0.5 * np.linalg.norm(mean) + 1e-6 * scale
    assert (rows @ d).min() >= min((rows @ mean).min(), 0) - 1e-6 * scale**2


# methods with a state


class Vaccine:
    def __init__(self, T, beta=0.3):
        self.phi, self.beta = np.zeros((T, T)), beta

    def __call__(self, J, losses, key):
        here, total = (np.linalg.norm(J, axis=1) > 0).nonzero()[0], 0
        for t, order in zip(here, order_of(J, key), strict=True):
            v = J[t].copy()
            for j in here[order]:
                length, other = np.linalg.norm(v), np.linalg.norm(J[j])
                c = (
                    v @ J[j] / length / other if length > 1e-7 * np.linalg.norm(J[t]) else 0.0
                )  # nothing may be left of v
                phi = self.phi[t, j]
                if c < phi:
                    turn = phi * np.sqrt(max(1 - c * c, 0)) - c * np.sqrt(1 - phi * phi)
                    v = v + length * turn / (other * np.sqrt(1 - phi * phi)) * J[j]
                self.phi[t, j] = (1 - self.beta) * phi + self.beta * c
            total = total + v
        return total


class Normalised:
    """GradNorm by autograd."""

    def __init__(self, T, alpha=1.5, lr=0.025):
        self.w, self.first, self.alpha, self.lr = np.ones(T), None, alpha, lr

    def __call__(self, J, losses, key):
        here = np.linalg.norm(J, axis=1) > 0
        self.first = losses if self.first is None else self.first
        used = self.w.copy()
        w = torch.tensor(used[here], requires_grad=True)
        lengths = w * torch.tensor(np.linalg.norm(J[here], axis=1))
        mean = lengths.mean().detach()
        relative = losses[here] / self.first[here]
        target = mean * torch.tensor((relative / relative.mean()) ** self.alpha)
        ((lengths - target).abs().sum() / mean).backward()
        moved = np.maximum(used[here] - self.lr * w.grad.numpy(), 1e-3)
        self.w[here] = moved / moved.sum() * used[here].sum()
        return used * here @ J


def simplex(v):
    """By bisection of the level."""
    low, high = v.min() - 1, v.max()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(v - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(v - low, 0)


class NearTheMean:
    """SDMGrad."""

    def __init__(self, T, pull=0.3):
        self.w, self.pull = None, pull

    def __call__(self, J, losses, key):
        rows = active(J)
        w = np.full(len(rows), 1 / len(rows)) if self.w is None else self.w
        for _ in range(20):
            d = w @ rows + self.pull * rows.mean(0)
            w = simplex(w - rows @ d / (len(rows) * (rows**2).sum(1).mean()))
        self.w = w
        return (w @ rows + self.pull * rows.mean(0)) / (1 + self.pull)


class Corrected:
    """MoCo."""

    def __init__(self, T, beta=0.5, gamma=0.5, rho=0.1):
        self.Y, self.w, self.k, self.beta, self.gamma, self.rho = 0, None, 0, beta, gamma, rho

    def __call__(self, J, losses, key):
        rows = active(J)
        self.k += 1
        self.Y = self.Y - self.beta / self.k**0.5 * (self.Y - rows)
        w = np.full(len(rows), 1 / len(rows)) if self.w is None else self.w
        M = self.Y @ self.Y.T
        self.w = simplex(
            w - self.gamma / self.k**0.5 * (M / np.trace(M) + self.rho * np.eye(len(w))) @ w
        )
        return self.w @ self.Y


class Doubly:
    """DualBalance."""

    def __init__(self, T, beta=0.0):
        self.Y, self.k, self.beta = 0, 0, beta

    def __call__(self, J, losses, key):
        rows = active(J) / losses[np.linalg.norm(J, axis=1) > 0, None]
        self.k += 1
        new = 1 - self.beta / self.k**0.5 if self.k > 1 else 1.0
        self.Y = (1 - new) * self.Y + new * rows
        norms = np.linalg.norm(self.Y, axis=1)
        return norms.max() * (self.Y / norms[:, None]).sum(0)


class Scaled:
    """AutoScale, in windows of one step."""

    def __init__(self, T):
        self.logs, self.w = [], np.ones(T)

    def __call__(self, J, losses, key):
        here = np.linalg.norm(J, axis=1) > 0
        used = self.w * here
        self.logs.append(-np.log(np.linalg.norm(J[here], axis=1)))
        w = np.exp(np.mean(self.logs, axis=0))
        self.w[here] = here.sum() * w / w.sum()
        return used @ J


STEPS = {
    "AutoScale": Scaled,
    "GradVac": Vaccine,
    "GradNorm": Normalised,
    "SDMGrad": NearTheMean,
    "MoCo": Corrected,
    "DualBalance": Doubly,
    "DualBalance, tracked": lambda T: Doubly(T, 0.6),
}


@pytest.mark.parametrize("method", list(STEPS))
@ALL
def test_formulas_over_steps(method, name):
    J, rng = SETS[name], np.random.default_rng(5)
    T = len(J)
    balancer, reference, levels = made(method, J), STEPS[method](T), rng.uniform(0.5, 2, T)
    for key in range(5):
        rows = J * rng.uniform(0.5, 1.5, size=(T, 1)) + (
            0.1 * J[::-1] if key and len(active(J)) == T else 0
        )
        losses = levels * rng.uniform(0.7, 1, T)
        wanted = reference(rows, losses, key)
        shared, own, _ = step(balancer, rows, losses_of(losses, key=key))
        kept = dict(balancer.named_buffers()).get("tracked_TP")
        assert gap(rows if kept is None else kept.numpy(), shared, wanted) < 1e-6
        heads = (
            1 / losses
            if "DualBalance" in method
            else shared
            if method in ("AutoScale", "GradNorm")
            else np.ones(T)
        )
        np.testing.assert_allclose(
            own, np.where(np.linalg.norm(rows, axis=1) > 0, heads, 1), rtol=1e-6
        )


def test_gradnorm_favours_the_task_that_trains_slowly():
    balancer, J = made("GradNorm", np.eye(2)), np.eye(2)
    for k in range(20):
        shared, own, _ = step(balancer, J, losses_of([1.0, 0.8**k]))
        assert shared.sum() == pytest.approx(2)
        np.testing.assert_array_equal(own, shared)
    assert shared[0] > 1.2


def test_gradvac_with_a_mean_cosine_of_0_is_pcgrad():
    J = SETS["eight conflicting"]
    vaccine = made(lambda tasks: GradVac(tasks, beta=0.0), J)
    np.testing.assert_allclose(step(vaccine, J)[0], step(made("PCGrad", J), J)[0], rtol=1e-6)


def test_orders_do_not_depend_on_which_other_tasks_are_absent():
    whole = shuffle_other_tasks(Problem(np.eye(9), np.ones(9), np.arange(9), 11))
    assert (np.sort(whole) == [[j for j in range(9) if j != t] for t in range(9)]).all()
    here = np.array([1, 4, 6, 8])
    part = here[shuffle_other_tasks(Problem(np.eye(4), np.ones(4), here, 11))]
    assert part.tolist() == [[j for j in whole[t] if j in here] for t in here]
    other = shuffle_other_tasks(Problem(np.eye(9), np.ones(9), np.arange(9), 12))
    assert (whole != other).any()


# properties


def any_gradients(seed):
    """Linearly independent, in conflict or not, of unlike lengths."""
    rng = np.random.default_rng(seed)
    T = int(rng.integers(1, 9))
    J = rng.normal(size=(T, T + int(rng.integers(2, 20))))
    J = J - rng.choice([0, 0.5, 1.2, 2.0]) * J.mean(0)
    return J * 10 ** rng.uniform(-1, 1, size=(T, 1)), rng


@pytest.mark.parametrize("method", [m for m in MAKE if m not in ("PCD", "PCGrad", "GradVac")])
@settings(deadline=None, max_examples=30)
@given(seeds)
def test_the_order_of_tasks_does_not_matter(method, seed):
    J, rng = any_gradients(seed)
    order, losses = rng.permutation(len(J)), rng.uniform(0.5, 2, len(J))
    shared, own, d = step(made(method, J), J, losses_of(losses))
    _, own_, d_ = step(made(method, J), J[order], losses_of(losses[order]))
    scale = (np.abs(shared) * np.linalg.norm(J, axis=1)).max()
    np.testing.assert_allclose(d_, d, atol=1e-6 * scale)
    np.testing.assert_allclose(own_, own[order], rtol=1e-6)


@pytest.mark.parametrize("method", ["PCGrad", "GradVac"])
@settings(deadline=None, max_examples=30)
@given(seeds)
def test_the_order_of_two_tasks_does_not_matter(method, seed):
    J = np.random.default_rng(seed).normal(size=(2, 5))
    first, second = made(method, J), made(method, J)
    for _ in range(3):
        np.testing.assert_allclose(step(first, J)[2], step(second, J[[1, 0]])[2], atol=1e-6)


PROVEN = [
    "CAGrad, c = 1",
    "ConFIG",
    "DualProj",
    "FairGrad",
    "ImpartialGradients",
    "MGDA",
    "NashMTL",
    "UPGrad",
]


@pytest.mark.parametrize("method", PROVEN)
@settings(deadline=None, max_examples=30)
@given(seeds)
def test_no_task_is_harmed(method, seed):
    J, _ = any_gradients(seed)
    balancer = made((lambda tasks: CAGrad(tasks, c=1.0)) if "=" in method else method, J)
    w = balancer.weigh(Problem(J @ J.T, np.ones(len(J)), np.arange(len(J))))  # in float64
    norms = np.linalg.norm(J, axis=1)
    assert (J @ (w @ J) / norms).min() >= -1e-9 * (np.abs(w) * norms).max()


@pytest.mark.parametrize("method", list(MAKE))
@settings(deadline=None, max_examples=30)
@given(seeds, st.floats(-8, 8))
def test_scale(method, seed, exponent):
    J, rng = any_gradients(seed)
    s, losses = 10.0**exponent, losses_of(rng.uniform(0.5, 2, len(J)))
    power = {"NashMTL": 0.0, "FairGrad": -1 / 3}.get(method, 1.0)  # s^2 G w = w^-1/2 has w ~ s^-4/3
    first, second = made(method, J), made(method, J)
    for _ in range(2):
        d = step(first, J, losses)[2]
        np.testing.assert_allclose(
            step(second, s * J, losses)[2] / s**power,
            d,
            atol=1e-5 * np.linalg.norm(J, axis=1).max() + 1e-5,
        )


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_the_bargain_does_not_depend_on_the_losses_units(seed):
    J, rng = any_gradients(seed)
    d = step(made("NashMTL", J), J)[2]
    assert np.linalg.norm(d) == pytest.approx(np.sqrt(len(J)), rel=1e-5)
    other = step(made("NashMTL", J), J * 10 ** rng.uniform(-2, 2, size=(len(J), 1)))[2]
    np.testing.assert_allclose(other, d, atol=1e-5)
    fair = step(made(lambda tasks: FairGrad(tasks, alpha=1.0), J), J)[2]
    np.testing.assert_allclose(fair, d, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 5.0])
def test_fairgrads_direction_scales_with_the_gradients_as_it_says(alpha):
    J = SETS["five random"]
    first, second = (
        step(made(lambda tasks: FairGrad(tasks, alpha=alpha), J), s * J)[2] for s in (1.0, 10.0)
    )
    np.testing.assert_allclose(second, 10 ** ((1 - alpha) / (1 + alpha)) * first, rtol=1e-5)


@pytest.mark.parametrize("off", [1e-1, 1e-2, 1e-3])
def test_aligned_steps_are_as_short_as_near_duplicates_differ(off):
    J = np.array([[1.0, 0, 0], [1, off, 0], [0, 0, 1]])
    d = step(made("AlignedMTL", J), J)[2]
    assert np.linalg.norm(d) == pytest.approx(off / np.sqrt(2) / np.sqrt(3), rel=0.01)
    J[1, 1] = 0
    assert np.linalg.norm(step(made("AlignedMTL", J), J)[2]) > 0.5


def test_conflict_free_moves_against_a_task_where_the_gradients_balance_each_other():
    angles = np.array([0.0, 100.0, 230.0]) / 180 * np.pi
    J = np.stack([np.cos(angles), np.sin(angles)], 1)
    assert stationary(J)
    gains = J @ step(made("ConFIG", J), J)[2]
    assert gains.min() < -0.1
    assert gains.max() > 0.1


@EVERY
@pytest.mark.parametrize("n", [1, 4])
def test_equal_gradients_are_followed(method, n):
    g = np.array([3.0, -4.0, 0.0])
    shared, own, d = step(
        made(method, np.tile(g, (n, 1))), np.tile(g, (n, 1)), losses_of(np.full(n, 2.0))
    )
    length = {
        "NashMTL": np.sqrt(n),
        "FairGrad": 5 * n * (25 * n) ** (-2 / 3),  # 25 n w = w^-1/2
        "CAGrad": 7.5,
        "AutoScale": 5 * n,
        "ConFIG": 5 * n,
        "PCGrad": 5 * n,
        "GradVac": 5 * n,
        "GradNorm": 5 * n,
        "DualBalance": 5 * n / 2,
        "DualBalance, tracked": 5 * n / 2,
        "MoCo": 2.5,
    }.get(method, 5.0)
    np.testing.assert_allclose(d, length / 5 * g, atol=1e-5)
    np.testing.assert_allclose(own, 0.5 if "DualBalance" in method else 1, rtol=1e-6)
    if method not in ("CAGrad", "MGDA", "PCD"):  # theirs are not unique, or favour a task
        np.testing.assert_allclose(shared, shared[0], rtol=1e-5)


# tasks that leave the problem


@EVERY
@pytest.mark.parametrize("why", ["no label", "gradient of 0", "both"])
def test_a_task_leaves_and_the_others_are_as_without_it(method, why):
    rng = np.random.default_rng(6)
    J = rng.normal(size=(4, 12)) - 0.5
    losses, rest, present = (
        rng.uniform(0.5, 2, 4),
        [0, 1, 2],
        [True, True, True, why == "gradient of 0"],
    )
    J[3] *= why == "no label"
    first, second = made(method, J), made(method, J[rest])
    for key in range(3):
        shared, own, _ = step(first, J, losses_of(losses * present, present, key))
        shared_, own_, d_ = step(second, J[rest], losses_of(losses[rest], key=key))
        assert (shared[3], own[3]) == (0, 1)
        if method not in (
            "PCGrad",
            "GradVac",
        ):  # their orders are drawn, and are those of another number of tasks
            np.testing.assert_allclose(shared[rest], shared_, rtol=1e-6, atol=1e-9)
            np.testing.assert_allclose(own[rest], own_, rtol=1e-6)
            if "tracked" not in method and method != "MoCo":
                np.testing.assert_allclose(shared[rest] @ J[rest], d_, atol=1e-6)


@EVERY
def test_no_task_at_all(method):
    J = np.random.default_rng(7).normal(size=(3, 5))
    balancer = made(method, J)
    before = {name: value.clone() for name, value in balancer.state_dict().items()}
    shared, own, d = step(balancer, J, losses_of(np.zeros(3), [False] * 3))
    assert (shared == 0).all()
    assert (own == 1).all()
    assert (d == 0).all()
    for name, value in balancer.state_dict().items():
        if name != "steps":
            assert value.equal(before[name]) or value.isnan().all()


@EVERY
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gramian_that_is_not_finite_is_seen_and_leaves_no_trace(method, bad):
    J = np.random.default_rng(8).normal(size=(3, 5))
    balancer = made(method, J)
    step(balancer, J)
    before = {name: value.clone() for name, value in balancer.state_dict().items()}
    J[1, 2] = bad
    assert not np.isfinite(step(balancer, J)[0]).any()
    for name, value in balancer.state_dict().items():
        assert value.equal(before[name]), name


# state


@STATEFUL
def test_a_run_that_resumes_goes_on_with_the_same_bits(method):
    rng = np.random.default_rng(9)
    J, losses = rng.normal(size=(6, 4, 10)), rng.uniform(0.5, 2, (6, 4))
    first = made(method, J[0]).float()
    shapes = {name: value.shape for name, value in first.state_dict().items()}
    for k in range(5):
        step(first, J[k].astype(np.float32), losses_of(losses[k], key=k))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = made(method, J[0]).float()
    second.load_state_dict(torch.load(file, weights_only=True))
    assert {name: value.shape for name, value in first.state_dict().items()} == shapes
    for a, b in zip(
        step(first, J[5], losses_of(losses[5], key=5)),
        step(second, J[5], losses_of(losses[5], key=5)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    fresh = step(made(method, J[0]), J[5], losses_of(losses[5], key=5))
    assert not np.array_equal(step(second, J[5], losses_of(losses[5], key=6))[2], fresh[2])


@EVERY
def test_the_arithmetic_stays_in_float64_on_the_host(method):
    balancer = made(method, np.eye(3)).to(torch.bfloat16)
    for name, buffer in balancer.named_buffers():
        assert buffer.dtype == torch.float64 or name == "tracked_TP"
    assert list(balancer.parameters()) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda tasks: MoCo(tasks, "features"),
            "MoCo tracks the gradients of parameters over steps: "
            "set --model.balancer.level parameters",
        ),
        (
            lambda tasks: DualBalance(tasks, beta=0.5),
            "set --model.balancer.level parameters, or beta 0",
        ),
        (lambda tasks: DualBalance(tasks, beta=1.0), "beta 1.0"),
        (lambda tasks: AutoScale(tasks, exploration=5), "window 20"),
        (lambda tasks: AutoScale(tasks, metric="cosine"), "none of magnitude, condition"),  # type: ignore[arg-type]
        (lambda tasks: CAGrad(tasks, c=-1.0), "c -1.0"),
        (lambda tasks: FairGrad(tasks, alpha=0.0), "alpha 0.0"),
        (lambda tasks: GradNorm(tasks, lr=0.0), "lr 0.0"),
        (lambda tasks: GradVac(tasks, beta=1.5), "beta 1.5"),
        (lambda tasks: SDMGrad(tasks, inner_steps=0), "inner_steps 0"),
        (lambda tasks: MoCo(tasks, "parameters", beta=0.0), "beta 0.0"),
        (lambda tasks: MGDA(tasks, "encoder"), "features or parameters"),  # type: ignore[arg-type]
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make(names(2))
