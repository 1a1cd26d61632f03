"""Exact solvers for the small problems inside of balancers: T x T, float64, independent of the gradients' scale.

All work on the correlations C = D^-1/2 G D^-1/2, D = diag G, in which tasks whose gradients are six
orders apart are alike. Weights of gradients are w = D^-1/2 y for weights y of unit gradients.
"""

from math import sqrt

import numpy as np

EPS = np.finfo(float).eps
SINGLE = (
    8 * float(np.finfo(np.float32).eps) ** 2
)  # what the rounding of gradients in fp32 leaves in a Gramian


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

    Sum and difference of the variables, for a diagonal of 1, are solved for by themselves: where A
    is nearly singular only the one that hardly counts is uncertain.
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

    Lawson and Hanson's active sets (Solving Least Squares Problems, 1974) on the normal equations
    (Bro and de Jong, J. Chemometrics 1997): exact to rounding, and monotone, so that it ends.
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
    """The weights on the simplex of the shortest convex combination of gradients."""
    C, norms = correlations(G)
    w = simplex_direction(C, 1 / norms) / norms
    return w / w.sum()


def project(G: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The weights of the direction nearest to sum_i wanted_i g_i that no gradient conflicts with.

    The projection of J'u onto {d: <g_i, d> >= 0 for all i} is J'(u + v) with v >= 0 that minimises
    |J'(u + v)|^2.
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

    Block principal pivoting (Portugal, Judice and Vicente, Math. Comp. 1994) exchanges whole sets
    of variables between x = 0 and slope 0, in a few batched solves. It needs a definite A: where
    gradients are dependent a diagonal is added, of 1e-12 for 40 gradients, enough for rounding not
    to decide on signs. Columns that are not settled all the same are solved one by one.
    """
    n, m = B.shape
    if n == 2:
        return np.array([of_two(A, b) for b in B.T]).T
    tolerance = 16 * n * EPS * np.maximum(np.abs(B).max(0), EPS)

    # the last place stands for "no variable": systems of unlike sizes are filled up with it
    padded = np.zeros((n + 1, n + 1))
    padded[:n, :n] = A if definite(A) else A + 128 * n * EPS * np.eye(n)
    wanted = np.zeros((m, n + 1))
    wanted[:, :n] = B.T

    passive = np.zeros((m, n), dtype=bool)
    X = np.zeros((m, n + 1))
    best, patience, open_ = np.full(m, n + 1), np.full(m, 3), np.arange(m)
    for _ in range(30):
        slope = B.T[open_] - X[open_, :n] @ A
        wrong = np.where(passive[open_], X[open_, :n] < 0, slope > tolerance[open_, None])
        count = wrong.sum(1)
        wrong, open_, count = wrong[count > 0], open_[count > 0], count[count > 0]
        if not len(open_):
            break
        better = count < best[open_]
        best[open_] = np.where(better, count, best[open_])
        patience[open_] = np.where(better, 3, patience[open_] - 1)

        # all at once while that brings something, else the last one alone, which always ends
        alone = np.zeros_like(wrong)
        alone[np.arange(len(open_)), n - 1 - wrong[:, ::-1].argmax(1)] = True
        passive[open_] ^= np.where((patience[open_] >= 0)[:, None], wrong, alone)

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
        X[i, :n] = one_by_one(A, B[:, i])
    return X[:, :n].T


def definite(A: np.ndarray) -> bool:
    """Whether a symmetric matrix is positive definite, by more than rounding."""
    try:
        return bool(np.linalg.cholesky(A).diagonal().min() ** 2 > 4 * len(A) * EPS)
    except np.linalg.LinAlgError:
        return False


def project_each(G: np.ndarray) -> np.ndarray:
    """Row i (n,): the weights of the direction nearest to g_i that no gradient conflicts with."""
    n = len(G)
    if (G >= 0).all():
        return np.eye(n)
    C, norms = correlations(G)

    # parallel gradients have one projection: solve for the first of them
    first = (C >= 1 - 4 * EPS).argmax(1)
    kept = (first == np.arange(n)).nonzero()[0]
    like = C[:, kept].argmax(1)
    U = C[np.ix_(kept, kept)]
    V = np.eye(n)
    V[:, kept] += nonnegative_each(U, -U).T[like]
    return V * norms[:, None] / norms


def conflict_averse(G: np.ndarray, c: float) -> np.ndarray:
    """CAGrad's weights 1/n + c |g_0| / |g_w| w, with w the minimiser of F over the simplex.

    F(w) = <g_w, g_0> + c |g_0| |g_w|, and its least value is the best that a direction in the ball
    can do for the task that gains least. Where that is 0 because the gradients balance each other,
    the nearest direction to g_0 that harms none is taken. F is below 0 where that one lies outside
    the ball, above 0 where the gradients do not balance each other.

    Dinkelbach's method (Management Science 1967): w maximises (level - <g_w, g_0>) / |g_w|, a
    problem of :func:`nonnegative`, and F(w) is the next level. Levels fall to the least value,
    faster than by squaring, from F of any w.
    """
    n = len(G)
    C, norms = correlations(G)
    null = np.sqrt(16 * n * EPS)  # what a Gramian in float64 cannot tell from 0
    mean = norms / n  # the mean gradient's weights of unit gradients
    length = length_of(mean, C)
    if c == 0 or length <= null * mean.sum():
        return np.full(n, 1 / n)
    one = norms.min() / norms  # sum of w = one'y for y = norms w / norms.min()
    b = C @ mean / length

    def value(y: np.ndarray) -> float:
        return float(b @ y + c * length_of(y, C)) / float(one @ y)

    # the projection of the mean onto the directions that harm none is g_0 plus this
    y = nonnegative(C, -b)
    if length_of(y, C) <= c:
        harmless = 1 / n + length * y / norms
        y = simplex_direction(C, one)
        if length_of(y, C) <= null * y.sum():
            return harmless

    level = value(y)
    for _ in range(50):
        found = simplex_direction(C, level * one - b)
        if not found.any():  # no w is better than this level, as far as rounding tells
            break
        y, before, level = found, level, value(found)
        if not level < before:
            break
    return 1 / n + c * length * (y / norms) / length_of(y, C)


def simplex_direction(C: np.ndarray, r: np.ndarray) -> np.ndarray:
    """The y >= 0 that maximises r'y / |sum_i y_i u_i|, up to its length.

    Minimising |sum_i y_i u_i|^2 + (r'y - 1)^2 over y >= 0 has its solution in that direction (for a
    fixed r'y = s the first term is s^2 times the least), and is solvable where the maximum is
    infinite. The two terms are brought to one scale.
    """
    r = r / max(float(np.linalg.norm(r)), float(np.finfo(float).tiny))
    return nonnegative(C + np.outer(r, r), r)


def fair_weights(G: np.ndarray, alpha: float) -> np.ndarray:
    """Solves G w = w^(-1/alpha), w > 0; 0 where there is no solution.

    With gains x = G w these are the gains of the direction d that maximises
    sum_i U(<g_i, d>) - |d|^2 / 2, U' = x^-alpha. Newton's steps for d start at the direction
    that serves the worst-off task best, which is near the solution also where the gradients nearly
    balance each other. There it takes some five steps.
    """
    with np.errstate(
        all="ignore"
    ):  # weights of lengths that are many orders apart overflow for alpha near 0
        return alpha_fair(G, 1 / alpha)


def alpha_fair(G: np.ndarray, p: float) -> np.ndarray:
    """Does so for p = 1 / alpha."""
    n, alpha = len(G), 1 / p
    C, norms = correlations(G)
    logs = (p - 1) * np.log(norms)
    m = np.exp(logs - logs.mean())  # x = C y = m y^-p, for w = scale y / norms
    worst = np.minimum(m / m.max(), 1) if alpha > 1 else np.ones(n)
    v = simplex_direction(C, worst)
    length = length_of(v, C)
    if length <= np.sqrt(16 * n * EPS) * v.sum():  # as far as G can tell they balance each other
        return np.zeros(n)

    # along that direction the solution has |d|^2 = sum x y
    x = np.maximum(C @ v, 1e-3 * length**2 * worst)
    logs_of_xy = alpha * np.log(m) + (1 - alpha) * np.log(x)
    total = logs_of_xy.max() + np.log(np.exp(logs_of_xy - logs_of_xy.max()).sum())
    t = np.exp((total - 2 * np.log(length)) / (1 + alpha))
    x, v = t * x, t * v
    y = (x / m) ** -alpha
    for _ in range(100):
        D = p * x / y
        dy = solve_sum(C, D, x - C @ y)
        dx, dv = -D * dy, dy + y - v
        slope = float((v - y) @ dx)  # of |d|^2 / 2 - sum U
        if -slope <= 1e-14 * float(x @ y):
            break
        size = min(1.0, 0.95 / max(float((-dx / x).max()), 0.5))
        while size > 1e-9 and (v + size * dv - ((x + size * dx) / m) ** -alpha) @ dx > -slope / 2:
            size /= 2
        x, v = x + size * dx, v + size * dv
        y = (x / m) ** -alpha
    y = np.where(y + dy > 0, y + dy, y)

    # gains that are small beside others are rounding in x; the equation in y knows them
    last = np.inf
    for _ in range(12):
        x = m * y**-p
        dy = solve_sum(C, p * x / y, x - C @ y)
        change = float(np.abs(dy / y).max())
        if change <= 1e-14 or last / 2 <= change < 1e-3:
            break
        y, last = y + dy * min(1.0, 0.5 / change), change
    x = m * y**-p
    if not np.abs(y * (C @ y - x)).sum() <= 1e-3 * float(y @ x):
        return np.zeros(n)
    return np.exp(logs.mean() / (1 + p)) * y / norms


def solve_sum(C: np.ndarray, D: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Solves (C + diag D) x = b, D > 0, also where D is nothing beside a singular C."""
    try:
        return np.linalg.solve(C + np.diag(D), b)
    except np.linalg.LinAlgError:
        return np.linalg.solve(C + np.diag(np.maximum(D, 4 * EPS)), b)


def onto_simplex(v: np.ndarray) -> np.ndarray:
    """The nearest point with nonnegative entries that sum to 1 (Held, Wolfe and Crowder, Mathematical Programming 1974)."""
    ordered = np.sort(v)[::-1]
    surplus = np.cumsum(ordered) - 1
    last = (ordered * np.arange(1, len(v) + 1) > surplus).nonzero()[0][-1]
    return np.maximum(v - surplus[last] / (last + 1), 0)
