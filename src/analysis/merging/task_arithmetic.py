"""Task arithmetic: the start, and a multiple of the sum of what each run has learnt."""

from collections.abc import Callable, Sequence
from math import inf, isnan

from torch import Tensor

from src.analysis.merging.weights import State, add, subtract

# factors on the sum of task vectors among which validation rows choose
GRID = tuple(k / 20 for k in range(1, 21))


def sum_vectors(states: Sequence[State], start: State) -> dict[str, Tensor]:
    """Returns sum_i tau_i, where tau_i = theta_i - theta_0, in float64.

    Args:
        states: The networks theta_i.
        start: The network theta_0 that each of them started from.
    """
    total: dict[str, Tensor] = {}
    for state in states:
        for name, tensor in subtract(state, start).items():
            total[name] = total[name] + tensor if name in total else tensor
    return total


def add_tasks(states: Sequence[State], start: State, scale: float) -> dict[str, Tensor]:
    """Returns theta = theta_0 + scale * sum_i tau_i.

    (Ilharco et al., "Editing models with task arithmetic", ICLR 2023.) With scale 1/n it is the
    plain average.

    Args:
        states: The networks theta_i.
        start: The network theta_0 that each of them started from.
        scale: The factor.
    """
    return add(start, sum_vectors(states, start), scale)


def choose_scale(
    measure: Callable[[float], float], grid: Sequence[float] = GRID
) -> tuple[float, float]:
    """Returns the factor with the highest score, the smallest of several, and that score.

    Args:
        measure: Returns the score of a factor on validation rows; NaN counts as the lowest.
        grid: The factors that are tried.
    """
    best = grid[0]
    highest = -inf
    for scale in sorted(grid):
        score = measure(scale)
        if not isnan(score) and score > highest:
            best = scale
            highest = score
    return best, highest
