"""Projecting conflicting gradients."""

import numpy as np

from src.balancing.balancer import GramianBalancer, Problem


class PCGrad(GramianBalancer):
    """Each gradient loses its component along every other one that it conflicts with.

    The others come in random order; d is the sum of what is left (Yu et al., "Gradient surgery for
    multi-task learning", NeurIPS 2020).

    For j != t in random order: if <v_t, g_j> < 0 then v_t <- v_t - <v_t, g_j> / |g_j|^2 g_j. The
    orders are drawn from (seed, step). Two tasks end without conflict; more than two may not. With
    ``level: features`` angles are those of the features' gradients.
    """

    def weigh(self, problem: Problem) -> np.ndarray:
        G, n = problem.G, len(problem.G)
        if (G >= 0).all():
            return np.ones(n)
        orders = other_tasks_in_random_order(problem)
        V, every = np.eye(n), np.arange(n)  # row t: the weights of v_t
        for j in orders.T:
            dots = (V * G[j]).sum(1)
            V[every, j] -= np.minimum(dots, 0) / G[j, j]
        return V.sum(0)


def other_tasks_in_random_order(problem: Problem) -> np.ndarray:
    """(n, n - 1): row t holds the other tasks; task t's order depends on the tasks' own places, not on which others are absent."""
    ranks = np.random.default_rng(problem.key).random(
        (problem.tasks[-1] + 1, problem.tasks[-1] + 1)
    )
    ranks = ranks[np.ix_(problem.tasks, problem.tasks)]
    np.fill_diagonal(ranks, np.inf)
    return ranks.argsort(1)[:, :-1]
