"""The set of watchers: what is put together, and what a person sees on a terminal."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest

from src.monitoring import BestCheckpoint, Dashboard, LastCheckpoint, Progress, Selection, Watch
from src.monitoring.watcher import WatcherGroup
from src.overhead import HOOKS, STEPS


class Noisy(L.Callback):
    def __init__(self, name: str, heard: list[str]) -> None:
        self.name, self.heard = name, heard

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.heard.append(self.name)


def test_several_callbacks_as_one_keep_their_order():
    heard = []
    both = WatcherGroup(Noisy("a", heard), L.Callback(), Noisy("b", heard))
    for hook in HOOKS:
        assert callable(getattr(both, hook)) is (hook not in STEPS)
    both.on_train_start(None, None)
    assert heard == ["a", "b"]


def test_a_callback_with_state_is_not_swallowed() -> None:
    with pytest.raises(AssertionError, match="state that would be lost"):
        WatcherGroup(BestCheckpoint(Path("x"), Selection()))


def test_what_is_watched(tmp_path: Path) -> None:
    kinds = [type(c).__name__ for c in Watch(patience=3).callbacks(tmp_path, "", bar=True)]
    assert kinds == [
        "WatcherGroup",
        "Selection",
        "LearningRate",
        "Progress",
        "BestCheckpoint",
        "LastCheckpoint",
    ]
    kinds = [type(c).__name__ for c in Watch().callbacks(None, "", bar=False)]
    assert kinds == ["WatcherGroup", "Selection", "LearningRate"]


@pytest.mark.parametrize("name", ["checkpoint_every", "finite_every", "ranks_every"])
def test_intervals_start_at_1(name: str) -> None:
    with pytest.raises(ValueError, match=f"watch.{name} is 0; it must be at least 1"):
        Watch(**{name: 0})  # type: ignore[arg-type]


def test_the_bar_shows_the_score_and_a_few_tasks() -> None:
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    dashboard = Dashboard()
    bar = Progress(dashboard, most_tasks=2)
    assert bar.get_metrics(trainer, L.LightningModule()) == {}
    dashboard.latest = {"train/a/loss": 0.12345, "train/b/loss": 2.0}
    assert bar.get_metrics(trainer, L.LightningModule()) == {"a": "0.123", "b": "2.000"}
    dashboard.latest["train/c/loss"] = 0.0
    assert bar.get_metrics(trainer, L.LightningModule()) == {"mean loss": "0.708"}


def test_last_checkpoint_is_named_after_what_it_is(tmp_path: Path) -> None:
    assert LastCheckpoint(tmp_path).path == tmp_path / "last.ckpt"
