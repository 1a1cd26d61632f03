"""Starts the other processes of a run on this machine."""

import os
import sys
from collections.abc import Callable
from typing import Any, Self

import torch
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from src.processes import Child, follow_parent, watch_over


class Launcher(_SubprocessScriptLauncher):
    """Runs the same command once more for each process, as Lightning's launcher does.

    Unlike that one it lets a failed process say why it failed: Lightning's would kill this process
    without a word.
    """

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Returns itself, since processes cannot be copied.

        Copies of a model, as weight averaging makes them, copy its trainer, too.
        """
        return self

    def launch(
        self,
        function: Callable[..., Any],
        *args: Any,
        trainer: object = None,
        **kwargs: Any,
    ) -> Any:
        """Starts the processes, unless someone else does, and calls a function.

        Args:
            function: The function to call.
            *args: Its positional arguments.
            trainer: Not used, as in Lightning's launcher.
            **kwargs: Its keyword arguments.
        """
        follow_parent()  # in a program that is none of our commands
        environment = self.cluster_environment
        environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not environment.creates_processes_externally:
            self.start_children()
            watch_over(self.procs)
        share_cores(self.num_processes)
        return function(*args, **kwargs)

    def start_children(self) -> None:
        """Starts one process for each device of this machine besides this one's."""
        assert not self.procs, "processes are started once"
        environment = self.cluster_environment
        os.environ |= {
            "MASTER_ADDR": environment.main_address,
            "MASTER_PORT": str(environment.main_port),
            "NODE_RANK": str(environment.node_rank()),
            "LOCAL_RANK": str(environment.local_rank()),
            "WORLD_SIZE": str(self.num_processes * self.num_nodes),
        }

        # A command that runs a module is started again as a module.
        module = sys.modules["__main__"].__spec__
        program = ["-m", module.name] if module else [sys.argv[0]]
        command = [sys.executable, *program, *sys.argv[1:]]

        for rank in range(1, self.num_processes):
            variables = {**os.environ, "LOCAL_RANK": str(rank)}
            self.procs.append(Child(command, variables))


def share_cores(processes: int) -> None:
    """Gives torch this process's share of the cores, unless OMP_NUM_THREADS is set.

    Args:
        processes: Number of processes on this machine.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return
    # Linux may grant a process fewer cores than the machine has.
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    threads = max(1, cores // processes)
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)
