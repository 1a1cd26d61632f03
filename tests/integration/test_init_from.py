"""A run that starts from another is the same on any topology, and after it was killed."""

from pathlib import Path

import pytest
import torch

from src.checkpoint import load_checkpoint
from tests.cli.calling import call
from tests.launching import furthest, launch, only_run, train, weights
from tests.toy import DROPOUT, KillAt

# no AdamW: it makes steps of rounding where the signs of an absolute loss cancel
WORDS = (
    *(*DROPOUT, "--model.optimizer", "SGD", "--lr", 0.05),
    *("--max_epochs", 2, "--watch.figures_every", 0),
)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("init_from")


@pytest.fixture(scope="module")
def source(logs: Path) -> Path:
    words = ("--logs", logs, "--name", "source", *WORDS, "--seed", 5)
    assert call("train", *words).code == 0
    return only_run(logs / "source")


@pytest.fixture(scope="module")
def alone(logs: Path, source: Path) -> Path:
    words = ("--logs", logs, "--name", "alone", *WORDS, "--init_from", source)
    ended = call("train", *words)
    assert ended.code == 0, ended.err
    assert "heads.vector" in ended.out
    return only_run(logs / "alone")


TOPOLOGIES = {
    "ddp": ("--devices", 2),
    "fsdp": ("--devices", 2, "--strategy", "fsdp"),
    "pipeline": ("--devices", 2, "--strategy", "pipeline"),
    "placement": ("--devices", 2, "--strategy", "placement"),
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("fsdp", "pipeline", "placement")]


@pytest.mark.parametrize("topology", ["ddp", *SLOW])
def test_two_processes_start_the_same(logs: Path, source: Path, alone: Path, topology: str) -> None:
    words = (*WORDS, "--init_from", source, *TOPOLOGIES[topology])
    several = train(logs, *words, name=topology)
    assert furthest(weights(several), weights(alone)) < 1e-5
    # it went on from the source, and not from the seed alone
    assert furthest(weights(alone), weights(source)) > 1e-3


@pytest.mark.slow
def test_without_a_step_shards_hold_the_weights_of_the_source(logs: Path, source: Path) -> None:
    best = load_checkpoint(source / "checkpoints/best.ckpt")["state_dict"]
    for topology in ("fsdp", "pipeline"):
        words = (*WORDS, "--max_steps", 0, "--init_from", source, *TOPOLOGIES[topology])
        zero = train(logs, *words, name=f"zero-{topology}")
        state = load_checkpoint(zero / "checkpoints/last.ckpt")["state_dict"]
        for name, tensor in best.items():
            if name.startswith(("sharing.", "heads.")):
                assert torch.equal(state[name], tensor)


@pytest.mark.slow
def test_a_killed_run_goes_on_without_its_source(
    logs: Path, source: Path, alone: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "source"
    source.rename(moved)  # a resume finds no source
    kill = KillAt.flags(20, tmp_path / "killed")
    words = (*WORDS, "--init_from", moved, "--watch.checkpoint_every", 5, *kill)
    killed = train(logs, *words, name="killed", code=-9)
    assert (tmp_path / "killed").exists()
    moved.rename(source)
    launch("src.train", "--resume", killed)
    one, other = weights(killed), weights(alone)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
