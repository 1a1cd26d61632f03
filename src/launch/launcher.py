"""Starts a run's other processes on this machine."""

import os
import sys
from collections.abc import Callable
from typing import Any, Self

from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies.launchers.launcher import _Launcher
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from src.launch import prestart
from src.processes import Child, watch_over


class Launcher(_SubprocessScriptLauncher):
    """Lightning's, which runs the same command once more for each process; those that wait warm come first."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: who copies a model, as weight averaging does, copies its trainer, too, and processes cannot be copied."""
        return self

    def launch(
        self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any
    ) -> Any:
        """Starts the processes and calls a function; Lightning's would kill this one without a word when another has ended."""
        self.cluster_environment.validate_settings(
            num_devices=self.num_processes, num_nodes=self.num_nodes
        )
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
            watch_over(self.procs)
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)

    def _call_children_scripts(self) -> None:
        self._check_can_spawn_children()
        environment = self.cluster_environment
        os.environ |= {
            "MASTER_ADDR": environment.main_address,
            "MASTER_PORT": str(environment.main_port),
            "NODE_RANK": str(environment.node_rank()),
            "LOCAL_RANK": str(environment.local_rank()),
            "WORLD_SIZE": str(self.num_processes * self.num_nodes),
        }
        main = sys.modules["__main__"].__spec__
        command = [sys.executable, *(["-m", main.name] if main else [sys.argv[0]]), *sys.argv[1:]]
        for rank in range(1, self.num_processes):
            its = {**os.environ, "LOCAL_RANK": str(rank)}
            process = prestart.take(its) if main else None
            self.procs.append(process or Child(command, its))
        prestart.dismiss()


class Launches:
    """A strategy whose processes are started so.

    Lightning's, made by ``Trainer(strategy="ddp")``, starts them as well, and takes a little
    longer.
    """

    _launcher: _Launcher | None

    def _configure_launcher(self) -> None:
        self._launcher = Launcher(self.cluster_environment, self.num_processes, self.num_nodes)  # type: ignore[attr-defined]
