"""Nothing is lost: a run that is killed or stopped resumes to the weights of a run that was not."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.cli.calling import call
from tests.launch import launch, only_run, read_json, train
from tests.toy import KillAt, SignalAt

# dropout, so that the random numbers matter; patience and a schedule, so that their state does
TOY = (
    *("--data", "tests.toy.Toy", "--max_epochs", 4, "--model.encoder.width", 16, "--model.encoder.dropout", 0.2),
    *("--watch.checkpoint_every", 4, "--watch.patience", 10, "--watch.figures_every", 0),
)


ELSEWHERE = {"dirpath", "best_model_path", "last_model_path", "kth_best_model_path", "best_k_models", "current_score"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The run that nothing interrupts, once for each set of flags."""
    return cache(lambda *flags: train(tmp_path_factory.mktemp("whole"), *TOY, *flags))


def checkpoint(run: Path, which: str) -> dict:
    return torch.load(run / "checkpoints" / f"{which}.ckpt", weights_only=True)


def assert_same(ours: object, theirs: object, path: str = "") -> None:
    """Equal to the bit, through all nesting; paths of files aside, and a score that is only noted."""
    if isinstance(ours, torch.Tensor):
        assert isinstance(theirs, torch.Tensor)
        assert torch.equal(ours, theirs), path
    elif isinstance(ours, dict):
        assert isinstance(theirs, dict)
        assert ours.keys() == theirs.keys(), path
        for key in ours:
            if key not in ELSEWHERE:
                assert_same(ours[key], theirs[key], f"{path}/{key}")
    elif isinstance(ours, list | tuple):
        assert isinstance(theirs, list | tuple)
        assert len(ours) == len(theirs), path
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(a, b, f"{path}/{i}")
    else:
        assert ours == theirs, path


@pytest.mark.parametrize(
    ("devices", "more", "step"),
    [
        (1, (), 18),
        (1, ("--data.num_workers", 2), 18),
        (1, ("--trainer.accumulate_grad_batches", 3), 7),
        (2, (), 18),
        (1, (), 28),  # the last step of an epoch, after which no checkpoint was written yet
    ],
    ids=["one process", "with workers", "accumulated", "ddp", "end of epoch"],
)
def test_killed_in_mid_epoch(whole: Callable[..., Path], tmp_path: Path, devices: int, more: tuple, step: int) -> None:
    """14 steps an epoch, a checkpoint every 4: step 18 is lost and done again."""
    flags = (*more, "--devices", devices)
    kill = KillAt.flags(step, tmp_path / "marker", rank=devices - 1)
    launch("src.train", "--logs", tmp_path, "--name", "killed", *TOY, *flags, *kill, code=-9 if devices == 1 else 1)
    killed = only_run(tmp_path / "killed")
    assert checkpoint(killed, "last")["global_step"] < step

    launch("src.train", "--resume", killed)
    assert only_run(tmp_path / "killed") == killed  # in place
    for which in ("last", "best"):
        ours, theirs = checkpoint(killed, which), checkpoint(whole(*flags), which)
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "metrics"):
            assert_same(ours[part], theirs[part], part)
    assert read_json(killed / "metrics.json") == read_json(whole(*flags) / "metrics.json")
    first, second = (session["status"] for session in read_json(killed / "run.json")["sessions"])
    # of several ranks the first may outlive the killed one long enough to note that the run failed
    assert first in ({"running"} if devices == 1 else {"running", "failed"})
    assert second == "finished"


@pytest.mark.parametrize("devices", [1, 2])
def test_sigterm_saves_and_says_how_to_resume(whole: Callable[..., Path], tmp_path: Path, devices: int) -> None:
    flags = ("--devices", devices)
    stop = SignalAt.flags(18, tmp_path / "marker")
    done = launch("src.train", "--logs", tmp_path, "--name", "stopped", *TOY, *flags, *stop, code=130)
    stopped = only_run(tmp_path / "stopped")
    assert f"python -m src.train --resume {stopped}" in done.stdout
    assert "Traceback" not in done.stderr
    assert 18 <= checkpoint(stopped, "last")["global_step"] <= 28

    launch("src.train", "--resume", stopped)
    assert_same(checkpoint(stopped, "last")["state_dict"], checkpoint(whole(*flags), "last")["state_dict"])
    assert [s["status"] for s in read_json(stopped / "run.json")["sessions"]] == ["interrupted", "finished"]


def test_resumed_on_other_devices_and_with_more_epochs(tmp_path: Path) -> None:
    """A finished run goes on; the number of devices is free to change."""
    assert call("train", "--logs", tmp_path, "--name", "run", *TOY, "--max_epochs", 2).code == 0
    run = only_run(tmp_path / "run")
    assert checkpoint(run, "last")["global_step"] == 28
    launch("src.train", "--resume", run, "--max_epochs", 3, "--devices", 2)
    assert checkpoint(run, "last")["global_step"] == 42
