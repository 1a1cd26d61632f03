"""Frozen, thawed and adapted parts give the same run on any topology, and after a break."""

import json
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from src.batch import InputShape
from src.models import MultiTaskModel
from tests.benchmarks.finetuning import JOBS, WAYS
from tests.integration.grid import TOPOLOGIES, Cell, finetuned_cells, train
from tests.integration.parity import LIMIT, apart, run
from tests.launching import launch, port

CELLS = finetuned_cells()
QUICK = [cell for cell in CELLS if cell[1] in ("thaw, PCGrad", "thaw, ExcessMTL", "lora, PCGrad")]
ELSEWHERE = [name for name in TOPOLOGIES if name not in ("1 process", "ddp x 2")]


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Losses and weights by cell, after a launch on a topology."""

    @cache
    def on(topology: str, *words: str) -> Any:
        return run(topology, tmp_path_factory.mktemp("finetuned") / "out.pt", *words)

    return on


@pytest.mark.parametrize("cell", QUICK, ids="-".join)
def test_two_processes_agree_with_one(grid: Callable[..., Any], cell: Cell) -> None:
    """Also after gradients of thawed parts have joined those that ddp sums."""
    words = ["-".join(each) for each in QUICK]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = train(cell, TOPOLOGIES["1 process"])
    distance = apart(grid("ddp x 2", *words)[cell], one)
    assert isinstance(distance, float)
    assert distance < LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids="-".join)
@pytest.mark.parametrize("topology", ["ddp x 2", *ELSEWHERE])
def test_all_topologies_agree_with_one(grid: Callable[..., Any], topology: str, cell: Cell) -> None:
    one = grid("1 process", "finetune-")[cell]
    try:
        ours = grid(topology, "finetune-")[cell]
    except OSError as error:
        pytest.skip(f"no network of its own here: {error}")
    distance = apart(ours, one)
    refusals = ("pipeline", "AutoLambda", "tensor_parallel_size")
    if isinstance(distance, str):
        assert any(word in distance for word in refusals), distance
    else:
        assert distance < LIMIT
    if topology.startswith(("ddp", "fsdp x 2")) and "AutoLambda" not in cell[1]:
        assert isinstance(distance, float)


@pytest.mark.slow
def test_ddp_sends_the_gradients_of_what_trains_alone(tmp_path: Path) -> None:
    out = tmp_path / "traffic.json"
    alone = ("--nproc_per_node", 2, "--master_port", port(29700))
    launch("torch.distributed.run", *alone, "-m", "tests.benchmarks.finetuning", out)
    traffic = json.loads(out.read_text())
    for name, (job, ways) in JOBS.items():
        for way in ways:
            model = MultiTaskModel(job.kinds, InputShape(job.shape), job.encoder)
            model.finetune = WAYS[way]
            model.configure_model()
            trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
            assert traffic[name][way] == 4 * trained
