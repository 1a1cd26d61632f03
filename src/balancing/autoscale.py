"""AutoScale: fixed weights, found in the first steps of a run."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from src.balancing.balancer import Level
from src.balancing.gradients import GramianBalancer, Problem
from src.balancing.solvers import SINGLE, normalise
from src.errors import UserError


class AutoScale(GramianBalancer):
    """AutoScale: explores how the gradients compare, then keeps the weights that suit them best.

    Good fixed weights make the tasks' weighted gradients similar in length and their system well
    conditioned; so such weights can be found in one run instead of a search (Yang et al.,
    "AutoScale: linear scalarization guided by multi-task optimization metrics", arXiv 2508.13979,
    2025). The first phase explores, the second trains with fixed weights.

    The paper was at hand in its abstract and in summaries alone, which name the two phases, the
    windows and the metrics. In detail this class does the following. The steps of the exploration
    are cut into windows. At the end of a window, with the mean Gramian G of its steps, w optimises
    one of two metrics of the weighted gradients w_t g_t:

    - ``magnitude``: the similarity of lengths, the mean over pairs of
      2 n_s n_t / (n_s^2 + n_t^2) with n_t = w_t G_tt^(1/2) (Yu et al., PCGrad, NeurIPS 2020). It is
      1, its maximum, for w_t ~ G_tt^(-1/2).
    - ``condition``: the ratio of the largest to the smallest singular value of the system, the root
      of l_max / l_min of W G W with W = diag w (Senushkin et al., Aligned-MTL, CVPR 2023). It is
      minimised from the weights of ``magnitude``, which are the solution for two tasks, or where G
      is singular.

    Each window adds the ratios of its weights, log w_s - log w_t. The weights of the steps that
    follow are the least-squares fit to the mean ratios so far; they sum to the number of tasks that
    have had a gradient. They are 1 in the first window and fixed after the last one. They count in
    the heads too, and multiply ``model.weights``: the step is the one of StaticWeights with the
    products as ``model.weights``. A run reports them when it ends, and its checkpoints hold them.

    With ``level: features``, gradients are those with respect to the features.

    Args:
        tasks: {task: likelihood}.
        level: Where gradients are taken: features or parameters.
        metric: magnitude or condition.
        exploration: Number of steps of the first phase.
        window: Number of steps of a window; the last window may be shorter.

    Attributes:
        weights_T: (T,) The weights, in the order of ``tasks``.
    """

    # its weights count in the heads, whose micro-batches are over before the weights are known
    accumulates = False
    weights_T: Tensor
    steps: Tensor
    gram_TT: Tensor
    together_TT: Tensor
    ratios_TT: Tensor
    windows_TT: Tensor

    def __init__(
        self,
        tasks: Mapping[str, str],
        level: Level = "features",
        metric: Literal["magnitude", "condition"] = "magnitude",
        exploration: int = 200,
        window: int = 20,
    ) -> None:
        super().__init__(tasks, level)
        if metric not in ("magnitude", "condition"):
            raise UserError(f"AutoScale: metric '{metric}' is none of magnitude, condition")
        if not 1 <= window <= exploration:
            raise UserError(
                f"AutoScale: window {window} must be at least 1 and at most the exploration of "
                f"{exploration} steps"
            )
        self.metric = metric
        self.exploration = exploration
        self.window = window

        T = len(tasks)
        self.register_buffer("weights_T", torch.ones(T, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.float64))

        # sums over the steps of a window, and the number of steps in which both tasks took part
        for name in ("gram_TT", "together_TT"):
            self.register_buffer(name, torch.zeros(T, T, dtype=torch.float64))
        # sums over windows, and the number of windows that know the ratio of two weights
        for name in ("ratios_TT", "windows_TT"):
            self.register_buffer(name, torch.zeros(T, T, dtype=torch.float64))

    @property
    def explores(self) -> bool:
        """Whether the weights may still change."""
        return float(self.steps) < self.exploration

    def found_weights(self) -> dict[str, float]:
        """Returns {task: weight}; they are the final ones once :attr:`explores` is False."""
        return dict(zip(self.tasks, self.weights_T.tolist(), strict=True))

    def summary(self) -> list[str]:
        """Returns a line with the weights."""
        shown = ", ".join(f"{task} {weight:.3g}" for task, weight in self.found_weights().items())
        if self.explores:
            steps = f"{int(self.steps)} of {self.exploration} steps of exploration"
            return [f"AutoScale's weights after {steps}: {shown}"]
        return [f"AutoScale's weights: {shown}"]

    def weigh(self, problem: Problem) -> np.ndarray:
        # the buffers are on the CPU: these arrays share their memory
        here = problem.tasks
        used = self.weights_T.numpy()[here].copy()
        if not self.explores:
            return used

        among = np.ix_(here, here)
        self.gram_TT.numpy()[among] += problem.G
        self.together_TT.numpy()[among] += 1
        self.steps += 1
        if float(self.steps) % self.window == 0 or not self.explores:
            self._end_window()
        return used

    def head_weights(self, problem: Problem, weights: np.ndarray) -> np.ndarray | None:
        return weights

    def _end_window(self) -> None:
        """Adds what the steps of a window say about the weights, and fits the weights anew."""
        together = self.together_TT.numpy()
        G = self.gram_TT.numpy() / np.maximum(together, 1)
        here = G.diagonal().nonzero()[0]
        among = np.ix_(here, here)
        logs = fit_log_weights(G[among], self.metric)

        # two tasks that share no step say nothing about each other
        known = together[among] > 0
        self.ratios_TT.numpy()[among] += known * (logs[:, None] - logs)
        self.windows_TT.numpy()[among] += known
        self.gram_TT.zero_()
        self.together_TT.zero_()

        # the normal equations of the fit have a common factor as their null space
        counts = self.windows_TT.numpy()
        seen = counts.diagonal() > 0
        laplacian = np.diag(counts.sum(1)) - counts
        fitted = np.linalg.pinv(laplacian, hermitian=True) @ self.ratios_TT.numpy().sum(1)
        w = np.exp(fitted[seen] - fitted[seen].max())
        self.weights_T.numpy()[seen] = len(w) * w / w.sum()


def fit_log_weights(G: np.ndarray, metric: str) -> np.ndarray:
    """Returns the logarithms (n,) of the weights that optimise a metric of weighted gradients.

    Args:
        G: (n, n) Gramian; the diagonal is above 0.
        metric: magnitude or condition.
    """
    C, norms = normalise(G)
    logs = -np.log(norms)
    return logs + minimise_condition(C) if metric == "condition" else logs


def minimise_condition(C: np.ndarray, rounds: int = 40) -> np.ndarray:
    """Returns the u (n,) for which e^U C e^U, U = diag u, has nearly the least condition number.

    There are no local minima: log l_max - log l_min is quasiconvex in e^(-2u) (Boyd et al., "Linear
    matrix inequalities in system and control theory", 1994, section 3.1). It has kinks where
    eigenvalues meet. So u follows the gradient of its smooth bound
    (log tr M^b + log tr M^-b) / b, M = e^U C e^U, for powers b = 1, 2, 4 ... 128; half this
    gradient is diag(M^b) / tr M^b - diag(M^-b) / tr M^-b.

    Args:
        C: (n, n) correlations.
        rounds: Number of steps for each power.
    """
    best = np.zeros(len(C))
    u = best
    least = np.inf
    for power in 2.0 ** np.arange(8):
        for _ in range(rounds):
            scale = np.exp(u)
            values, X = np.linalg.eigh(C * scale * scale[:, None])

            # whatever the weights, a singular system has no condition number
            if values[0] <= SINGLE * values[-1]:
                return np.zeros(len(C))

            ratio = values[-1] / values[0]
            if ratio < least:
                least = ratio
                best = u
            large = (values / values[-1]) ** power
            small = (values[0] / values) ** power
            slope = X**2 @ (large / large.sum() - small / small.sum())
            u = u - slope * min(1.0, 2 / power)
    return best - best.mean()
