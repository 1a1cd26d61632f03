"""Where tasks lie in the state of an architecture."""

from functools import partial

import pytest

from src.batch import InputShape
from src.errors import UserError
from src.models.encoders import MLP
from src.models.sharing import AITM, PLE, Groups, HardSharing, MMoE
from src.models.transfer.task_axes import Counted, Place, find_task_axes

MAKE = partial(MLP, InputShape((5,)), width=4, depth=1)


def test_positions_are_counted_from_two_sizes() -> None:
    assert Counted.of_sizes(4, 6) == Counted(2, 0)
    assert Counted.of_sizes(6, 8) == Counted(2, 2)
    assert Counted.of_sizes(1, 2) == Counted(1, -1)
    places = [Place("a", 0), Place("a", 1), Place("b", 0), Place("b", 1), Place("", 0)]
    assert list(Counted(2, 1).label(["a", "b"], 5)) == places
    assert list(Counted(1, -1).label(["a", "b"], 1)) == [Place("b", 0)]


def test_dimensions_and_modules_of_tasks_are_found() -> None:
    axes = find_task_axes(partial(MMoE, MAKE))
    assert axes.dims["gate.weight"] == {0: Counted(1, 0)}
    assert axes.dims["experts.stages.0.1.weight"] == {}
    assert not axes.modules
    axes = find_task_axes(partial(PLE, MAKE, own=2, shared=1))
    assert axes.dims["levels.0.shared_gate.weight"] == {1: Counted(2, 1)}
    axes = find_task_axes(partial(AITM, MAKE))
    assert axes.modules == {"towers": Counted(1, 0), "transfers": Counted(1, -1)}
    state = AITM(MAKE, ["a", "b"]).state_dict()
    keys = axes.describe(state, ["a", "b"])
    assert ("towers", Place("b", 0), "weight") in keys
    assert ("transfers", Place("b", 0), "key", "bias") in keys
    axes = find_task_axes(partial(HardSharing, MAKE))
    assert not any(axes.dims.values())


def test_an_architecture_for_certain_tasks_alone_is_refused() -> None:
    with pytest.raises(UserError, match="which is no task"):
        find_task_axes(partial(Groups, MAKE, groups=[["a"], ["b"]]))
