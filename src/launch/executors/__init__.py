"""Where the processes of a study run: on this machine, in SLURM jobs, on a Ray cluster."""

from src.launch.executors.choice import make_executor
from src.launch.executors.executor import Executor, Job
from src.launch.executors.local import LocalExecutor
from src.launch.executors.ray import RayExecutor
from src.launch.executors.slurm import SlurmExecutor

__all__ = ["Executor", "Job", "LocalExecutor", "RayExecutor", "SlurmExecutor", "make_executor"]
