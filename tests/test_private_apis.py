"""The private interfaces of libraries that we touch: each with why, and a check.

A public way is better; what stands here has none.
"""

import inspect
import subprocess
import sys
from multiprocessing.queues import Queue
from pathlib import Path

import lightning as L
import pytest
import torch
import torch._functorch.config
from jsonargparse import ArgumentError, ArgumentParser
from jsonargparse import _loaders_dumpers as loaders_dumpers
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.fabric.utilities.device_dtype_mixin import _update_properties
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.trainer.connectors import checkpoint_connector
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from tensorboard.summary.writer import event_file_writer
from torch._utils import ExceptionWrapper
from torch.distributed.rendezvous import _torchelastic_use_agent_store
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader, TensorDataset
from xdist.scheduler import LoadFileScheduling, LoadScopeScheduling

from src.cli.yaml_mode import use_yaml_12
from src.files.yaml12 import Loader
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


# -- parallel --------------------------------------------------------------------------------------
def test_ddp_ignores_the_buffers_that_it_is_told_to() -> None:
    """src/parallel/ddp.py keeps a balancer's state out of what ddp sends before each step.

    The only other way, broadcast_buffers=False, would leave out those of normalisation layers, too.
    """
    model = torch.nn.BatchNorm1d(2)
    names = ["running_mean"]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)
    assert model._ddp_params_and_buffers_to_ignore == names


def test_ddp_lets_go_of_a_model() -> None:
    """src/parallel/ddp.py wraps the model anew once other parameters train.

    The old wrapper's hooks would average their gradients once more, until it is collected.
    """
    assert callable(DistributedDataParallel._remove_autograd_hooks)


def test_the_device_of_a_lightning_module_can_be_set_alone() -> None:
    """src/parallel/device_transfer.py sets it for a model whose parts are on several devices.

    The public ways, such as ``LightningModule.to``, move all of the model.
    """
    module = L.LightningModule()
    module.layer = torch.nn.Linear(2, 2)
    _update_properties(module, device=torch.device("meta"))
    assert module.device == torch.device("meta")
    assert module.layer.weight.device == torch.device("cpu")


# -- data ------------------------------------------------------------------------------------------
def test_lightning_says_whether_it_deals_rows_to_devices() -> None:
    """src/data/datamodule.py refuses a trainer that would deal the rows of each share once more."""
    trainer = L.Trainer(accelerator="cpu", use_distributed_sampler=False, logger=False)
    assert trainer._accelerator_connector.use_distributed_sampler is False


def test_lightning_ends_the_workers_of_a_loaders_iterator() -> None:
    """src/data/stream.py has the ``_iterator`` whose workers Lightning ends after a failed run.

    Otherwise each worker holds up the end of the process for 5 s.
    """
    rows = TensorDataset(torch.arange(2))
    loader = DataLoader(rows, num_workers=1, persistent_workers=True)
    assert loader._iterator is None
    iter(loader)
    assert loader._iterator is not None
    CombinedLoader(loader).reset()
    assert loader._iterator is None


def test_a_batch_that_cannot_be_sent_calls_a_method_of_the_queue() -> None:
    """src/data/workers.py sends the error instead, since it is only printed in the worker.

    torch has no public class for an error of a worker either: ``torch._utils.ExceptionWrapper``.
    """
    arguments = inspect.signature(vars(Queue)["_on_queue_feeder_error"]).parameters
    assert list(arguments) == ["e", "obj"]
    try:
        raise ValueError("x")
    except ValueError:
        error = ExceptionWrapper(where="in a worker")
    with pytest.raises(ValueError, match="in a worker"):
        error.reraise()


# -- balancing -------------------------------------------------------------------------------------
def test_modules_move_their_buffers_by_one_method() -> None:
    """src/balancing/gradients.py keeps float64 buffers on the CPU: ``to`` and ``cuda`` call _apply.

    Lightning moves a whole model; a plain attribute would not be in the checkpoint.
    """
    module = torch.nn.Module()
    module.register_buffer("x", torch.zeros(1))
    assert list(module._buffers) == ["x"]
    module._apply(lambda tensor: tensor + 1)
    assert module.get_buffer("x").tolist() == [1.0]


# -- cli -------------------------------------------------------------------------------------------
def test_jsonargparse_reads_single_values_by_a_loader_that_can_be_set() -> None:
    """src/cli/yaml_mode.py has it read YAML 1.2; ``set_loader`` leaves out single values."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--n", type=int)
    use_yaml_12()
    assert loaders_dumpers.get_yaml_default_loader() is Loader
    with pytest.raises(ArgumentError, match="12:30"):
        parser.parse_args(["--n", "12:30"])


def test_lightning_restores_checkpoints_in_one_file() -> None:
    """src/cli/entrypoint.py names the checkpoint that an error in this file belongs to."""
    connector = checkpoint_connector._CheckpointConnector
    assert Path(inspect.getfile(connector)).name == "checkpoint_connector.py"
    names = [name for name in vars(connector) if "restore" in name]
    assert {"restore_model", "restore_training_state", "restore_callbacks"} <= set(names)
    assert "trainer" in vars(connector(L.Trainer(accelerator="cpu", logger=False)))


# -- monitoring ------------------------------------------------------------------------------------
def test_a_training_loop_says_what_is_about_to_come() -> None:
    """src/monitoring/checkpoints.py saves between steps alone: Lightning resumes nowhere else.

    There is no public way to know that no accumulation is half done, that no validation follows,
    and that a limit on steps or time has been reached.
    """
    trainer = L.Trainer(max_steps=0, logger=False, enable_checkpointing=False, accelerator="cpu")
    loop = trainer.fit_loop.epoch_loop
    assert loop._num_ready_batches_reached() in (True, False)
    assert loop._should_accumulate() in (True, False)
    assert callable(loop._should_check_val_fx)
    assert loop._is_training_done is True
    assert trainer.fit_loop._data_fetcher is None


def test_trees_of_tensors_can_be_mapped() -> None:
    """Stages hand on tensors or tuples of tensors; torch has no public module for such trees."""
    assert tree_map(abs, (-1, {"mask": [-2]})) == (1, {"mask": [2]})
    assert tree_leaves((1, {"mask": [2]})) == [1, 2]


# -- tests -----------------------------------------------------------------------------------------
def test_the_unit_of_work_of_a_worker_can_be_chosen() -> None:
    """tests/conftest.py makes one unit of tests/integration; xdist has no option for a folder."""
    assert issubclass(LoadFileScheduling, LoadScopeScheduling)
    units = LoadScopeScheduling._split_scope
    assert list(inspect.signature(units).parameters) == ["self", "nodeid"]


def test_event_files_are_numbered() -> None:
    """Those of one second are read in the order of these numbers as text; none can be padded."""
    assert event_file_writer._global_uid.get() >= 10**6


# -- processes -------------------------------------------------------------------------------------
def test_a_thread_can_end_its_process() -> None:
    """src/processes.py calls ``os._exit``, which Python documents: sys.exit ends a thread alone."""
    code = "import os, threading; threading.Thread(target=os._exit, args=(3,)).start(); input()"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, stdin=subprocess.PIPE, timeout=60).returncode == 3
