"""The hypervolume of a front: how much of the space of scores its points dominate."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SAMPLES = 2**17  # of the estimate for four tasks and more
CHUNK = 2**12


@dataclass(frozen=True)
class Hypervolume:
    """A hypervolume.

    Attributes:
        value: The volume.
        error: The standard error of an estimate; 0 where it is exact.
    """

    value: float
    error: float = 0.0


def measure_hypervolume(points: Floats, reference: Floats) -> Hypervolume:
    """Measures the volume between a reference and points that are better than it in all entries.

    It is the volume of all y with reference <= y <= x for some point x (Zitzler and Thiele, PPSN
    1998, with more being better). Up to three entries it is exact; for more it is estimated from
    2^17 uniform samples, always the same ones.

    Args:
        points: (n, T) scores; more is better.
        reference: (T,) the worst scores that count.
    """
    better = np.isfinite(points).all(1) & (points > reference).all(1)
    boxes = points[better] - reference
    if not len(boxes):
        return Hypervolume(0.0)
    T = boxes.shape[1]
    if T == 1:
        return Hypervolume(float(boxes.max()))
    if T == 2:
        return Hypervolume(measure_area(boxes))
    return Hypervolume(measure_volume(boxes)) if T == 3 else estimate_volume(boxes)


def measure_area(boxes: Floats) -> float:
    """Measures the area of the union of rectangles from 0 to each of some points (n, 2)."""
    area = 0.0
    height = 0.0
    # from the widest to the narrowest, each adds what stands above the ones before
    for x, y in boxes[np.argsort(-boxes[:, 0])]:
        area += x * max(y - height, 0.0)
        height = max(height, y)
    return float(area)


def measure_volume(boxes: Floats) -> float:
    """Measures the volume of the union of boxes from 0 to each of some points (n, 3)."""
    ordered = boxes[np.argsort(-boxes[:, 2])]
    ends = np.append(ordered[1:, 2], 0.0)
    volume = 0.0
    # between two heights the section is that of all higher boxes
    for count, (top, end) in enumerate(zip(ordered[:, 2], ends, strict=True), 1):
        if top > end:
            volume += (top - end) * measure_area(ordered[:count, :2])
    return float(volume)


def estimate_volume(boxes: Floats) -> Hypervolume:
    """Estimates the volume of the union of boxes from 0 to each of some points (n, T)."""
    corner = boxes.max(0)
    whole = float(corner.prod())
    draw = np.random.default_rng(0)
    inside = 0
    for _ in range(SAMPLES // CHUNK):
        samples = draw.random((CHUNK, boxes.shape[1])) * corner
        inside += int((samples[:, None] <= boxes).all(-1).any(1).sum())
    share = inside / SAMPLES
    return Hypervolume(share * whole, whole * float(np.sqrt(share * (1 - share) / SAMPLES)))


def list_preferences(tasks: int, points: int) -> Floats:
    """Lists the evenly spaced preferences (n, T) among tasks: all vectors of sum 1 on a lattice.

    Args:
        tasks: T.
        points: The number of them between two tasks, both ends counted; at least 2.
    """
    steps = points - 1

    def share_out(left: int, places: int) -> list[list[int]]:
        if places == 1:
            return [[left]]
        found = []
        for first in range(left, -1, -1):
            found += [[first, *rest] for rest in share_out(left - first, places - 1)]
        return found

    return np.array(share_out(steps, tasks), dtype=np.float64) / steps
