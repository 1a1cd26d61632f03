"""The executor that a command line asks for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.errors import UserError, suggest_or_list
from src.launch.executors.executor import Executor
from src.launch.executors.local import LocalExecutor
from src.launch.executors.ray import RayExecutor
from src.launch.executors.slurm import SlurmExecutor

NAMES = ("local", "slurm", "ray")


def make_executor(
    name: str,
    slots: int,
    folder: Path,
    settings: Mapping[str, Any] | None = None,
    gpus: list[int] | None = None,
    gpus_per_job: int = 1,
) -> Executor:
    """Makes an executor.

    Args:
        name: local, slurm or ray.
        slots: How many processes run side by side.
        folder: Takes what the executor itself writes.
        settings: Settings of the cluster; this machine has none.
        gpus: The GPUs of this machine, which its processes share.
        gpus_per_job: GPUs that one process takes, on this machine.

    Raises:
        UserError: There is no such executor, its package is missing, or a setting is wrong.
    """
    if slots < 1:
        raise UserError(f"--parallel is {slots}; it must be 1 or more")
    if name not in NAMES:
        raise UserError(f"--executor is '{name}'; {suggest_or_list(name, NAMES)}")
    if name == "slurm":
        return SlurmExecutor(slots, folder, settings or {})
    if name == "ray":
        return RayExecutor(slots, settings or {})
    if settings:
        raise UserError(
            f"the setting '{next(iter(settings))}' is of a cluster: add --executor slurm or ray"
        )
    return LocalExecutor(slots, gpus, gpus_per_job)
