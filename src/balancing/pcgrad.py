"""PCGrad: projection of conflicting gradients."""

import numpy as np

from src.balancing.gradients import GramianBalancer, Problem


class PCGrad(GramianBalancer):
    """PCGrad: removes from each gradient its component along every gradient that it conflicts with.

    For each task t, v_t starts as g_t. Then, for j != t in random order: if <v_t, g_j> < 0,
    v_t <- v_t - <v_t, g_j> / |g_j|^2 g_j. d is the sum of the v_t (Yu et al., "Gradient surgery for
    multi-task learning", NeurIPS 2020). The orders are drawn from (seed, step). Two tasks end
    without conflict; more than two may not.

    With ``level: features``, angles are those of the gradients with respect to the features.
    """

    def weigh(self, problem: Problem) -> np.ndarray:
        G = problem.G
        n = len(G)
        if (G >= 0).all():
            return np.ones(n)
        orders = shuffle_other_tasks(problem)

        # row t of V holds the weights of the gradients in v_t; all rows take a step at once
        V = np.eye(n)
        every = np.arange(n)
        for j in orders.T:
            dots = (V * G[j]).sum(1)
            V[every, j] -= np.minimum(dots, 0) / G[j, j]
        return V.sum(0)


def shuffle_other_tasks(problem: Problem) -> np.ndarray:
    """Draws for each task an order of the other tasks.

    Two tasks keep their order when a third one is absent from the step.

    Returns:
        (n, n - 1): row t holds the positions of the other tasks.
    """
    size = problem.tasks[-1] + 1
    ranks = np.random.default_rng(problem.key).random((size, size))
    ranks = ranks[np.ix_(problem.tasks, problem.tasks)]
    np.fill_diagonal(ranks, np.inf)
    return ranks.argsort(1)[:, :-1]
