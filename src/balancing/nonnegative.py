"""Exact solvers for nonnegative least squares with a T x T matrix, in float64 on the CPU."""

from math import sqrt

import numpy as np

EPS = np.finfo(float).eps


def solve_semidefinite(A: np.ndarray, b: np.ndarray, noise: float = 4 * EPS) -> np.ndarray:
    """Solves A x = b for a symmetric positive semidefinite A.

    Where A is singular, x is the shortest least-squares solution.

    Args:
        A: (n, n)
        b: (n,)
        noise: Size, relative to the largest and per row, of eigenvalues that are rounding.
    """
    # a clearly definite matrix needs no eigenvalues
    try:
        if np.linalg.cholesky(A).diagonal().min() ** 2 > len(A) * max(1e4 * EPS, 1e2 * noise):
            return np.linalg.solve(A, b)
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(A)
    kept = values > values[-1] * len(A) * noise
    inverse = np.where(kept, 1 / np.where(kept, values, 1), 0)
    return (vectors * inverse) @ (vectors.T @ b)


def solve_nonnegative(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Minimises x'Ax / 2 - b'x over x >= 0.

    Args:
        A: (n, n), symmetric positive semidefinite, with a diagonal near 1.
        b: (n,)
    """
    if len(b) == 2:
        return np.array(solve_two(A, b))

    # up to four variables, entering them one by one is faster
    if len(b) < 5:
        return solve_by_active_set(A, b)
    return solve_nonnegative_each(A, b[:, None])[:, 0]


def solve_two(A: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Minimises x'Ax / 2 - b'x over x >= 0 for two variables, by cases: both above 0, or one.

    For a diagonal of 1, the equations for the sum and the difference of the variables are
    independent of each other. Where A is nearly singular, only the one that hardly counts is
    uncertain.
    """
    # plain floats: arrays of two numbers would take most of the time
    (a, c), (_, d) = A.tolist()
    a, d = sqrt(a), sqrt(d)
    c, p, q = c / a / d, b[0] / a, b[1] / d
    if 1 - abs(c) > 4 * EPS:
        total = (p + q) / (1 + c)
        difference = (p - q) / (1 - c)
        if total > abs(difference):
            return (total + difference) / 2 / a, (total - difference) / 2 / d
    p, q = max(p, 0.0), max(q, 0.0)
    return (p / a, 0.0) if p >= q else (0.0, q / d)


def solve_by_active_set(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Minimises x'Ax / 2 - b'x over x >= 0, by entering one variable after the other.

    These are the active sets of Lawson and Hanson (Solving Least Squares Problems, 1974) on the
    normal equations (Bro and de Jong, J. Chemometrics 1997). The result is exact to rounding, and
    the objective falls with each change, so that the search ends.
    """
    n = len(b)
    x = np.zeros(n)
    passive = np.zeros(n, dtype=bool)
    tolerance = 16 * n * EPS * max(np.abs(b).max(), EPS)

    # a variable that leaves at once after it was entered had a slope of rounding
    barred = np.zeros(n, dtype=bool)
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
            s[places] = solve_semidefinite(A[np.ix_(places, places)], b[places])
            negative = passive & (s <= 0)
            if not negative.any():
                moved = moved or bool((s != x).any())
                x = s
                break

            # go towards s until the first variable reaches 0, which then leaves
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


def solve_nonnegative_each(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Minimises x'Ax / 2 - b'x over x >= 0 for each column b of B at once.

    Block principal pivoting (Portugal, Judice and Vicente, Math. Comp. 1994) exchanges whole sets
    of variables between x = 0 and slope 0, in a few batched solves. It needs a definite A: for
    dependent gradients a small diagonal is added (1e-12 for 40 gradients), which is enough for the
    signs not to be decided by rounding. Columns that are not settled after 30 exchanges are solved
    one by one.

    Args:
        A: (n, n), symmetric positive semidefinite, with a diagonal near 1.
        B: (n, m)

    Returns:
        (n, m)
    """
    n, m = B.shape
    if n == 2:
        return np.array([solve_two(A, b) for b in B.T]).T
    tolerance = 16 * n * EPS * np.maximum(np.abs(B).max(0), EPS)

    # position n stands for "no variable": systems of different sizes are padded with it
    padded = np.zeros((n + 1, n + 1))
    padded[:n, :n] = A if is_definite(A) else A + 128 * n * EPS * np.eye(n)
    wanted = np.zeros((m, n + 1))
    wanted[:, :n] = B.T

    passive = np.zeros((m, n), dtype=bool)
    X = np.zeros((m, n + 1))
    best = np.full(m, n + 1)
    patience = np.full(m, 3)
    open_ = np.arange(m)
    for _ in range(30):
        # a variable is wrong if it is negative, or if it is 0 and would rise
        slope = B.T[open_] - X[open_, :n] @ A
        wrong = np.where(passive[open_], X[open_, :n] < 0, slope > tolerance[open_, None])
        count = wrong.sum(1)
        wrong, open_, count = wrong[count > 0], open_[count > 0], count[count > 0]
        if not len(open_):
            break
        better = count < best[open_]
        best[open_] = np.where(better, count, best[open_])
        patience[open_] = np.where(better, 3, patience[open_] - 1)

        # exchange all of them while their number falls, else the last one alone, which always ends
        alone = np.zeros_like(wrong)
        alone[np.arange(len(open_)), n - 1 - wrong[:, ::-1].argmax(1)] = True
        passive[open_] ^= np.where((patience[open_] >= 0)[:, None], wrong, alone)

        # one batched solve over the passive variables of all open columns
        places = np.sort(np.where(passive[open_], np.arange(n), n), 1)
        places = places[:, : passive[open_].sum(1).max()]
        systems = padded.take(places[:, :, None] * (n + 1) + places[:, None, :])
        diagonal = np.arange(places.shape[1])
        systems[:, diagonal, diagonal] += places == n
        right = np.take_along_axis(wanted[open_], places, 1)
        X[open_] = 0
        try:
            X[open_[:, None], places] = np.linalg.solve(systems, right[..., None])[..., 0]
        except np.linalg.LinAlgError:
            break

    for i in open_:
        X[i, :n] = solve_by_active_set(A, B[:, i])
    return X[:, :n].T


def is_definite(A: np.ndarray) -> bool:
    """Returns whether a symmetric matrix is positive definite by more than rounding."""
    try:
        return bool(np.linalg.cholesky(A).diagonal().min() ** 2 > 4 * len(A) * EPS)
    except np.linalg.LinAlgError:
        return False
