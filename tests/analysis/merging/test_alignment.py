"""Git Re-Basin on matrices alone; tests/models/encoders/test_permutations.py has whole encoders."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.analysis.merging.alignment import assign, match_weights, permute, permute_state
from tests.analysis.merging.networks import seeds

pytest.importorskip("scipy")
AXES = {
    "in.weight": ("a", None),
    "in.bias": ("a",),
    "mid.weight": ("b", "a"),
    "out.weight": (None, "b"),
}
SHAPES = {"in.weight": (6, 3), "in.bias": (6,), "mid.weight": (4, 6), "out.weight": (2, 4)}


def make_network(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in SHAPES.items()
    }


@given(seeds)
def test_the_copy_with_units_in_another_order_is_brought_back(seed: int) -> None:
    network = make_network(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    shuffled = {
        "a": torch.randperm(6, generator=generator),
        "b": torch.randperm(4, generator=generator),
    }
    copy = permute_state(network, AXES, shuffled)
    found = match_weights(network, copy, AXES, {})
    back = permute_state(copy, AXES, found)
    assert all(back[name].equal(network[name]) for name in SHAPES)


@given(seeds)
def test_it_never_leads_away(seed: int) -> None:
    """The networks are no less alike than before, and no single group could do better."""
    one, two = make_network(seed), make_network(seed + 1)
    found = match_weights(one, two, AXES, {})
    moved = permute_state(two, AXES, found)

    def likeness(state: dict[str, torch.Tensor]) -> float:
        return sum(float((one[name] * state[name]).sum()) for name in SHAPES)

    for order in itertools.permutations(range(4)):
        other = permute_state(moved, AXES, {"b": torch.tensor(order)})
        assert likeness(moved) >= likeness(other) - 1e-9


@given(seeds, st.sampled_from([(1, 4), (2, 2), (4, 1), (2, 3)]))
def test_blocks_stay_together_and_their_assignment_is_the_best(seed, sizes) -> None:
    blocks, size = sizes
    likeness = torch.from_numpy(np.random.default_rng(seed).normal(size=(blocks * size,) * 2))
    places = assign(likeness, blocks)
    best = -np.inf
    for outer in itertools.permutations(range(blocks)):
        for inner in itertools.product(itertools.permutations(range(size)), repeat=blocks):
            tried = [b * size + k for b, ks in zip(outer, inner, strict=True) for k in ks]
            best = max(best, float(likeness[range(blocks * size), tried].sum()))
    assert float(likeness[range(blocks * size), places].sum()) == pytest.approx(best)
    assert all(len(set((row // size).tolist())) == 1 for row in places.view(blocks, size))


def test_dimensions_without_a_group_stay() -> None:
    tensor = torch.arange(6.0).view(2, 3)
    assert permute(tensor, (None, "a"), {"a": torch.tensor([2, 0, 1])}).tolist() == [
        [2, 0, 1],
        [5, 3, 4],
    ]
    assert permute(tensor, ("b", None), {"a": torch.tensor([1, 0])}).equal(tensor)
