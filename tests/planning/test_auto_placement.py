"""Placements on several devices: the fullest one has the least, or near it."""

from collections.abc import Sequence
from functools import partial
from itertools import combinations_with_replacement, pairwise, product
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import SGD

from src.models import MultiTaskModel
from src.models.encoders import MLP
from src.planning import auto_placement
from src.planning.auto_placement import distribute, measure_step, place_parts
from src.planning.measure import Cost
from src.planning.memory import Footprint
from tests.toy import Toy

LOADS = st.lists(st.integers(0, 20), max_size=5)


def loads_of(
    stages: Sequence[float],
    heads: Sequence[float],
    devices: int,
    first: float,
    places: tuple[list[int], list[int]],
) -> list[float]:
    loads = [first, *[0.0] * (devices - 1)]
    for load, place in zip([*stages, *heads], [*places[0], *places[1]], strict=True):
        loads[place] += load
    return loads


def least(stages: list[int], heads: list[int], devices: int, first: float) -> float:
    """Returns the largest load of the best placement, by trying all."""
    best = float("inf")
    for cut in combinations_with_replacement(range(len(stages) + 1), devices - 1):
        of_stages = [
            d
            for d, (start, end) in enumerate(pairwise((0, *cut, len(stages))))
            for _ in range(start, end)
        ]
        for of_heads in product(range(devices), repeat=len(heads)):
            best = min(
                best, max(loads_of(stages, heads, devices, first, (of_stages, list(of_heads))))
            )
    return best


@settings(max_examples=60, deadline=None)
@given(LOADS, st.lists(st.integers(0, 20), max_size=4), st.integers(1, 3), st.integers(0, 10))
def test_the_fullest_device_is_near_the_least_possible(stages, heads, devices, first) -> None:
    places = distribute(stages, heads, devices, first)
    assert places[0] == sorted(places[0])  # contiguous
    found, best = (
        max(loads_of(stages, heads, devices, first, places)),
        least(stages, heads, devices, first),
    )
    assert best <= found <= best * (1.5 - 1 / (2 * devices)) + 1e-9
    assert heads or found == best
    assert places == distribute(stages, heads, devices, first)


@settings(max_examples=60, deadline=None)
@given(LOADS, st.integers(1, 4), st.integers(0, 10))
def test_where_not_all_cuts_are_tried_the_best_one_is(stages, devices, first) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto_placement, "MOST_CUTS", 0)
        assert max(
            loads_of(stages, [], devices, first, distribute(stages, [], devices, first))
        ) == least(stages, [], devices, first)


def test_many_stages_and_devices_take_a_moment() -> None:
    stages = [float(k % 7 + 1) for k in range(60)]
    places = distribute(stages, [3.0] * 40, 16)
    loads = loads_of(stages, [3.0] * 40, 16, 0.0, places)
    assert max(loads) <= 1.1 * sum(loads) / 16


COSTS = {
    "sharing.encoder.stages.0": Cost(100, 100, 0, 50, 0.3),
    "sharing.encoder.stages.1": Cost(100, 0, 0, 150, 0.1),  # frozen
    "heads.a": Cost(10, 10, 0, 5, 0.1),
    "balancer": Cost(8, 8, 0, 0, 0.0),
}
TOY = Footprint(COSTS, optimizer_ratio=2.0)


def test_bytes_and_time_are_balanced() -> None:
    assert place_parts(TOY, 2, "bytes") == {
        "sharing.encoder.stages.0": 0,
        "sharing.encoder.stages.1": 1,
        "heads.a": 1,
    }
    assert place_parts(TOY, 2, "time") == {
        "sharing.encoder.stages.0": 0,
        "sharing.encoder.stages.1": 1,
        "heads.a": 1,
    }
    assert set(place_parts(TOY, 1, "bytes").values()) == {0}


def test_bytes_are_those_of_weights_gradients_optimizer_and_activations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    distributed = Mock(side_effect=distribute)
    monkeypatch.setattr(auto_placement, "distribute", distributed)
    place_parts(TOY, 2, "bytes")
    distributed.assert_called_once_with([450.0, 250.0], [45.0], 2, 32.0)


def test_what_a_real_model_takes() -> None:
    data = Toy()
    model = MultiTaskModel(data.tasks, data.input_shape, encoder=partial(MLP, width=16))
    model.configure_model()
    footprint = measure_step(model, 64)
    costs = footprint.costs
    assert footprint.optimizer_ratio == 2.0  # AdamW
    assert costs["sharing.encoder.stages.1"].parameters == 4 * (2 * 16 + 2 * (16 * 16 + 16))
    assert (
        costs["sharing.encoder.stages.1"].activations
        == 2 * measure_step(model, 32).costs["sharing.encoder.stages.1"].activations
    )
    plain = MultiTaskModel(
        data.tasks, data.input_shape, encoder=partial(MLP, width=16), optimizer=partial(SGD, lr=0.1)
    )
    plain.configure_model()
    assert measure_step(plain, 4).optimizer_ratio == 0.0
