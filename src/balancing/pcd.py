"""PCD: a primary objective, and the least change of its gradient that serves the others."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from src.balancing.balancer import Level
from src.balancing.gradients import GramianBalancer, Problem
from src.balancing.nonnegative import solve_nonnegative
from src.balancing.solvers import measure_length, normalise
from src.errors import UserError, suggest_or_list


class PCD(GramianBalancer):
    """PCD: follows the primary task as closely as progress for each other task allows.

    With h_t = g_t / v_t^1/2, where v_t is the running mean of |g_t|^2 without its bias towards 0,
    and p the primary task, d is the vector nearest to h_p among all with <h_j, d> >= tau |h_j|^2
    for every other task j, brought to the length of g_p (Varam and AlHajri, "Not all objectives are
    born equal: priority-constrained descent", TMLR 2026). So h_p counts once, and another task only
    as far as its progress would be less than the share tau of a step along its own gradient.

    As in the paper, d is g_p where no vector serves all, and 0 where the primary task has no
    gradient: in steps in which it has no labels, what the tasks share stays as it is. The paper
    adds 1e-8 to v_t; here a gradient of 0 leaves the problem instead.

    Args:
        tasks: {task: likelihood}.
        level: Where gradients are taken: features or parameters.
        primary: The primary task; None: the first one.
        tau: Share of progress, in [0, 1], of every other task; or {task: its share}, in which a
            task that is not named has 0.02.
        beta: Weight of the past in the running means.
    """

    squares_T: Tensor
    steps_T: Tensor

    def __init__(
        self,
        tasks: Mapping[str, str],
        level: Level = "features",
        primary: str | None = None,
        tau: float | dict[str, float] = 0.02,
        beta: float = 0.999,
    ) -> None:
        super().__init__(tasks, level)
        if primary is not None and primary not in tasks:
            hint = suggest_or_list(primary, tasks)
            raise UserError(f"PCD: primary '{primary}' is no task: {hint}")
        self.primary = 0 if primary is None else self.tasks.index(primary)
        named = tau if isinstance(tau, dict) else {}
        for name in named:
            if name not in tasks:
                raise UserError(f"PCD: tau names '{name}', which is no task: {', '.join(tasks)}")
        every = 0.02 if isinstance(tau, dict) else tau
        self.shares = np.array([named.get(name, every) for name in tasks])
        if not ((self.shares >= 0) & (self.shares <= 1)).all():
            raise UserError(f"PCD: tau {tau} is outside [0, 1]")
        if not 0 <= beta < 1:
            raise UserError(f"PCD: beta {beta} is outside [0, 1)")
        self.beta = beta
        self.register_buffer("squares_T", torch.zeros(len(tasks), dtype=torch.float64))
        self.register_buffer("steps_T", torch.zeros(len(tasks), dtype=torch.float64))

    def weigh(self, problem: Problem) -> np.ndarray:
        here = problem.tasks
        lengths = self._track(problem)
        weights = np.zeros(len(here))
        (found,) = (here == self.primary).nonzero()
        if not len(found):
            return weights

        # gradients relative to their running lengths
        first = int(found[0])
        G = problem.G / lengths[:, None] / lengths
        y = solve_constrained(G, first, self.shares[here])
        length = measure_length(y, G)

        # opposite gradients that cancel out to rounding have no direction
        if length > 1e-7 * float(y @ np.sqrt(G.diagonal())):
            weights = y / lengths * problem.norms[first] / length
        return weights

    def _track(self, problem: Problem) -> np.ndarray:
        """Adds the gradients of a step to the running means; returns their square roots."""
        here = problem.tasks
        # the buffers are on the CPU: these arrays share their memory
        squares = self.squares_T.numpy()
        steps = self.steps_T.numpy()
        squares[here] = self.beta * squares[here] + (1 - self.beta) * problem.G.diagonal()
        steps[here] += 1
        means: np.ndarray = squares[here] / (1 - self.beta ** steps[here])
        return np.sqrt(means)


def solve_constrained(G: np.ndarray, first: int, shares: np.ndarray) -> np.ndarray:
    """Returns the weights y (n,) of the vector sum_i y_i g_i nearest to g_first that serves all.

    It is the nearest one with <g_j, d> >= shares_j |g_j|^2 for every other j. Its form is
    g_first + sum_j mu_j g_j, where mu >= 0 minimises mu'G mu / 2 - b'mu over the others, with
    b_j = shares_j |g_j|^2 - <g_j, g_first>. Where there is none, all mu are 0.

    Args:
        G: (n, n) inner products; the diagonal is above 0.
        first: The number of the primary gradient.
        shares: (n,) the entry of the primary gradient does not count.
    """
    y = np.zeros(len(G))
    y[first] = 1.0
    others = np.arange(len(G)) != first
    b = (shares * G.diagonal() - G[first])[others]
    if (b <= 0).all():
        return y

    # in unit gradients, so that lengths do not matter
    C, norms = normalise(G[np.ix_(others, others)])
    b = b / norms
    found = solve_nonnegative(C, b)
    if (C @ found - b >= -1e-8 * np.abs(b).max()).all():
        y[others] = found / norms
    return y
