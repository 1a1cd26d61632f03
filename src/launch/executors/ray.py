"""Tasks of a Ray cluster, one for each command."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.errors import UserError, in_one_line, suggest_or_list
from src.launch.executors.local import read_last_line
from src.launch.executors.remote import REPOSITORY, Outcome, RemoteCommand, ask_to_stop

# settings of a task, and the address of the cluster
KNOWN = ("address", "num_cpus", "num_gpus", "memory", "resources", "accelerator_type")


class RayJob:
    """A task of the cluster.

    Args:
        task: The reference to its result.
        log: The file that takes what the command says.
    """

    def __init__(self, task: Any, log: Path) -> None:
        self.task = task
        self.log = log
        self._outcome: Outcome | None = None

    def poll(self) -> int | None:
        """Returns the exit code of the command; None while its task runs or waits.

        The code of a task that was lost is 1.
        """
        if self._outcome is None:
            self._outcome = self._look()
        return self._outcome.code if self._outcome else None

    def _look(self) -> Outcome | None:
        import ray

        ready, _ = ray.wait([self.task], timeout=0)
        if not ready:
            return None
        try:
            outcome: Outcome = ray.get(self.task)
        except ray.exceptions.RayError as error:
            # the message may hold a traceback
            kind = type(error).__name__
            return Outcome(1, f"its task was lost: {kind}: {in_one_line(error)[:300]}")
        return outcome

    def stop(self) -> None:
        """Asks the command to save and stop; a task that waits ends as soon as it starts."""
        ask_to_stop(self.log)

    def kill(self) -> None:
        """Ends the task at once; the command follows it."""
        import ray

        ray.cancel(self.task, force=True)

    def explain(self) -> str:
        """Returns what the command or the cluster has said of the failure, or the log's end."""
        if self._outcome and self._outcome.words:
            return self._outcome.words.removeprefix("error: ")
        code = self._outcome.code if self._outcome else None
        return read_last_line(self.log) or f"its task ended with exit code {code}"


class RayExecutor:
    """Runs each command as a task of its own.

    Args:
        slots: How many tasks are there at the same time.
        settings: What a task needs, such as {num_cpus: 4, num_gpus: 1}, as `ray.remote` has it, and
            the address of the cluster; without one, that of the environment variable RAY_ADDRESS,
            or a cluster of this machine alone. All machines must see the repository and the logs.

    Raises:
        UserError: Ray is not installed, there is no such cluster, or a setting is wrong.
    """

    def __init__(self, slots: int, settings: Mapping[str, Any]) -> None:
        try:
            import ray
        except ModuleNotFoundError:
            raise UserError("--executor ray needs Ray: pip install 'ray[train]'") from None
        for key in settings:
            if key not in KNOWN:
                raise UserError(f"unknown setting '{key}' of Ray; {suggest_or_list(key, KNOWN)}")
        self.slots = slots

        # workers find the modules of the project
        variables = {"PYTHONPATH": str(REPOSITORY)}
        address = settings.get("address")
        try:
            ray.init(address=address, runtime_env={"env_vars": variables})
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"no Ray cluster at {address}: {in_one_line(error)}") from None

        # the study decides whether a lost trial goes on
        options = {key: value for key, value in settings.items() if key != "address"}
        try:
            self.run = ray.remote(run_command).options(max_retries=0, **options)
        except (TypeError, ValueError) as error:
            ray.shutdown()
            raise UserError(f"settings of Ray: {in_one_line(error)}") from None

    def start(self, command: list[str], log: Path, slot: int) -> RayJob:
        """Asks the cluster for a task."""
        return RayJob(self.run.remote(RemoteCommand.make(command, log)), log)

    def close(self) -> None:
        """Leaves the cluster; one that was started here ends, and its tasks with it."""
        import ray

        ray.shutdown()


def run_command(command: RemoteCommand) -> Outcome:
    """Runs a command in a worker."""
    return command()
