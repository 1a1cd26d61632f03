"""SLURM jobs, one for each command, submitted by the package submitit."""

import re
import shlex
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.errors import UserError, in_one_line, suggest_or_list
from src.launch.executors.local import read_last_line
from src.launch.executors.remote import REPOSITORY, Outcome, RemoteCommand, ask_to_stop

if TYPE_CHECKING:
    import submitit

# settings that submitit has for every kind of cluster
GENERAL = ("name", "timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node")
# a run starts its other processes itself, and a study goes on with a run that has lost its job
FIXED = ("nodes", "tasks_per_node", "stderr_to_stdout", "use_srun")
DEFAULTS = {"name": "trial", "timeout_min": 24 * 60}
LATENCY = 15.0  # seconds that a shared file system may take to show the result of a job


class SlurmJob:
    """A job of the cluster.

    Args:
        job: The job.
        log: The file that takes what the command says.
        latency: Seconds for the result of a job that has ended to be seen here.
    """

    def __init__(self, job: "submitit.Job[Outcome]", log: Path, latency: float) -> None:
        self.job = job
        self.log = log
        self.latency = latency
        self._ended_at: float | None = None
        self._outcome: Outcome | None = None

    def poll(self) -> int | None:
        """Returns the exit code of the command; None while its job runs or waits.

        The code of a job that was lost is 1.
        """
        if self._outcome is None:
            self._outcome = self._look()
        return self._outcome.code if self._outcome else None

    def _look(self) -> Outcome | None:
        """Returns how the command has ended; None while it has not, or nobody knows."""
        if not self.job.done():
            return None
        if self.job.paths.result_pickle.exists():
            error = self.job.exception()
            if error is None:
                return self.job.result()
            return Outcome(1, f"its job {self.job.job_id} failed: {find_error(str(error))}")

        self._ended_at = self._ended_at or time.monotonic()
        if time.monotonic() < self._ended_at + self.latency:
            return None
        return Outcome(1, f"its job {self.job.job_id} was lost: {self.job.state}")

    def stop(self) -> None:
        """Asks the command to save and stop; a job that waits for a machine is cancelled."""
        ask_to_stop(self.log)
        if self.job.state.upper().startswith("PENDING"):
            self.kill()

    def kill(self) -> None:
        """Cancels the job."""
        self.job.cancel(check=False)
        # processes of submitit's local cluster are ours
        until = time.monotonic() + 5.0
        while self.latency == 0 and not self.job.done() and time.monotonic() < until:
            time.sleep(0.1)

    def explain(self) -> str:
        """Returns what the command or the cluster has said of the failure, or the log's end."""
        if self._outcome and self._outcome.words:
            return self._outcome.words.removeprefix("error: ")
        code = self._outcome.code if self._outcome else None
        return read_last_line(self.log) or f"job {self.job.job_id} ended with exit code {code}"


class SlurmExecutor:
    """Submits each command as a job of its own.

    Args:
        slots: How many jobs are in the queue at the same time.
        folder: Takes the files of submitit; all machines must see it.
        settings: Settings of the jobs, such as {partition: gpu, timeout_min: 240, gpus_per_node: 1,
            cpus_per_task: 8, mem_gb: 32}: all of sbatch's that submitit knows, and timeout_min,
            24 hours unless stated. `cluster: local` runs them as processes of this machine, to try
            a study out.

    Raises:
        UserError: submitit is not installed, this machine has no SLURM, or a setting is wrong.
    """

    def __init__(self, slots: int, folder: Path, settings: Mapping[str, Any]) -> None:
        try:
            import submitit
        except ModuleNotFoundError:
            raise UserError("--executor slurm needs submitit: pip install submitit") from None
        self.slots = slots
        self.jobs: list[SlurmJob] = []
        asked = {**DEFAULTS, **settings}
        cluster = asked.pop("cluster", "slurm")
        if cluster not in ("slurm", "local"):
            raise UserError(
                f"cluster is '{cluster}' in the settings of SLURM; it is slurm or local"
            )
        try:
            self.executor = submitit.AutoExecutor(folder, cluster=cluster)
        except RuntimeError as error:
            raise UserError(
                f"--executor slurm: {in_one_line(error)} Start the study where srun and sbatch are"
            ) from None
        self.latency = LATENCY if cluster == "slurm" else 0.0
        update(self.executor, asked)

    def start(self, command: list[str], log: Path, slot: int) -> SlurmJob:
        """Submits a command.

        Raises:
            UserError: The cluster has refused it.
        """
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            submitted = self.executor.submit(RemoteCommand.make(command, log))
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            raise UserError(f"sbatch has refused a job: {in_one_line(error)}") from None
        job = SlurmJob(submitted, log, self.latency)
        self.jobs.append(job)
        return job

    def close(self) -> None:
        """Cancels the jobs that are left."""
        for job in self.jobs:
            if job.poll() is None:
                with suppress(OSError):
                    job.kill()


def update(executor: "submitit.AutoExecutor", asked: Mapping[str, Any]) -> None:
    """Gives the settings of jobs to submitit.

    Raises:
        UserError: There is no such setting, or it is of another type.
    """
    settings: dict[str, Any] = {}
    for key, value in asked.items():
        if key in FIXED:
            raise UserError(
                f"{key} cannot be set for SLURM: each trial is a job with one task, which starts "
                "its other processes itself"
            )
        settings[key if key in GENERAL else f"slurm_{key}"] = value

    # jobs begin in the folder of the study's command, wherever they were submitted
    before = settings.get("slurm_setup") or []
    settings["slurm_setup"] = [*before, f"cd {shlex.quote(str(REPOSITORY))}"]
    # the study goes on with a run that was preempted
    further = settings.get("slurm_additional_parameters") or {}
    settings["slurm_additional_parameters"] = {"no-requeue": True, **further}
    try:
        executor.update_parameters(**settings)
    except NameError as error:
        raise UserError(explain_unknown(str(error))) from None
    except (AssertionError, ValueError, TypeError) as error:
        raise UserError(f"settings of SLURM: {in_one_line(error)}") from None


def find_error(message: str) -> str:
    """Returns the last line of the traceback in a message of submitit."""
    lines = [line for line in message.splitlines() if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return lines[-1] if lines else in_one_line(message)


def explain_unknown(message: str) -> str:
    """Returns in a line that SLURM has no such setting, from the message of submitit."""
    found = re.search(r"Unknown argument '(\w+)'.*Valid arguments: ([\w, ]+)", message)
    if found is None:
        return f"settings of SLURM: {in_one_line(message)}"
    known = sorted({*found[2].split(", "), *GENERAL} - {*FIXED})
    return f"unknown setting '{found[1]}' of SLURM; {suggest_or_list(found[1], known)}"
