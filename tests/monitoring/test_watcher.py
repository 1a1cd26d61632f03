"""A watcher that fails leaves a run, in one line; a guard ends it."""

from typing import Any

import lightning as L
import pytest

from src.errors import attempt
from src.monitoring import Dashboard, Figures, FiniteLossGuard, GradientConflicts, HParams, Progress
from src.monitoring.watcher import Watcher, WatcherGroup, agree


class Failing(Watcher):
    """Fails at its second step.

    Args:
        seen: Gets a word for each hook that was called.
    """

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.seen.append("step")
        if len(self.seen) == 2:
            raise OSError("no space\nleft")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.seen.append("epoch")


class Counting(L.Callback):
    """A callback that does not only watch."""

    def __init__(self) -> None:
        self.steps = 0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.steps += 1
        if self.steps == 5:
            raise ValueError("a guard")


def test_a_watcher_that_fails_is_one_line_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []
    counting = Counting()
    both: Any = WatcherGroup(Failing(seen), counting)
    for _ in range(4):
        both.on_train_batch_end(None, None, None, None, 0)
    both.on_train_epoch_end(None, None)
    assert seen == ["step", "step"]
    assert counting.steps == 4
    assert (
        capsys.readouterr().err
        == "warning: Failing failed and is left out for the rest of the run: "
        "OSError: no space left\n"
    )
    with pytest.raises(ValueError, match="a guard"):
        both.on_train_batch_end(None, None, None, None, 0)


class Stopping(Watcher):
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        raise KeyboardInterrupt


def test_a_person_who_stops_a_run_is_no_failure() -> None:
    alone: Any = WatcherGroup(Stopping())
    with pytest.raises(KeyboardInterrupt):
        alone.on_train_start(None, None)


def test_who_only_watches() -> None:
    assert all(
        issubclass(kind, Watcher) for kind in (Dashboard, Figures, GradientConflicts, HParams)
    )
    assert not issubclass(FiniteLossGuard, Watcher)


def test_a_progress_bar_that_fails_takes_itself_off_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bar: Any = Progress(Dashboard())
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    bar.setup(trainer, L.LightningModule(), "fit")
    stopped: list[bool] = []
    bar._stop_progress = lambda: stopped.append(True)
    bar.on_train_batch_end(trainer, None, None, None, "no number")
    bar.on_train_batch_end(trainer, None, None, None, "no number")
    assert (
        capsys.readouterr().err.count(
            "warning: Progress failed and is left out for the rest of the run: "
        )
        == 1
    )
    assert stopped == [True]


class Strategy:
    """Stands in for two processes, of which the other one has failed or not."""

    def __init__(self, other: bool) -> None:
        self.other = other

    def reduce_boolean_decision(self, decision: bool, all: bool) -> bool:
        assert not all
        return decision or self.other


def trainer_with(other: bool) -> Any:
    trainer = type("Trainer", (), {})()
    trainer.strategy = Strategy(other)
    return trainer


def test_processes_fail_together() -> None:
    def fails() -> None:
        raise ValueError("here")

    agree(trainer_with(False), attempt(lambda: None, Exception))
    with pytest.raises(RuntimeError, match="it failed in another process"):
        agree(trainer_with(True), None)
    for other in (False, True):
        with pytest.raises(ValueError, match="here"):
            agree(trainer_with(other), attempt(fails, Exception))
