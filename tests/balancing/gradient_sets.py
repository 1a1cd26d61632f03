"""Gradients of tasks (T, N) in float64 that are hard for solvers, and helpers for tests."""

import numpy as np
import torch
from scipy.optimize import nnls

from src.balancing import TaskLosses


def gradient_sets():
    rng = np.random.default_rng(0)

    def rows(T, N):
        return rng.normal(size=(T, N))

    def conflicting(J, by=1.2):
        return J - by * J.mean(0)

    def spread(J):
        return J * 10 ** rng.uniform(-3, 3, size=(len(J), 1))

    g, h = rows(2, 10)
    angles = 2 * np.pi * np.arange(3) / 3
    triangle = np.stack([np.cos(angles), np.sin(angles)], 1)
    return {
        "one task": rows(1, 7),
        "two random": rows(2, 10),
        "five random": rows(5, 50),
        "ten random": rows(10, 30),
        "forty random": rows(40, 100),
        "three conflicting": conflicting(rows(3, 12)),
        "eight conflicting": conflicting(rows(8, 20)),
        "twenty conflicting": conflicting(rows(20, 60), 1.5),
        "thirty barely conflicting": conflicting(rows(30, 200), 0.99),
        "nearly parallel": g + 1e-3 * rows(4, 10),
        "nearly parallel and shorter": (g + 1e-4 * rows(6, 10))
        * np.array([[1], [0.5], [2], [0.1], [3], [1]]),
        "nearly opposite": np.stack([g, -g + 1e-3 * h, -0.5 * g + 1e-3 * rows(1, 10)[0]]),
        "equal": np.tile(g, (4, 1)),
        "duplicated": rows(3, 12)[[0, 0, 1, 1, 2]],
        "duplicated in conflict": conflicting(rows(3, 12))[[0, 1, 0, 2, 1, 1]],
        "one zero": np.insert(rows(4, 15), 2, 0, axis=0),
        "two zeros in conflict": np.insert(conflicting(rows(4, 15)), [0, 3], 0, axis=0),
        "lengths six orders apart": spread(rows(5, 40)),
        "lengths six orders apart, in conflict": spread(conflicting(rows(8, 40))),
        "twenty lengths six orders apart": spread(rows(20, 80)),
        "rank 4 of 8": np.abs(rows(8, 4)),
        "rank 3 of 12": np.abs(rows(12, 3)) + 0.3 * rows(12, 3),
        "rank 5 of 15": np.abs(rows(15, 5)) @ rows(5, 40),
        "stationary triangle": triangle,
        "stationary triangle of unlike lengths": triangle * np.array([[1.0], [5.0], [0.2]]),
        "stationary, rank 3 of 20": rows(20, 3),
        "stationary sum": np.vstack([J := rows(5, 20), -J.sum(0)]),
        "opposite": np.stack([g, -g]),
        "opposite, one longer": np.stack([g, -3 * g]),
        "opposite, and a third": np.stack([g, -2 * g, h]),
        "orthogonal": np.diag([1.0, 10.0, 0.1, 3.0]),
        "tiny": 1e-12 * rows(4, 20),
        "tiny, in conflict": 1e-12 * conflicting(rows(5, 20)),
        "huge": 1e8 * rows(4, 20),
        "huge, in conflict": 1e8 * conflicting(rows(5, 20)),
    }


SETS = gradient_sets()


def active(J):
    """The rows that are not 0."""
    return J[np.linalg.norm(J, axis=1) > 0]


def units(J):
    return J / np.linalg.norm(J, axis=1, keepdims=True)


def stationary(J):
    """Whether some convex combination of the gradients is 0: no direction makes all losses fall."""
    U = units(active(J))
    y, _ = nnls(
        np.vstack([U.T, np.ones(len(U))]), np.append(np.zeros(U.shape[1]), 1.0), maxiter=1000
    )
    return np.linalg.norm(y @ U) < 1e-7 * y.sum()


def gap(J, weights, wanted):
    """Returns the error of a direction, relative to the largest term of its sum."""
    norms = np.linalg.norm(J, axis=1)
    scale = max((np.abs(weights) * norms).max(), np.linalg.norm(wanted), 1e-6 * norms.max())
    return np.linalg.norm(weights @ J - wanted) / scale


def losses_of(values, present=None, key=0):
    values = torch.as_tensor(np.asarray(values), dtype=torch.float64)
    present = (
        torch.ones(len(values), dtype=torch.bool) if present is None else torch.tensor(present)
    )
    return TaskLosses(values.clone().requires_grad_(), values, present, key)


def names(T, kind="gaussian"):
    return {f"t{i}": kind for i in range(T)}
