"""Training for groups of people: the same on any topology, and after a run was broken off."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration import resuming
from tests.integration.grid import TOPOLOGIES, fair_cells, train
from tests.integration.parity import LIMIT, apart, run

CELLS = fair_cells()
QUICK = ("GroupDRO", "EqualizedOdds", "GroupObjectives, MGDA")


def some(cell: Any) -> Any:
    return pytest.param(cell, marks=() if cell[1] in QUICK else pytest.mark.slow)


@pytest.mark.parametrize("cell", [some(cell) for cell in CELLS], ids="-".join)
def test_a_resumed_run_has_the_same_bits(cell: Any, tmp_path: Path) -> None:
    case = resuming.CASES["fair"]
    one = resuming.TOPOLOGIES["1 process"]
    whole = resuming.train(cell, case, one, tmp_path / "whole", ())
    resumed = resuming.train(cell, case, one, tmp_path / "broken", case.breaks)
    assert not isinstance(whole, str), whole
    assert not isinstance(resumed, str)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["ddp x 2", "fsdp x 2", "placement x 2"])
def test_topologies_agree(topology: str, tmp_path: Path) -> None:
    there = run(topology, tmp_path / "out.pt", "fair-")
    for cell in CELLS:
        here = train(cell, TOPOLOGIES["1 process"])
        if isinstance(there[cell], str):
            # FAMO looks at losses twice, which placement cannot; nothing else is refused
            assert "FAMO" in cell[1], there[cell]
            continue
        distance = apart(there[cell], here)
        assert isinstance(distance, float), distance
        assert distance < LIMIT, cell


def test_groups_change_the_run() -> None:
    plain = train(("balancing", "StaticWeights", "losses"), TOPOLOGIES["1 process"], epochs=1)
    for name in ("GroupDRO", "EqualizedOdds"):
        fair = train(("fair", name, "losses"), TOPOLOGIES["1 process"], epochs=1)
        assert not isinstance(plain, str)
        assert not isinstance(fair, str)
        assert not torch.allclose(fair["losses"], plain["losses"], rtol=1e-3)


def test_a_pipeline_refuses_to_compare_slices() -> None:
    for cell in CELLS:
        if cell[1] not in ("Reweighting",):
            reason = train(cell, TOPOLOGIES["pipeline x 2"])
            assert isinstance(reason, str)
