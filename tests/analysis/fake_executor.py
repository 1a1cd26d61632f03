"""An executor without processes: its jobs leave run folders as trials do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Score = Callable[[list[str]], float | None]


def read_flags(command: list[str]) -> dict[str, str]:
    """The flags of a command as {key: value}; flags without a value have ""."""
    found: dict[str, str] = {}
    words = command[1:]
    for number, word in enumerate(words):
        if word.startswith("--"):
            after = words[number + 1] if number + 1 < len(words) else ""
            found[word[2:]] = "" if after.startswith("--") else after
    return found


class FakeJob:
    """Ends at the second look at it."""

    def __init__(self, end: Callable[[], int]) -> None:
        self.end = end
        self.looks = 0
        self.code: int | None = None

    def poll(self) -> int | None:
        self.looks += 1
        if self.looks >= 2 and self.code is None:
            self.code = self.end()
        return self.code

    def stop(self) -> None:
        self.code = 130

    def kill(self) -> None:
        self.code = self.code if self.code is not None else -9

    def explain(self) -> str:
        return "it was made to fail"


class FakeExecutor:
    """Leaves a run folder for each trial.

    Args:
        score: Returns the validation score of a command; None lets it fail.
        slots: Jobs side by side.
        task: The only task.
    """

    def __init__(self, score: Score, slots: int = 2, task: str = "a") -> None:
        self.score = score
        self.slots = slots
        self.task = task
        self.commands: list[list[str]] = []
        self.most = 0
        self.closed = False
        self._jobs: list[FakeJob] = []

    def start(self, command: list[str], log: Path, slot: int) -> FakeJob:
        assert 0 <= slot < self.slots
        assert log.parent.is_dir()
        self.commands.append(command)
        job = FakeJob(lambda: self.leave_run(command))
        self._jobs.append(job)
        self.most = max(self.most, sum(job.code is None for job in self._jobs))
        return job

    def leave_run(self, command: list[str]) -> int:
        flags = read_flags(command)
        if "resume" in flags:
            run = Path(flags["resume"])
            score = self.score(json.loads((run / "command.json").read_text()))
        else:
            run = Path(flags["logs"]) / flags["name"] / f"2026-01-01_00-00-{len(self.commands):02d}"
            run.mkdir(parents=True)
            score = self.score(command)
            (run / "command.json").write_text(json.dumps(command))
            (run / "checkpoints").mkdir()
            (run / "checkpoints" / "last.ckpt").write_bytes(b"")
        (run / "config.yaml").write_text("data: {}\n")
        status = "failed" if score is None else "finished"
        record: dict[str, Any] = {"sessions": [{"command": "", "status": status, "seconds": 1.5}]}
        (run / "run.json").write_text(json.dumps(record))
        if score is None:
            (run / "checkpoints" / "last.ckpt").unlink(missing_ok=True)
            return 2
        values = {"val/score": score, f"val/{self.task}/r2": score}
        results: dict[str, Any] = {"validation": values}
        no_test = flags.get("no_test")
        if no_test is None or no_test == "false":
            results["test"] = {f"test/{self.task}/r2": score - 0.1, "test/score": score - 0.1}
        (run / "metrics.json").write_text(json.dumps(results))
        return 0

    def close(self) -> None:
        self.closed = True


class Silent:
    """Shows nothing, and keeps how trials have ended."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def show(self, running: list[Any]) -> None:
        pass

    def tell(self, work: Any, outcome: Any, seconds: float) -> None:
        self.told.append((work.label, outcome.status))
