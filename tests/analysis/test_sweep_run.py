"""A sweep from its space to its record, on an executor without processes."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from src.analysis.optuna_tuner import OptunaTuner
from src.analysis.scheduler import Scheduler, Stopped
from src.analysis.settings import Settings, to_flags
from src.analysis.space import read_space
from src.analysis.sweep_run import SweepRecord, SweepRun, list_scores, read_sweep
from src.analysis.trials import Work, read_progress
from src.errors import UserError
from tests.analysis.fake_executor import FakeExecutor, FakeJob, Silent, read_flags

pytest.importorskip("optuna")

SPACE = read_space({"x": {"low": 0, "high": 1}, "kind": ["p", "q"]})
MONITORS = {"a": ("r2", 1), "b": ("rmse", -1)}


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def score(command: list[str]) -> float:
    flags = read_flags(command)
    return float(flags["x"]) - (flags["kind"] == "q")


def make_trial(settings: Settings) -> Work:
    words = to_flags(settings)
    key = "-".join(words).replace("--", "")
    return Work(key, "src.train", tuple(words), False, key)


def make_sweep(
    root: Path,
    trials: int = 8,
    make: Callable[[Settings], Work] = make_trial,
    tasks: tuple[str, ...] = (),
    space: Any = SPACE,
    **more: Any,
) -> SweepRun:
    folder = root / "mine"
    folder.mkdir(parents=True, exist_ok=True)
    earlier = read_sweep(folder)
    record: SweepRecord = {
        "name": "mine",
        "command": "sweep",
        "base": [],
        "base_hash": "",
        "space": {},
        "sampler": "tpe",
        "objectives": [f"val/{task}" for task in tasks] or ["val/score"],
        "best": [],
        "tries": earlier["tries"] if earlier else [],
    }
    more.setdefault("ahead", 2)
    tuner = OptunaTuner(
        space, trials, folder / "log", objectives=max(1, len(tasks)), replays=False, **more
    )
    return SweepRun(tuner, make, record, root, folder, tasks, MONITORS)


def carry_out(root: Path, sweep: SweepRun, executor: FakeExecutor) -> SweepRecord:
    Scheduler(root, executor, sweep, Silent()).run()
    record = read_sweep(root / "mine")
    assert record is not None
    return record


def test_the_best_of_all_settings(tmp_path: Path) -> None:
    executor = FakeExecutor(score)
    sweep = make_sweep(tmp_path)
    record = carry_out(tmp_path, sweep, executor)
    assert sweep.count() == (8, 8)
    assert executor.most == 2
    assert all(command[-1] == "--no_test" for command in executor.commands)

    tries = record["tries"]
    assert [one["state"] for one in tries] == ["finished"] * 8
    for one in tries:
        settings = one["settings"]
        assert one["scores"] == [float(settings["x"]) - (settings["kind"] == "q")]
        assert one["trial"] == f"x-{settings['x']}-kind-{settings['kind']}"
        assert one["seconds"] == 1.5
        assert (tmp_path / str(one["run"]) / "metrics.json").is_file()
    assert record["best"] == [max(range(8), key=lambda number: tries[number]["scores"])]

    # nothing is left, and more trials go on
    again = FakeExecutor(score)
    assert carry_out(tmp_path, make_sweep(tmp_path), again) == record
    assert again.commands == []
    assert carry_out(tmp_path, make_sweep(tmp_path, 9), again)["tries"][:8] == tries
    assert len(again.commands) == 1


def test_an_interrupted_sweep_goes_on(tmp_path: Path) -> None:
    whole = carry_out(tmp_path / "whole", make_sweep(tmp_path / "whole"), FakeExecutor(score))

    class Stops(FakeExecutor):
        """Hears Ctrl-C when the fourth trial starts, and leaves two trials half done."""

        def start(self, command: list[str], log: Path, slot: int) -> FakeJob:
            job = super().start(command, log, slot)
            if len(self.commands) == 4:
                scheduler.ask_to_stop()
            job.stop = lambda: self.leave_half(command, job)  # type: ignore[method-assign]
            return job

        def leave_half(self, command: list[str], job: FakeJob) -> None:
            job.code = 130
            self.leave_run(command)
            flags = read_flags(command)
            (run,) = (Path(flags["logs"]) / flags["name"]).iterdir()
            (run / "metrics.json").unlink()
            (run / "run.json").write_text('{"sessions": [{"status": "interrupted"}]}')

    root = tmp_path / "cut"
    scheduler = Scheduler(root, Stops(score), make_sweep(root), Silent())
    with pytest.raises(Stopped):
        scheduler.run()
    states = [one["state"] for one in read_sweep(root / "mine")["tries"]]  # type: ignore[index]
    assert states == ["finished", "finished", "running", "running"]

    executor = FakeExecutor(score)
    record = carry_out(root, make_sweep(root), executor)
    assert [command[1] for command in executor.commands[:3]] == ["--resume", "--resume", "--x"]
    assert len(executor.commands) == 6
    for ours, theirs in zip(record["tries"], whole["tries"], strict=True):
        assert (ours["settings"], ours["scores"]) == (theirs["settings"], theirs["scores"])
    assert record["best"] == whole["best"]


class CurveExecutor(FakeExecutor):
    """Its trials write a validation at each look, up to the tenth."""

    def start(self, command: list[str], log: Path, slot: int) -> FakeJob:
        flags = read_flags(command)
        run = Path(flags["logs"]) / flags["name"] / "2026-01-01_00-00-00"
        (run / "checkpoints").mkdir(parents=True)
        (run / "checkpoints" / "last.ckpt").write_bytes(b"")
        (run / "config.yaml").write_text("data: {}\n")
        self.commands.append(command)
        return CurveJob(run, score(command))


class CurveJob(FakeJob):
    def __init__(self, run: Path, level: float) -> None:
        super().__init__(lambda: 0)
        self.run = run
        self.level = level
        self.points: list[dict[str, Any]] = []

    def poll(self) -> int | None:
        if self.code is None and len(self.points) == 10:
            values = {"val/score": self.level}
            self.code = 0
            (self.run / "metrics.json").write_text(json.dumps({"validation": values}))
            (self.run / "run.json").write_text('{"sessions": [{"status": "finished"}]}')
        elif self.code is None:
            self.points.append({"score": self.level, "tasks": {}})
            content = {"step": len(self.points), "steps": 10, "validations": self.points}
            (self.run / "progress.json").write_text(json.dumps(content))
        return self.code

    def stop(self) -> None:
        self.code = 130
        (self.run / "run.json").write_text('{"sessions": [{"status": "interrupted"}]}')


def test_a_hopeless_trial_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.analysis.scheduler.PERIOD", 0.01)
    executor = CurveExecutor(score)
    sweep = make_sweep(tmp_path, 12, prune_after=3)
    record = carry_out(tmp_path, sweep, executor)
    tries = record["tries"]
    states = [one["state"] for one in tries]
    assert states[:5] == ["finished"] * 5
    assert set(states) == {"finished", "pruned"}

    lengths = {"finished": 10, "pruned": 3}
    for one, state in zip(tries, states, strict=True):
        run = tmp_path / str(one["run"])
        assert len(json.loads((run / "progress.json").read_text())["validations"]) == lengths[state]
        assert bool(one["scores"]) == (state == "finished")

    # each was below the median of the ones that had finished before it, two at a time
    levels = [score(["src.train", *to_flags(one["settings"])]) for one in tries]
    for number in (number for number, state in enumerate(states) if state == "pruned"):
        finished = [levels[i] for i in range(number - 1) if states[i] == "finished"]
        assert levels[number] < sorted(finished)[len(finished) // 2]

    # it is not taken up again
    again = CurveExecutor(score)
    carry_out(tmp_path, make_sweep(tmp_path, 12, prune_after=3), again)
    assert again.commands == []


def test_a_pareto_front(tmp_path: Path) -> None:
    """Of (x, -x^2 - [kind is q]) each x is on the front, with the better kind."""

    class Two(FakeExecutor):
        def leave_run(self, command: list[str]) -> int:
            code = super().leave_run(command)
            flags = read_flags(command)
            run = sorted((Path(flags["logs"]) / flags["name"]).iterdir())[-1]
            x = float(flags["x"])
            values = {"val/a/r2": x, "val/b/rmse": x**2 + (flags["kind"] == "q")}
            (run / "metrics.json").write_text(json.dumps({"validation": values}))
            return code

    space = read_space({"x": [0.1, 0.5, 0.9], "kind": ["p", "q"]})
    sweep = make_sweep(tmp_path, 6, tasks=("a", "b"), space=space)
    record = carry_out(tmp_path, sweep, Two(score))
    front = [record["tries"][number] for number in record["best"]]
    assert sorted(one["settings"]["x"] for one in front) == ["0.1", "0.5", "0.9"]
    assert {one["settings"]["kind"] for one in front} == {"p"}
    for one in front:
        x = float(one["settings"]["x"])
        assert one["scores"] == [x, -(x**2)]


def test_trials_that_fail(tmp_path: Path) -> None:
    """One of its kind by a process, one by an undefined score, one before there is a process."""

    class Fails(FakeExecutor):
        def leave_run(self, command: list[str]) -> int:
            code = super().leave_run(command)
            flags = read_flags(command)
            if flags["kind"] == "nan":
                (run,) = (Path(flags["logs"]) / flags["name"]).iterdir()
                (run / "metrics.json").write_text('{"validation": {"val/score": null}}')
            return code

    def give(command: list[str]) -> float | None:
        return None if read_flags(command)["kind"] == "crash" else 0.5

    def make(settings: Settings) -> Work:
        if settings["kind"] == "wrong":
            raise UserError("width must be a multiple of heads")
        return make_trial(settings)

    space = read_space({"kind": ["crash", "nan", "wrong", "good"]})
    sweep = make_sweep(tmp_path, 4, make=make, space=space)
    record = carry_out(tmp_path, sweep, Fails(give))
    found = {one["settings"]["kind"]: (one["state"], one["error"]) for one in record["tries"]}
    assert found == {
        "crash": ("failed", "it was made to fail"),
        "nan": ("failed", "val/score is not defined"),
        "wrong": ("failed", "width must be a multiple of heads"),
        "good": ("finished", None),
    }
    assert record["tries"][record["best"][0]]["settings"] == {"kind": "good"}


def test_settings_that_are_one_configuration_train_once(tmp_path: Path) -> None:
    def make(settings: Settings) -> Work:
        return make_trial({"x": 0.5, "kind": settings["kind"].lower()})

    space = read_space({"kind": ["p", "P"]})
    executor = FakeExecutor(score)
    record = carry_out(tmp_path, make_sweep(tmp_path, 2, make=make, space=space), executor)
    assert len(executor.commands) == 1
    assert [one["scores"] for one in record["tries"]] == [[0.5], [0.5]]


def test_a_trial_at_its_end_is_not_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.analysis.scheduler.PERIOD", 0.01)
    record = carry_out(tmp_path, make_sweep(tmp_path, 9, prune_after=10), CurveExecutor(score))
    assert [one["state"] for one in record["tries"]] == ["finished"] * 9


def test_progress(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    assert read_progress(path) is None
    for half in ('{"step": 3, "valid', '{"step": 3}', "[]"):
        path.write_text(half)
        assert read_progress(path) is None
    points = [{"score": 0.5, "tasks": {"a": 0.1}}, {"score": None, "tasks": {}}]
    path.write_text(json.dumps({"step": 3, "steps": None, "validations": points}))
    progress = read_progress(path)
    assert progress is not None
    assert list_scores(progress, None) == [0.5, None]
    assert list_scores(progress, "a") == [0.1, None]


def test_a_damaged_record(tmp_path: Path) -> None:
    assert read_sweep(tmp_path) is None
    (tmp_path / "sweep.json").write_text('{"name": "mine"}')
    with pytest.raises(UserError, match=r"sweep\.json is damaged; remove the folder"):
        read_sweep(tmp_path)
