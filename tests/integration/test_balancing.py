"""Every balancer goes on to the bit after a resume; test_grid.py compares topologies."""

from pathlib import Path

import pytest
import torch

from tests.cli.calling import call
from tests.integration.test_resume import assert_same, checkpoint
from tests.launching import launch, only_run
from tests.toy import RaiseAt

STATEFUL = (
    "UncertaintyWeights",
    "DynamicWeightAverage",
    "FAMO",
    "AutoScale",
    "GradNorm",
    "GradVac",
    "MoCo",
    "SDMGrad",
    "ExcessMTL",
    "ImpartialLoss",
)


# one with numbers of each task, one with a row of gradients of each, one that draws
FAST = ("GradNorm", "ExcessMTL", "RandomWeights")
NAMES = [
    pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
    for name in (*STATEFUL, "PCGrad", "GradDrop", "RandomWeights")
]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_breaks_goes_on_to_the_bit(tmp_path: Path, name: str) -> None:
    """Its state, and what it draws at random, are those of the run that did not break."""
    level = (
        ("--model.balancer.level", "parameters") if name in ("MoCo", "ExcessMTL", "PCGrad") else ()
    )
    toy = (
        "--data",
        "tests.toy.Toy",
        "--max_epochs",
        3,
        "--model.encoder.width",
        12,
        "--watch.checkpoint_every",
        4,
    )
    words = ("--logs", tmp_path, *toy, "--watch.figures_every", 0, "--model.balancer", name, *level)
    assert call("train", *words, "--name", "whole").code == 0
    with pytest.raises(RuntimeError, match="this rank broke"):
        call("train", *words, "--name", "broken", *RaiseAt.flags(33, tmp_path / "marker"))
    whole, broken = only_run(tmp_path / "whole"), only_run(tmp_path / "broken")
    assert checkpoint(broken, "last")["global_step"] == 32
    assert call("train", "--resume", broken).code == 0
    state = checkpoint(whole, "last")["state_dict"]
    assert_same(checkpoint(broken, "last")["state_dict"], state)
    if name in STATEFUL:
        assert any(key.startswith("balancer.") for key in state)


@pytest.mark.slow
@pytest.mark.parametrize("level", ["features", "parameters"])
def test_launched_as_a_person_would(tmp_path: Path, level: str) -> None:
    toy = (
        "--data",
        "tests.toy.Toy",
        "--max_epochs",
        1,
        "--model.encoder.width",
        12,
        "--watch.figures_every",
        0,
    )
    words = (
        "--logs",
        tmp_path,
        *toy,
        "--model.balancer",
        "UPGrad",
        "--model.balancer.level",
        level,
    )
    done = launch("src.train", *words, "--name", "two", "--devices", 2)
    assert f"balancer UPGrad, by gradients of the shared {level}" in done.stdout
    assert call("train", *words, "--name", "one").code == 0
    one, two = (
        checkpoint(only_run(tmp_path / name), "last")["state_dict"] for name in ("one", "two")
    )
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-5, atol=1e-6)
