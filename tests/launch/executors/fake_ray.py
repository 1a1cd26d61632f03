"""A stand-in for Ray, which is too large to install for tests: its tasks are processes.

It has the few functions of Ray's documented interface that the executor calls.
"""

import pickle
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

RUN = """
import pickle, sys
from pathlib import Path
folder = Path(sys.argv[1])
function, argument = pickle.loads((folder / "task").read_bytes())
(folder / "new").write_bytes(pickle.dumps(function(argument)))
(folder / "new").rename(folder / "result")
"""


class RayError(Exception):
    pass


class WorkerCrashedError(RayError):
    pass


class FakeRay:
    exceptions = SimpleNamespace(RayError=RayError)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.began: dict[str, Any] | None = None
        self.options: dict[str, Any] = {}

    def init(self, **settings: Any) -> None:
        if settings["address"] == "nowhere:1":
            raise ConnectionError("Could not find any running Ray instance.")
        self.began = settings

    def shutdown(self) -> None:
        self.began = None

    def remote(self, function: Callable[..., Any]) -> "FakeFunction":
        return FakeFunction(self, function)

    def wait(self, tasks: list["FakeTask"], timeout: float) -> tuple[list[Any], list[Any]]:
        assert timeout == 0
        ready = [task for task in tasks if task.process.poll() is not None]
        return ready, [task for task in tasks if task not in ready]

    def get(self, task: "FakeTask") -> Any:
        task.process.wait()
        result = task.folder / "result"
        if not result.exists():
            raise WorkerCrashedError("The worker died unexpectedly\nwhile executing this task.")
        return pickle.loads(result.read_bytes())

    def cancel(self, task: "FakeTask", force: bool) -> None:
        assert force
        task.process.kill()
        task.process.wait()


class FakeFunction:
    def __init__(self, ray: FakeRay, function: Callable[..., Any]) -> None:
        self.ray = ray
        self.function = function

    def options(self, **settings: Any) -> "FakeFunction":
        self.ray.options = settings
        return self

    def remote(self, argument: Any) -> "FakeTask":
        return FakeTask(self.ray.folder / uuid.uuid4().hex, (self.function, argument))


class FakeTask:
    def __init__(self, folder: Path, call: tuple[Any, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "task").write_bytes(pickle.dumps(call))
        self.process = subprocess.Popen([sys.executable, "-c", RUN, str(folder)])
