"""Chosen inputs: the same ones on any topology, and after a run was broken off."""

from pathlib import Path
from typing import Any

import pytest
import torch

from src.models.feature_selection import Selection
from tests.integration import resuming
from tests.integration.grid import TOPOLOGIES, model_of, selected_cells, train
from tests.integration.parity import LIMIT, apart, run

CELLS = selected_cells()
QUICK = ("gates", "group lasso", "LassoNet")


def some(cell: Any) -> Any:
    return pytest.param(cell, marks=() if cell[1] in QUICK else pytest.mark.slow)


@pytest.mark.parametrize("cell", [some(cell) for cell in CELLS], ids="-".join)
def test_a_resumed_run_has_the_same_bits(cell: Any, tmp_path: Path) -> None:
    case = resuming.CASES["selected"]
    one = resuming.TOPOLOGIES["1 process"]
    whole = resuming.train(cell, case, one, tmp_path / "whole", ())
    resumed = resuming.train(cell, case, one, tmp_path / "broken", case.breaks)
    assert not isinstance(whole, str)
    assert not isinstance(resumed, str)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["ddp x 2", "fsdp x 2", "placement x 2"])
def test_topologies_agree(topology: str, tmp_path: Path) -> None:
    there = run(topology, tmp_path / "out.pt", "select-")
    closed = set()
    for cell in CELLS:
        here = train(cell, TOPOLOGIES["1 process"])
        if isinstance(there[cell], str):
            # FAMO looks at losses twice; nothing else is refused
            assert cell[1].endswith("FAMO"), there[cell]
            continue
        distance = apart(there[cell], here)
        assert isinstance(distance, float)
        assert distance < LIMIT, cell

        model = model_of(cell)
        assert not isinstance(here, str)
        model.load_state_dict(here["weights"])
        assert isinstance(model.sharing, Selection)
        if not model.sharing.is_open().all():
            closed.add(cell[1])
    # the agreement is of runs in which something was closed
    assert {"gates", "group lasso", "LassoNet", "group lasso, Separate"} <= closed


def test_a_pipeline_refuses_a_selection() -> None:
    reason = train(CELLS[0], TOPOLOGIES["pipeline x 2"])
    assert isinstance(reason, str)
    assert "StochasticGates" in reason
    assert "--strategy ddp" in reason
