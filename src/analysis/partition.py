"""The best partition of tasks into groups that train together.

The value of a partition is the sum over tasks of the mean affinity from the other members of the
task's group; a task alone has none, and adds 0. This is the objective of Fifty et al.
("Efficiently identifying task groupings for multi-task learning", NeurIPS 2021), but for one rule:
they let a task train in several networks and serve it from the one with the highest mean affinity
for it. Here every task is in one group, so that no weights train that nobody uses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

from src.errors import UserError

MOST_EXACT = 12  # tasks up to which the best of all partitions is found
LEAST_GAIN = 1e-12  # relative to the largest affinity: less is rounding

Group = tuple[int, ...]


@dataclass(frozen=True)
class Partition:
    """Groups of tasks.

    Attributes:
        groups: The groups, by numbers of tasks in ascending order.
        value: The sum over tasks of the mean affinity from the other members of their group.
        is_exact: Whether no other partition has a larger value.
    """

    groups: list[Group]
    value: float
    is_exact: bool


def find_partition(affinities_TT: np.ndarray, networks: int) -> Partition:
    """Returns the best partition of the tasks into at most a number of groups.

    Up to 12 tasks it is exact, by branch and bound; with more it is found greedily. All tasks stay
    together unless something else is better.

    Args:
        affinities_TT: The affinity of task i for task j in row i and column j; the diagonal does
            not count.
        networks: The largest number of groups.

    Raises:
        UserError: An affinity is not defined.
    """
    if not np.isfinite(affinities_TT[~np.eye(len(affinities_TT), dtype=bool)]).all():
        raise UserError(
            "the affinities of some pairs of tasks are not known, since no measured batch had "
            "labels of both: measure more steps (--every), or larger batches"
        )
    values = GroupValues(affinities_TT)
    is_exact = len(affinities_TT) <= MOST_EXACT
    search = branch_and_bound if is_exact else merge_and_move
    groups = search(values, min(networks, len(affinities_TT)))
    return Partition(sorted(groups), sum(map(values.of, groups)), is_exact)


class GroupValues:
    """The values of groups, and bounds on the values of all partitions of some tasks.

    A group's value is the sum over its ordered pairs of the affinity, divided by its size less 1.
    So only the mean m_ab of the two affinities of a pair counts. With m_ab = u_a + u_b + e_ab, u_a
    adds 2 u_a to the value of any group of two or more, whoever the others are:

        value(A) = sum_a (2 u_a + mean_b e_ab) <= sum_a max(0, 2 u_a + max_b e_ab)

    The bound holds for any u; least squares make it close where some tasks help all others.

    Args:
        affinities_TT: The affinities.
    """

    def __init__(self, affinities_TT: np.ndarray) -> None:
        mutual = (affinities_TT + affinities_TT.T) / 2
        np.fill_diagonal(mutual, 0.0)
        u = fit_additive(mutual)
        self.mutual: list[list[float]] = mutual.tolist()
        self.most: list[list[float]] = (2 * u[:, None] + mutual - u[:, None] - u).tolist()
        self.margin = LEAST_GAIN * float(np.abs(mutual).max(initial=0.0))

        # branches meet the same groups and the same rests again and again
        self.of = lru_cache(maxsize=2**MOST_EXACT)(self._value)
        self.bound = lru_cache(maxsize=2**MOST_EXACT)(self._bound)

    def _value(self, group: Group) -> float:
        """Returns the sum over the tasks of a group of the mean affinity from the others."""
        if len(group) < 2:
            return 0.0
        total = sum(self.mutual[a][b] for a, b in combinations(group, 2))
        return 2 * total / (len(group) - 1)

    def _bound(self, tasks: Group) -> float:
        """Returns a value that no partition of these tasks exceeds."""
        bound = 0.0
        for task in tasks:
            row = self.most[task]
            most = max((row[other] for other in tasks if other != task), default=0.0)
            bound += max(0.0, most)
        return bound


def fit_additive(mutual_TT: np.ndarray) -> np.ndarray:
    """Returns u (T,), for which u_a + u_b is nearest to a symmetric matrix off its diagonal."""
    T = len(mutual_TT)
    if T < 3:
        return np.zeros(T)
    # the normal equations are (T - 2) u_a + sum_b u_b = sum_b m_ab
    sums = mutual_TT.sum(1)
    return (sums - sums.sum() / (2 * T - 2)) / (T - 2)


def branch_and_bound(values: GroupValues, networks: int) -> list[Group]:
    """Returns the best partition of all tasks into at most a number of groups.

    A branch fixes the group of the first task that has none. The most promising groups come first;
    once one cannot lead above the best partition so far, neither can those behind it.
    """
    everyone = tuple(range(len(values.mutual)))
    best: list[Group] = [everyone]
    best_value = values.of(best[0])

    def branch(tasks: Group, left: int, groups: list[Group], value: float) -> None:
        nonlocal best, best_value
        if not tasks:
            if value > best_value + values.margin:
                best, best_value = groups, value
            return

        branches = []
        for group in list_groups(tasks) if left > 1 else [tasks]:
            rest = tuple(task for task in tasks if task not in group)
            most = value + values.of(group) + values.bound(rest)
            branches.append((most, group, rest))
        branches.sort(key=lambda entry: (-entry[0], -len(entry[1])))
        for most, group, rest in branches:
            if most <= best_value + values.margin:
                return
            branch(rest, left - 1, [*groups, group], value + values.of(group))

    branch(everyone, networks, [], 0.0)
    return best


def list_groups(tasks: Group) -> Iterator[Group]:
    """Yields every group of these tasks that the first of them can be in."""
    first, *others = tasks
    for size in range(len(others) + 1):
        for more in combinations(others, size):
            yield first, *more


def merge_and_move(values: GroupValues, networks: int) -> list[Group]:
    """Returns a good partition: groups are merged, then tasks are moved, while that gains.

    Args:
        values: The values of groups.
        networks: The largest number of groups.
    """
    groups: list[Group] = [(task,) for task in range(len(values.mutual))]
    while len(groups) > 1:
        changes = []
        for a, b in combinations(groups, 2):
            merged = tuple(sorted((*a, *b)))
            changes.append((values.of(merged) - values.of(a) - values.of(b), a, b, merged))
        gain, a, b, merged = max(changes, key=lambda change: change[0])
        if len(groups) <= networks and gain <= values.margin:
            break
        groups = [group for group in groups if group not in (a, b)] + [merged]

    while (moved := move_one(values, groups, networks)) is not None:
        groups = moved
    return groups


def move_one(values: GroupValues, groups: Sequence[Group], networks: int) -> list[Group] | None:
    """Returns the groups with one task moved to where it gains most; None where no move gains."""
    best = None
    best_gain = values.margin
    targets = [*groups, ()] if len(groups) < networks else groups
    for source in groups:
        for task in source:
            left = tuple(other for other in source if other != task)
            for target in targets:
                if target == source or (not left and not target):
                    continue
                joined = tuple(sorted((*target, task)))
                before = values.of(source) + values.of(target)
                gain = values.of(left) + values.of(joined) - before
                if gain > best_gain:
                    others = [group for group in groups if group not in (source, target)]
                    best = [group for group in (*others, left, joined) if group]
                    best_gain = gain
    return best
