"""Which job a process belongs to, by the environment variables of launchers that are not here."""

import os
import socket

import pytest

from src.launch.job import is_restart, name_job

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "LOCAL_WORLD_SIZE": "2",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "10.0.0.1",
}


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1"}, None),
        (TORCHRUN, f"torchrun {socket.gethostname()}:{os.getppid()}"),
        (TORCHRUN | {"WORLD_SIZE": "4"}, "torchrun 10.0.0.1"),
        (TORCHRUN | {"TORCHELASTIC_RUN_ID": "mine"}, "torchrun mine"),
        (TORCHRUN | {"SLURM_JOB_ID": "17"}, "slurm 17"),  # which outlives torchrun
    ],
    ids=["none", "ranks", "torchrun", "two hosts", "named", "slurm"],  # a process id is no name
)
def test_name_of_a_job(environment, name) -> None:
    assert name_job(environment) == name


def test_started_again() -> None:
    assert not is_restart({})
    assert not is_restart({"TORCHELASTIC_RESTART_COUNT": "0", "SLURM_RESTART_COUNT": "0"})
    assert is_restart({"TORCHELASTIC_RESTART_COUNT": "1"})
    assert is_restart({"TORCHELASTIC_RESTART_COUNT": "0", "SLURM_RESTART_COUNT": "2"})
