"""Solver of alpha-fair weights, for NashMTL and FairGrad."""

import numpy as np

from src.balancing.nonnegative import EPS
from src.balancing.solvers import find_simplex_direction, measure_length, normalise


def solve_fair_weights(G: np.ndarray, alpha: float) -> np.ndarray:
    """Solves G w = w^(-1/alpha), w > 0; returns 0 where there is no solution.

    With gains x = G w, these are the gains of the direction d that maximises
    sum_i U(<g_i, d>) - |d|^2 / 2, U' = x^-alpha. Newton's steps for d start at the direction that
    is best for the task that gains least. It is near the solution even where the gradients nearly
    cancel out, so that about five steps suffice.
    """
    # for alpha near 0, weights of gradients that are many orders of magnitude apart overflow
    with np.errstate(all="ignore"):
        return _solve(G, 1 / alpha)


def _solve(G: np.ndarray, p: float) -> np.ndarray:
    """Solves G w = w^-p."""
    n = len(G)
    alpha = 1 / p
    C, norms = normalise(G)

    # with w = scale y / norms, the equation is x = C y = m y^-p
    logs = (p - 1) * np.log(norms)
    m = np.exp(logs - logs.mean())
    worst = np.minimum(m / m.max(), 1) if alpha > 1 else np.ones(n)
    v = find_simplex_direction(C, worst)
    length = measure_length(v, C)

    # as far as the rounding of G can tell, the gradients cancel out
    if length <= np.sqrt(16 * n * EPS) * v.sum():
        return np.zeros(n)

    # along the first direction, the solution has |d|^2 = sum x y
    x = np.maximum(C @ v, 1e-3 * length**2 * worst)
    logs_of_xy = alpha * np.log(m) + (1 - alpha) * np.log(x)
    total = logs_of_xy.max() + np.log(np.exp(logs_of_xy - logs_of_xy.max()).sum())
    t = np.exp((total - 2 * np.log(length)) / (1 + alpha))
    x, v = t * x, t * v
    y = _maximise_utility(C, m, p, x, v)
    y = _polish(C, m, p, y)

    x = m * y**-p
    if not np.abs(y * (C @ y - x)).sum() <= 1e-3 * float(y @ x):
        return np.zeros(n)
    return np.exp(logs.mean() / (1 + p)) * y / norms


def _maximise_utility(
    C: np.ndarray, m: np.ndarray, p: float, x: np.ndarray, v: np.ndarray
) -> np.ndarray:
    """Takes Newton's steps for the direction with weights v and gains x; returns y."""
    alpha = 1 / p
    y = (x / m) ** -alpha
    for _ in range(100):
        D = p * x / y
        dy = _solve_with_diagonal(C, D, x - C @ y)
        dx = -D * dy
        dv = dy + y - v
        slope = float((v - y) @ dx)  # of |d|^2 / 2 - sum U
        if -slope <= 1e-14 * float(x @ y):
            break

        # gains stay above 0, and the slope at the end of the step must not point back too far
        size = min(1.0, 0.95 / max(float((-dx / x).max()), 0.5))
        while size > 1e-9 and (v + size * dv - ((x + size * dx) / m) ** -alpha) @ dx > -slope / 2:
            size /= 2
        x, v = x + size * dx, v + size * dv
        y = (x / m) ** -alpha
    return np.where(y + dy > 0, y + dy, y)


def _polish(C: np.ndarray, m: np.ndarray, p: float, y: np.ndarray) -> np.ndarray:
    """Takes Newton's steps for y itself.

    Gains that are small beside others are lost in the rounding of x, but not in the equation in y.
    """
    last = np.inf
    for _ in range(12):
        x = m * y**-p
        dy = _solve_with_diagonal(C, p * x / y, x - C @ y)
        change = float(np.abs(dy / y).max())
        if change <= 1e-14 or last / 2 <= change < 1e-3:
            break
        y = y + dy * min(1.0, 0.5 / change)
        last = change
    return y


def _solve_with_diagonal(C: np.ndarray, D: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Solves (C + diag D) x = b for D > 0, even where D vanishes beside a singular C."""
    try:
        return np.linalg.solve(C + np.diag(D), b)
    except np.linalg.LinAlgError:
        return np.linalg.solve(C + np.diag(np.maximum(D, 4 * EPS)), b)
