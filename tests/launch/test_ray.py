"""Ray starts the processes of a run, and starts them again."""

import importlib.util
import sys
from pathlib import Path

import pytest

from src.launch.ray import launch as launch_on_ray
from tests.launching import furthest, launch, only_run, read_json, train, weights
from tests.toy import DROPOUT, KillAt

TOY = (
    *DROPOUT,
    *("--max_epochs", 3),
    *("--watch.checkpoint_every", 4, "--watch.figures_every", 0, "--accelerator", "cpu"),
)


def test_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit):
        launch_on_ray([])
    assert "pip install 'ray[train]'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_a_killed_worker(tmp_path: Path) -> None:
    """14 steps an epoch, a checkpoint every 4; the weights are those of a run without a kill."""
    kill = KillAt.flags(17, tmp_path / "marker", rank=1)
    notes = ("--num_workers", 2, "--storage", tmp_path / "notes")
    launch(
        "src.launch.ray",
        *notes,
        "--",
        "--logs",
        tmp_path,
        "--name",
        "run",
        *TOY,
        *kill,
        RAY_USAGE_STATS_ENABLED="0",
    )
    run = only_run(tmp_path / "run")
    whole = train(tmp_path, *TOY, "--devices", 2, name="whole")
    assert furthest(weights(run), weights(whole)) == 0
    assert [session["status"] for session in read_json(run / "run.json")["sessions"]][1:] == [
        "finished"
    ]
