"""Exact solvers for the problems inside of balancers: T x T, float64, on the CPU.

All work on the correlations C = D^-1/2 G D^-1/2, D = diag G, so that the scales of the gradients do
not matter: tasks may be six orders of magnitude apart. Weights w of gradients belong to weights y
of unit gradients by w = D^-1/2 y.
"""

import numpy as np

from src.balancing.nonnegative import EPS, solve_nonnegative, solve_nonnegative_each

# the relative size of what the rounding of gradients in fp32 leaves in a Gramian
SINGLE = 8 * float(np.finfo(np.float32).eps) ** 2


def normalise(G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the correlations C (n, n) of gradients, and the gradients' lengths (n,).

    C is symmetric, with ones on the diagonal.
    """
    norms = np.sqrt(G.diagonal())
    C = G / norms[:, None] / norms
    C = np.clip((C + C.T) / 2, -1, 1)
    np.fill_diagonal(C, 1.0)
    return C, norms


def measure_length(y: np.ndarray, C: np.ndarray) -> float:
    """Returns |sum_i y_i u_i|, the length of a sum of unit gradients u_i with weights y."""
    return float(np.sqrt(max(float(y @ C @ y), 0.0)))


def find_min_norm_point(G: np.ndarray) -> np.ndarray:
    """Returns the weights (n,) on the simplex of the shortest convex combination of gradients."""
    C, norms = normalise(G)
    w = find_simplex_direction(C, 1 / norms) / norms
    return w / w.sum()


def find_simplex_direction(C: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Returns the y >= 0 that maximises r'y / |sum_i y_i u_i|, up to its length.

    The minimiser of |sum_i y_i u_i|^2 + (r'y - 1)^2 over y >= 0 has this direction: for a fixed
    r'y = s, the first term is s^2 times its least value. Unlike the quotient, this problem also has
    a solution where the maximum is infinite.
    """
    # bring the two terms to the same scale
    r = r / max(float(np.linalg.norm(r)), float(np.finfo(float).tiny))
    return solve_nonnegative(C + np.outer(r, r), r)


def project(G: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns the weights of the direction nearest to sum_i wanted_i g_i without any conflict.

    The projection of J'u onto {d: <g_i, d> >= 0 for all i} is J'(u + v), where v >= 0 minimises
    |J'(u + v)|^2.
    """
    if (G >= 0).all() and (wanted >= 0).all():
        return wanted
    C, norms = normalise(G)
    u = wanted * norms
    scale = np.abs(u).max()
    if scale == 0:
        return wanted
    v = solve_nonnegative(C, -(C @ (u / scale)))
    return (u + scale * v) / norms


def project_each(G: np.ndarray) -> np.ndarray:
    """Projects each gradient onto the directions that conflict with no gradient.

    Returns:
        (n, n): row i holds the weights of the projection of g_i.
    """
    n = len(G)
    if (G >= 0).all():
        return np.eye(n)
    C, norms = normalise(G)

    # parallel gradients have the same projection: solve for the first of them
    first = (C >= 1 - 4 * EPS).argmax(1)
    kept = (first == np.arange(n)).nonzero()[0]
    like = C[:, kept].argmax(1)
    U = C[np.ix_(kept, kept)]
    V = np.eye(n)
    V[:, kept] += solve_nonnegative_each(U, -U).T[like]
    return V * norms[:, None] / norms


def project_to_simplex(v: np.ndarray) -> np.ndarray:
    """Returns the nearest vector with nonnegative entries that sum to 1.

    The algorithm is that of Held, Wolfe and Crowder (Mathematical Programming 1974).
    """
    descending = np.sort(v)[::-1]
    surplus = np.cumsum(descending) - 1
    last = (descending * np.arange(1, len(v) + 1) > surplus).nonzero()[0][-1]
    return np.maximum(v - surplus[last] / (last + 1), 0)


def solve_conflict_averse(G: np.ndarray, c: float) -> np.ndarray:
    """Returns CAGrad's weights 1/n + c |g_0| / |g_w| w, where w minimises F over the simplex.

    F(w) = <g_w, g_0> + c |g_0| |g_w|. Its least value is the largest gain that a direction in the
    ball has for the task that gains least. If this value is 0 because the gradients cancel out, the
    direction nearest to g_0 without conflict is taken. F is below 0 where that direction lies
    outside of the ball, and above 0 where the gradients do not cancel out.

    Dinkelbach's method (Management Science 1967) solves it: w maximises
    (level - <g_w, g_0>) / |g_w|, which :func:`find_simplex_direction` does, and F(w) is the next
    level. The levels start at F of any w and fall to the least value, faster than quadratically.
    """
    n = len(G)
    C, norms = normalise(G)
    null = np.sqrt(16 * n * EPS)  # a Gramian in float64 cannot tell shorter sums from 0
    mean = norms / n  # the weights of unit gradients in the mean gradient
    length = measure_length(mean, C)
    if c == 0 or length <= null * mean.sum():
        return np.full(n, 1 / n)

    # with y = norms w / norms.min(), the sum of w is one'y
    one = norms.min() / norms
    b = C @ mean / length

    def value(y: np.ndarray) -> float:
        return float(b @ y + c * measure_length(y, C)) / float(one @ y)

    # the projection of the mean onto the directions without conflict is g_0 plus this
    y = solve_nonnegative(C, -b)
    if measure_length(y, C) <= c:
        harmless = 1 / n + length * y / norms
        y = find_simplex_direction(C, one)
        if measure_length(y, C) <= null * y.sum():
            return harmless

    level = value(y)
    for _ in range(50):
        found = find_simplex_direction(C, level * one - b)
        if not found.any():  # as far as rounding tells, no w is better than this level
            break
        y = found
        before = level
        level = value(found)
        if not level < before:
            break
    return 1 / n + c * length * (y / norms) / measure_length(y, C)
