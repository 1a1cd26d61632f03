"""Nothing is lost: a run that is killed or stopped resumes to the weights of a run that was not."""

from pathlib import Path

import pytest
import torch

from tests.launch import launch, only_run, read_json, train

# dropout, so that the random numbers matter; patience and a schedule, so that their state does
TOY = (
    *("--data", "tests.toy.Toy", "--max_epochs", 4, "--model.encoder.width", 16, "--model.encoder.dropout", 0.2),
    *("--watch.checkpoint_every", 4, "--watch.patience", 10, "--watch.figures_every", 0),
)


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
            if key not in ("dirpath", "best_model_path", "last_model_path", "kth_best_model_path", "best_k_models", "current_score"):
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
def test_killed_in_mid_epoch(tmp_path: Path, devices: int, more: tuple, step: int) -> None:
    """14 steps an epoch, a checkpoint every 4: step 18 is lost and done again."""
    settings = (*TOY, *more, "--devices", devices)
    whole = train(tmp_path, *settings, name="whole")

    callback = ("--trainer.callbacks", "tests.toy.KillAt", "--trainer.callbacks.step", step)
    callback += ("--trainer.callbacks.marker", tmp_path / "marker", "--trainer.callbacks.rank", devices - 1)
    launch("src.train", "--logs", tmp_path, "--name", "killed", *settings, *callback, code=-9 if devices == 1 else 1)
    killed = only_run(tmp_path / "killed")
    assert checkpoint(killed, "last")["global_step"] < step

    launch("src.train", "--resume", killed)
    assert only_run(tmp_path / "killed") == killed  # in place
    for which in ("last", "best"):
        ours, theirs = checkpoint(killed, which), checkpoint(whole, which)
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "metrics"):
            assert_same(ours[part], theirs[part], part)
    assert read_json(killed / "metrics.json") == read_json(whole / "metrics.json")
    sessions = read_json(killed / "run.json")["sessions"]
    assert [s["status"] for s in sessions] == ["running", "finished"]


@pytest.mark.parametrize("devices", [1, 2])
def test_sigterm_saves_and_says_how_to_resume(tmp_path: Path, devices: int) -> None:
    settings = (*TOY, "--devices", devices)
    whole = train(tmp_path, *settings, name="whole")
    callback = ("--trainer.callbacks", "tests.toy.SignalAt", "--trainer.callbacks.step", 18)
    callback += ("--trainer.callbacks.marker", tmp_path / "marker")
    done = launch("src.train", "--logs", tmp_path, "--name", "stopped", *settings, *callback, code=130)
    stopped = only_run(tmp_path / "stopped")
    assert f"python -m src.train --resume {stopped}" in done.stdout
    assert "Traceback" not in done.stderr
    assert 18 <= checkpoint(stopped, "last")["global_step"] <= 28

    launch("src.train", "--resume", stopped)
    assert_same(checkpoint(stopped, "last")["state_dict"], checkpoint(whole, "last")["state_dict"])
    assert [s["status"] for s in read_json(stopped / "run.json")["sessions"]] == ["interrupted", "finished"]


def test_resumed_on_other_devices_and_with_more_epochs(tmp_path: Path) -> None:
    """A finished run goes on; the number of devices is free to change."""
    run = train(tmp_path, *TOY, "--max_epochs", 2)
    assert checkpoint(run, "last")["global_step"] == 28
    launch("src.train", "--resume", run, "--max_epochs", 3, "--devices", 2)
    assert checkpoint(run, "last")["global_step"] == 42
