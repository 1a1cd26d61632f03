"""Places the stages and heads of a model on devices so that the fullest device has the least."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, combinations, combinations_with_replacement, pairwise
from math import comb
from typing import Literal

from src.planning.measure import measure_costs
from src.planning.memory import Footprint, measure_optimizer_ratio
from src.runner import ShardableModel

Balance = Literal["bytes", "time"]
MOST_CUTS = 5000  # up to this number all cuts are tried
MOST_ROWS = 32  # rows on which a model is tried


def place_parts(footprint: Footprint, devices: int, balance: Balance) -> dict[str, int]:
    """Returns {part: place of its device}; what is in no part stays on the first device.

    Args:
        footprint: The costs of the model's parts, see :func:`measure_step`.
        devices: Number of devices.
        balance: Whether the devices are to have even bytes or even times.
    """
    loads: dict[str, float] = {}
    for part, cost in footprint.costs.items():
        loads[part] = cost.seconds if balance == "time" else footprint.load({part: 1.0}).total

    stages = [part for part in loads if part.startswith("sharing.")]
    heads = [part for part in loads if part.startswith("heads.")]
    placed = {*stages, *heads}
    first = sum(load for part, load in loads.items() if part not in placed)

    places = distribute(
        [loads[part] for part in stages], [loads[part] for part in heads], devices, first
    )
    return dict(zip((*stages, *heads), (*places[0], *places[1]), strict=True))


def measure_step(model: ShardableModel, rows: int) -> Footprint:
    """Measures what each part of a model takes in a step, without losses and gradients of tasks.

    Args:
        model: The model, built, on the CPU.
        rows: Rows of a step. The model runs on a few of them, and costs are taken to be
            proportional.
    """
    tried = min(rows, MOST_ROWS)
    scale = rows / tried
    costs = measure_costs(model, model.input_shape.example(tried))
    scaled = {
        part: replace(
            cost, activations=round(cost.activations * scale), seconds=cost.seconds * scale
        )
        for part, cost in costs.items()
    }
    return Footprint(scaled, measure_optimizer_ratio(model.make_optimizer))


def distribute(
    stages: Sequence[float],
    heads: Sequence[float],
    devices: int,
    first: float = 0.0,
    at_least: Literal[0, 1] = 0,
) -> tuple[list[int], list[int]]:
    """Returns the device of each stage and of each head, so that the largest load is small.

    The stages are cut into runs, one for each device in their order. Then the heads go one by one,
    the largest first, to the device with the least (Graham, SIAM J. Appl. Math. 1969). Without
    heads no cut is better. Where all cuts are tried, the largest load is at most 3/2 of the least
    possible one (Lee, Discrete Applied Mathematics 1991, for devices that begin with something).

    Args:
        stages: The load of each stage, in running order.
        heads: The load of each head.
        devices: Number of devices.
        first: The load that the first device has anyway.
        at_least: The number of stages that each device must have.
    """
    largest_first = sorted(range(len(heads)), key=lambda k: (-heads[k], k))
    sums = [0.0, *accumulate(stages)]
    best: tuple[list[float], tuple[int, ...], list[int]] | None = None

    for cut in propose_cuts(sums, devices, first, at_least):
        loads = [sums[end] - sums[start] for start, end in pairwise((0, *cut, len(stages)))]
        loads[0] += first
        places = [0] * len(heads)
        for k in largest_first:
            places[k] = min(range(devices), key=lambda d: (loads[d], d))
            loads[places[k]] += heads[k]

        # Of two cuts with the same largest load, the second largest decides, and so on.
        ranking = sorted(loads, reverse=True)
        if best is None or ranking < best[0]:
            best = ranking, cut, places

    assert best is not None
    _, cut, places = best
    runs = pairwise((0, *cut, len(stages)))
    of_stages = [device for device, (start, end) in enumerate(runs) for _ in range(start, end)]
    return of_stages, places


def propose_cuts(
    sums: Sequence[float], devices: int, first: float, at_least: Literal[0, 1]
) -> Iterator[tuple[int, ...]]:
    """Yields where the runs of all devices but the last one end.

    Yields all ways to cut. Where these are too many, it yields for each load that the fullest
    device may have the cut that fills one device after the other up to it.

    Args:
        sums: The sums of the loads of the first 0, 1, ... stages.
        devices: Number of devices.
        first: The load that the first device has anyway.
        at_least: The number of stages that each device must have.
    """
    count = len(sums) - 1
    if at_least and comb(count - 1, devices - 1) <= MOST_CUTS:
        yield from combinations(range(1, count), devices - 1)
        return
    if not at_least and comb(count + devices - 1, devices - 1) <= MOST_CUTS:
        yield from combinations_with_replacement(range(count + 1), devices - 1)
        return

    limits = {first + s for s in sums}
    limits |= {
        sums[end] - sums[start] for start in range(count) for end in range(start + 1, count + 1)
    }
    for limit in sorted(limits):
        cut: list[int] = []
        end = 0
        for device in range(devices):
            room = limit - (first if device == 0 else 0.0)
            start = sums[cut[-1]] if cut else 0.0
            # Each later device must have its stages, too.
            last = count - at_least * (devices - 1 - device)
            end += at_least
            # Sums of the same loads differ in their last digits.
            while end < last and sums[end + 1] - start <= room * (1 + 1e-12):
                end += 1
            cut.append(end)
        if end == count:
            yield tuple(cut[:-1])
