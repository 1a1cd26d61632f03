"""The private interfaces of libraries that we touch: each with why, and a check.

A public way is better; what stands here has none.
"""

import lightning as L
import pytest
import torch
import torch._functorch.config
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


# -- models ----------------------------------------------------------------------------------------
def test_compiled_graphs_can_keep_their_buffers() -> None:
    """A compiled encoder gives the buffers of its graph away in the first backward pass.

    The gradients of tasks need several. torch._functorch.config has the only switch.
    """
    assert isinstance(torch._functorch.config.donated_buffer, bool)


def test_lightning_notes_the_running_hook_as_an_attribute() -> None:
    """src/overhead.py sets ``_current_fx_name`` past nn.Module's bookkeeping, 0.1 ms a step."""
    module = L.LightningModule()
    assert module._current_fx_name is None
    assert "_current_fx_name" in vars(module)
