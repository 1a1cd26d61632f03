"""The private interfaces of libraries that we touch: each with why, and a check.

A public way is better; what stands here has none.
"""

import pytest
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch.distributed.rendezvous import _torchelastic_use_agent_store

from src.launch.launcher import Launcher


# -- launch ----------------------------------------------------------------------------------------
def test_launcher_that_runs_the_command_again() -> None:
    """Lightning's Trainer ends the processes of this class at Ctrl-C; it has no public name."""
    launcher = Launcher(LightningEnvironment(), 2, 1)
    assert isinstance(launcher, _SubprocessScriptLauncher)
    assert launcher.procs == []
    assert (launcher.num_processes, launcher.num_nodes) == (2, 1)


def test_torchrun_hands_its_store_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """src/launch/network.py leaves torchrun's store by a variable that is not documented."""
    for value, uses in (("True", True), ("False", False)):
        monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", value)
        assert _torchelastic_use_agent_store() is uses
