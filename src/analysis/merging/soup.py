"""The greedy soup: runs are added to an average as long as validation rows like it."""

from collections.abc import Callable, Sequence
from math import inf, isnan


def choose_ingredients(
    count: int, measure: Callable[[Sequence[int]], float]
) -> tuple[list[int], float]:
    """Chooses the runs whose plain average is the soup.

    (Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves
    accuracy without increasing inference time", ICML 2022, recipe 1.) Runs are tried in the order
    of their own scores, the best first; one stays if the average with it scores no less.

    Args:
        count: The number of runs.
        measure: Returns the score on validation rows of the average of some runs, given their
            numbers; NaN counts as the lowest.

    Returns:
        The numbers of the chosen runs, in the order in which they were added, and their score.
    """

    def score(chosen: Sequence[int]) -> float:
        found = measure(chosen)
        return -inf if isnan(found) else found

    alone = [score([number]) for number in range(count)]
    first, *others = sorted(range(count), key=lambda number: -alone[number])
    chosen = [first]
    best = alone[first]
    for number in others:
        found = score([*chosen, number])
        if found >= best:
            chosen.append(number)
            best = found
    return chosen, best
