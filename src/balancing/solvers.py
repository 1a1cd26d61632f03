"""Exact solvers for the small problems inside of balancers: T x T, float64, independent of the gradients' scale.

All work on the correlations C = D^-1/2 G D^-1/2, D = diag G, in which tasks whose gradients are six orders apart are alike.
Weights of gradients are w = D^-1/2 y for weights y of unit gradients.
"""

from math import sqrt

import numpy as np

EPS = np.finfo(float).eps
SINGLE = 8 * float(np.finfo(np.float32).eps) ** 2  # what the rounding of gradients in fp32 leaves in a Gramian


def correlations(G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns C (n, n), symmetric with ones on the diagonal, and the gradients' lengths (n,)."""
    norms = np.sqrt(G.diagonal())
    C = G / norms[:, None] / norms
    C = np.clip((C + C.T) / 2, -1, 1)
    np.fill_diagonal(C, 1.0)
    return C, norms


def length_of(y: np.ndarray, C: np.ndarray) -> float:
    """The length of a sum of unit gradients with weights y."""
    return float(np.sqrt(max(float(y @ C @ y), 0.0)))


def solve(A: np.ndarray, b: np.ndarray, noise: float = 4 * EPS) -> np.ndarray:
    """Solves A x = b for a symmetric positive semidefinite A; where it is singular, the shortest least-squares solution.

    Args:
        A: (n, n)
        b: (n,)
        noise: Relative size, per row, of eigenvalues that are rounding.
    """
    try:
        if np.linalg.cholesky(A).diagonal().min() ** 2 > len(A) * max(1e4 * EPS, 1e2 * noise):
            return np.linalg.solve(A, b)
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(A)
    kept = values > values[-1] * len(A) * noise
    inverse = np.where(kept, 1 / np.where(kept, values, 1), 0)
    return (vectors * inverse) @ (vectors.T @ b)


def nonnegative(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Minimises x'Ax / 2 - b'x over x >= 0, for a symmetric positive semidefinite A with a diagonal near 1."""
    if len(b) == 2:
        return np.array(of_two(A, b))
    return one_by_one(A, b) if len(b) < 5 else nonnegative_each(A, b[:, None])[:, 0]


def of_two(A: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The same for two variables, by trying what can be: both above 0, or one.

    Sum and difference of the variables, for a diagonal of 1, are solved for by themselves: where A is nearly singular only the one
    that hardly counts is uncertain.
    """
    (a, c), (_, d) = A.tolist()
    a, d = sqrt(a), sqrt(d)
    c, p, q = c / a / d, b[0] / a, b[1] / d
    if 1 - abs(c) > 4 * EPS:
        total, difference = (p + q) / (1 + c), (p - q) / (1 - c)
        if total > abs(difference):
            return (total + difference) / 2 / a, (total - difference) / 2 / d
    p, q = max(p, 0.0), max(q, 0.0)
    return (p / a, 0.0) if p >= q else (0.0, q / d)


def one_by_one(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The same, by entering one variable after the other.

    Lawson and Hanson's active sets (Solving Least Squares Problems, 1974) on the normal equations (Bro and de Jong, J. Chemometrics
    1997): exact to rounding, and monotone, so that it ends.
    """
    n = len(b)
    x, passive = np.zeros(n), np.zeros(n, dtype=bool)
    tolerance = 16 * n * EPS * max(np.abs(b).max(), EPS)
    barred = np.zeros(n, dtype=bool)  # entered, and left at once: rounding
    for _ in range(30 * n):
        slope = b - A @ x
        candidates = np.where(passive | barred, -np.inf, slope)
        j = int(candidates.argmax())
        if candidates[j] <= tolerance:
            break
        passive[j] = True
        moved = False
        while True:
            places = passive.nonzero()[0]
            s = np.zeros(n)
            s[places] = solve(A[np.ix_(places, places)], b[places])
            negative = passive & (s <= 0)
            if not negative.any():
                moved = moved or bool((s != x).any())
                x = s
                break
            ratio = np.where(negative, x / np.where(negative, x - s, 1), np.inf)
            step = float(ratio.min())
            moved = moved or step > 0
            x = x + step * (s - x)
            x[negative & (ratio <= step)] = 0
            passive &= x > 0
        barred = np.zeros(n, dtype=bool) if moved else barred
        if not passive[j]:
            barred[j] = True
    return x


def min_norm_point(G: np.ndarray) -> np.ndarray:
    """The weights on the simplex of the shortest convex combination of gradients.

    Minimising |sum x_i g_i|^2 + c (sum x_i - 1)^2 over x >= 0 has a solution in the direction of these weights, for every c > 0
    (for a fixed sum s the first term is s^2 times the least). In C's coordinates, with c such that both terms have one scale.
    """
    C, norms = correlations(G)
    one = 1 / norms
    one /= np.linalg.norm(one)
    y = nonnegative(C + np.outer(one, one), one)
    w = y / norms
    return w / w.sum()


def project(G: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The weights of the direction nearest to sum_i wanted_i g_i that no gradient conflicts with.

    The projection of J'u onto {d: <g_i, d> >= 0 for all i} is J'(u + v) with v >= 0 that minimises |J'(u + v)|^2.
    """
    if (G >= 0).all() and (wanted >= 0).all():
        return wanted
    C, norms = correlations(G)
    u = wanted * norms
    scale = np.abs(u).max()
    if scale == 0:
        return wanted
    v = nonnegative(C, -(C @ (u / scale)))
    return (u + scale * v) / norms


def nonnegative_each(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Solves :func:`nonnegative` for each column of B (n, m) at once: (n, m).

    Block principal pivoting (Portugal, Judice and Vicente, Math. Comp. 1994) exchanges whole sets of variables between x = 0 and
    slope 0, in a few batched solves; the columns that it does not settle, as it may for a singular A, are solved one by one.
    """
    n, m = B.shape
    if n == 2:
        return np.array([of_two(A, b) for b in B.T]).T
    tolerance = 16 * n * EPS * np.maximum(np.abs(B).max(0), EPS)
    passive = np.zeros((m, n), dtype=bool)
    X, best, patience, open_ = np.zeros((m, n)), np.full(m, n + 1), np.full(m, 3), np.arange(m)
    for _ in range(20):
        slope = B.T[open_] - X[open_] @ A
        wrong = np.where(passive[open_], X[open_] < 0, slope > tolerance[open_, None])
        count = wrong.sum(1)
        wrong, open_, count = wrong[count > 0], open_[count > 0], count[count > 0]
        if not len(open_):
            return X.T
        better = count < best[open_]
        best[open_] = np.where(better, count, best[open_])
        patience[open_] = np.where(better, 3, patience[open_] - 1)
        alone = np.zeros_like(wrong)
        alone[np.arange(len(open_)), n - 1 - wrong[:, ::-1].argmax(1)] = True
        passive[open_] ^= np.where((patience[open_] >= 0)[:, None], wrong, alone)
        # the passive variables of each column to the front, so that no system is larger than the largest passive set
        order = np.argsort(~passive[open_], axis=1, kind="stable")[:, : passive[open_].sum(1).max()]
        inside = np.take_along_axis(passive[open_], order, 1)
        systems = np.where(inside[:, :, None] & inside[:, None, :], A[order[:, :, None], order[:, None, :]], np.eye(order.shape[1]))
        wanted = np.where(inside, np.take_along_axis(B.T[open_], order, 1), 0)
        X[open_] = 0
        try:
            X[open_[:, None], order] = np.linalg.solve(systems, wanted[..., None])[..., 0]
        except np.linalg.LinAlgError:
            break
    for i in open_:
        X[i] = one_by_one(A, B[:, i])
    return X.T


def project_each(G: np.ndarray) -> np.ndarray:
    """Row i (n,): the weights of the direction nearest to g_i that no gradient conflicts with."""
    if (G >= 0).all():
        return np.eye(len(G))
    C, norms = correlations(G)
    return (np.eye(len(G)) + nonnegative_each(C, -C).T) * norms[:, None] / norms


def conflict_averse(G: np.ndarray, c: float) -> np.ndarray:
    """CAGrad's weights 1/n + c |g_0| / |g_w| w, with w the minimiser of F(w) = b'w + k |g_w| over the simplex.

    Here b = G 1/n and k = c |g_0|.

    Active sets as in :func:`nonnegative`: F is convex, and on a support its minimiser under sum w = 1 is known in closed form. With
    p = G^-1 1, q = G^-1 b, A = 1'p, B = 1'q: w = (m p - q) / (m A - B), m = (B + sqrt(B^2 - A (b'q - k^2))) / A. Where the root is
    that of a negative number F falls without end along the line, until a weight becomes 0.
    """
    n = len(G)
    C, norms = correlations(G)
    null = np.sqrt(16 * n * EPS)  # what a Gramian in float64 cannot tell from 0
    mean = norms / n  # the mean gradient's weights of unit gradients
    length = length_of(mean, C)
    if n == 1 or c == 0 or length <= null * mean.sum():
        return np.full(n, 1 / n) * (1 + c if n == 1 else 1)
    scale = norms.min()
    one = scale / norms  # sum of w = one'y for y = norms w / scale
    b, k = C @ mean / length, c  # F in units of |g_0| times the smallest gradient
    j = int((b / one + k / one).argmin())
    y, support = np.zeros(n), np.zeros(n, dtype=bool)
    y[j], support[j] = 1 / one[j], True
    barred = np.zeros(n, dtype=bool)
    for _ in range(30 * n):
        s = length_of(y, C)
        if s <= null * y.sum():
            break  # the gradients balance each other: g_w = 0 is the least there is
        slope = b + k * (C @ y) / s
        level = float(slope @ y)
        reduced = np.where(support | barred, np.inf, slope - level * one)
        j = int(reduced.argmin())
        if reduced[j] >= -64 * n * EPS * (np.abs(b).max() + k):
            break
        support[j], moved = True, False
        while True:
            places = support.nonzero()[0]
            CS, oneS, bS = C[np.ix_(places, places)], one[places], b[places]
            p, q = solve(CS, oneS), solve(CS, bS)
            A, B, Q = float(oneS @ p), float(oneS @ q), float(bS @ q)
            root = B * B - A * (Q - k * k)
            move, reach = np.zeros(n), 1.0
            rounding = 64 * n * EPS * np.abs(p).max()
            if np.abs(CS @ p - oneS).max() > 1e-6 * oneS.max() + rounding:  # some combination of these gradients is 0
                z = solve(CS + np.outer(oneS, oneS), oneS)
                z /= oneS @ z
                move[places] = z - y[places] if k * k >= Q else B * z - q
                reach = 1.0 if k * k >= Q else np.inf
            elif root > 0:
                m = (B + np.sqrt(root)) / A
                move[places] = (m * p - q) / (m * A - B) - y[places]
            else:
                move[places], reach = B / A * p - q, np.inf
            shrinking = support & (move < 0) & ((y + move <= 0) if reach == 1.0 else True)
            ratio = np.where(shrinking, y / np.where(shrinking, -move, 1), np.inf)
            step = min(float(ratio.min()), reach)
            if not np.isfinite(step):
                break
            moved = moved or step > 0
            y = np.maximum(y + step * move, 0)
            if step >= reach and not (ratio <= reach).any():
                break
            y[ratio <= step] = 0
            support &= y > 0
        barred = np.zeros(n, dtype=bool) if moved else barred
        if not support[j]:
            barred[j] = True
    s = length_of(y, C)
    if s <= null * y.sum():  # no direction in the ball serves all: the nearest to g_0 that harms none
        return project(G, np.full(n, 1 / n))
    return 1 / n + c * length * (y / norms) / s


def fair_weights(G: np.ndarray, alpha: float) -> np.ndarray:
    """Solves G w = w^(-1/alpha), w > 0: the minimiser of w'Gw / 2 - sum phi(w), phi' = w^(-1/alpha); 0 where there is none.

    Damped Newton steps, exact to rounding after some ten.
    """
    n = len(G)
    C, norms = correlations(G)
    e = -1 / alpha
    m = norms ** (-1 - e)
    t = np.exp(np.log(m).mean())
    m = m / t  # C y = m y^e for w = t^(1 / (1 - e)) y / norms
    y = np.maximum(m / np.maximum(C.sum(1), 1e-2), 1e-3 * m) ** (1 / (1 - e))  # exact for two tasks of one m

    def value(y: np.ndarray) -> float:
        barrier = (m * np.log(y)).sum() if alpha == 1 else (m * y ** (1 + e)).sum() / (1 + e)
        return float(y @ C @ y) / 2 - barrier

    for _ in range(100):
        gradient = C @ y - m * y**e
        try:
            step = np.linalg.solve(C - np.diag(e * m * y ** (e - 1)), -gradient)
        except np.linalg.LinAlgError:  # singular: the gradients balance each other
            return np.zeros(n)
        slope = float(gradient @ step)
        if -slope <= 1e-12 * float((m * y ** (1 + e)).sum()):
            break
        shrinking = float((step / y).min())
        size, now = min(1.0, -0.95 / shrinking) if shrinking < 0 else 1.0, value(y)
        while size > 1e-9 and not value(y + size * step) <= now + 1e-4 * size * slope:
            size /= 2
        y = y + size * step
        if y.max() > (m.max() / (16 * n * EPS)) ** (1 / (1 - e)):  # likewise, as far as G can tell
            return np.zeros(n)
    for _ in range(4):  # the value is flat here, and no judge any more; Newton's steps converge quadratically
        step = np.linalg.solve(C - np.diag(e * m * y ** (e - 1)), m * y**e - C @ y)
        y = np.where(np.abs(step) < y / 2, y + step, y)
        if (np.abs(step) <= 1e-14 * y).all():
            break
    if np.abs((C @ y) / (m * y**e) - 1).max() > 1e-3:
        return np.zeros(n)
    return t ** (1 / (1 - e)) * y / norms


def onto_simplex(v: np.ndarray) -> np.ndarray:
    """The nearest point with nonnegative entries that sum to 1 (Held, Wolfe and Crowder, Mathematical Programming 1974)."""
    ordered = np.sort(v)[::-1]
    surplus = np.cumsum(ordered) - 1
    last = (ordered * np.arange(1, len(v) + 1) > surplus).nonzero()[0][-1]
    return np.maximum(v - surplus[last] / (last + 1), 0)
