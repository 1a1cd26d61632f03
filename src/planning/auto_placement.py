"""What lies where, found by arithmetic: stages cut into runs, heads dealt, so that the fullest device has the least."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, combinations_with_replacement, pairwise
from math import comb
from typing import Any, Literal

from src.planning.measure import Cost, measured
from src.planning.plan import load_of, state_ratio

Balance = Literal["bytes", "time"]
ALL_CUTS = 5000  # up to so many ways to cut the stages each is tried


def deal(
    stages: Sequence[float], heads: Sequence[float], devices: int, first: float = 0.0
) -> tuple[list[int], list[int]]:
    """Which device each stage and each head goes to, so that the largest load is small.

    The stages are cut into runs, one for each device in their order, and the heads go one by one,
    the largest first, to the device with the least (Graham, SIAM J. Appl. Math. 1969). Without
    heads no cut is better. Where all cuts are tried, the largest load is at most 3/2 of the least
    possible one (Lee, Discrete Applied Mathematics 1991, for devices that begin with something).

    Args:
        stages: The load of each, in running order.
        heads: The load of each.
        devices: How many there are.
        first: What the first device has besides.
    """
    order = sorted(range(len(heads)), key=lambda k: (-heads[k], k))
    sums = [0.0, *accumulate(stages)]
    best: tuple[tuple[float, ...], tuple[int, ...], list[int]] | None = None
    for cut in cuts(sums, devices, first):
        loads = [sums[end] - sums[start] for start, end in pairwise((0, *cut, len(stages)))]
        loads[0] += first
        places = [0] * len(heads)
        for k in order:
            places[k] = min(range(devices), key=lambda d: (loads[d], d))
            loads[places[k]] += heads[k]
        ranking = tuple(sorted(loads, reverse=True))
        if best is None or ranking < best[0]:
            best = ranking, cut, places
    assert best is not None
    ends = [*best[1], len(stages)]
    return [next(d for d, end in enumerate(ends) if k < end) for k in range(len(stages))], best[2]


def cuts(sums: Sequence[float], devices: int, first: float) -> Iterator[tuple[int, ...]]:
    """Where the runs of all devices but the last end: all ways, or where there are many, each that is the fullest up to some load.

    Args:
        sums: The sums of the first 0, 1, ... stages.
        devices: How many there are.
        first: What the first device has besides.
    """
    count = len(sums) - 1
    if comb(count + devices - 1, devices - 1) <= ALL_CUTS:
        yield from combinations_with_replacement(range(count + 1), devices - 1)
        return
    limits = {sums[j] - sums[i] for i in range(count) for j in range(i + 1, count + 1)} | {
        first + s for s in sums
    }
    for limit in sorted(limits):
        cut: list[int] = []
        at = 0
        for d in range(devices):
            room = limit - (first if d == 0 else 0.0)
            while at < count and sums[at + 1] - (sums[cut[-1]] if cut else 0.0) <= room * (
                1 + 1e-12
            ):
                at += 1
            cut.append(at)
        if at == count:
            yield tuple(cut[:-1])


def planned(
    costs: Mapping[str, Cost], ratio: float, devices: int, balance: Balance
) -> dict[str, int]:
    """{part: device} for what :func:`measure.measured` has found; what is in no part stays on the first device.

    Args:
        costs: What each part takes.
        ratio: Bytes of the optimizer's state for each byte of a weight that trains.
        devices: How many there are.
        balance: Whether bytes or seconds are dealt.
    """

    def load(part: str) -> float:
        alone = {part: 1.0}
        return (
            costs[part].seconds
            if balance == "time"
            else load_of({part: costs[part]}, alone, [alone], ratio, {}).total
        )

    loads = {part: load(part) for part in costs}
    stages = [part for part in loads if part.startswith("sharing.")]
    heads = [part for part in loads if part.startswith("heads.")]
    first = sum(load for part, load in loads.items() if part not in stages and part not in heads)
    found = deal([loads[part] for part in stages], [loads[part] for part in heads], devices, first)
    return dict(zip((*stages, *heads), (*found[0], *found[1]), strict=True))


def costs_of(model: Any, rows_of_step: int) -> tuple[dict[str, Cost], float]:
    """What each part of a model takes on so many rows, and the optimizer's bytes for each byte of a weight.

    Args:
        model: The model, built, on the CPU.
        rows_of_step: Rows of a step; no more than 32 are tried.
    """
    tried = min(rows_of_step, 32)
    costs, more = measured(model, model.input_shape.example(tried)), rows_of_step / tried
    scaled = {
        p: replace(c, activations=round(c.activations * more), seconds=c.seconds * more)
        for p, c in costs.items()
    }
    return scaled, state_ratio(model._make_optimizer)
