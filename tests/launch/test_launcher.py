"""The processes of a machine share its cores. Whole runs are started in tests/integration."""

import os

import pytest
import torch

from src.launch.launcher import share_cores


@pytest.mark.parametrize(("processes", "threads"), [(1, 8), (2, 4), (3, 2), (16, 1)])
def test_cores_are_shared(monkeypatch: pytest.MonkeyPatch, processes: int, threads: int) -> None:
    found: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", found.append)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "environ", {})
    share_cores(processes)
    assert found == [threads]
    assert os.environ == {"OMP_NUM_THREADS": str(threads)}


def test_a_number_of_threads_that_is_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda number: pytest.fail("changed"))
    monkeypatch.setattr(os, "environ", {"OMP_NUM_THREADS": "3"})
    share_cores(2)
    assert os.environ == {"OMP_NUM_THREADS": "3"}
