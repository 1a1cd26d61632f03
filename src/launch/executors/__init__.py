"""Where the processes of a study run: on this machine, in SLURM jobs, on a Ray cluster."""

from src.launch.executors.executor import Executor, Job
from src.launch.executors.local import LocalExecutor

__all__ = ["Executor", "Job", "LocalExecutor"]
