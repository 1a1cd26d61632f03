"""Worker processes: the wait for a stopped one is bounded, and a slow step does not count."""

import multiprocessing
import os
import signal
import time

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from src.data.workers import bound_waits, start_worker


class Stops(Dataset[Tensor]):
    """Rows whose worker stops as it makes one of them."""

    def __init__(self, row: int) -> None:
        self.row = row

    def __len__(self) -> int:
        return 6

    def __getitem__(self, row: int) -> Tensor:
        if row == self.row:
            os.kill(os.getpid(), signal.SIGSTOP)
        return torch.full((4,), float(row))


def loader(row: int, seconds: float) -> DataLoader[Tensor]:
    return DataLoader(
        Stops(row), batch_size=None, num_workers=1, timeout=seconds, worker_init_fn=start_worker
    )


# the end of a worker is an error wherever this process is by then, in the deletion of its loader
# too
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("row", [0, 1, 3])
def test_a_worker_that_is_stopped_is_waited_for_a_bounded_time(row: int) -> None:
    began = time.monotonic()
    found: list[float] = []

    def use() -> None:
        for batch in bound_waits(loader(row, 2.0), 2.0):
            found.append(batch.mean().item())
            # the worker stops while its messages lie here: torch alone would wait without end
            time.sleep(0.5)

    with pytest.raises(RuntimeError, match=r"DataLoader (timed out|worker)"):
        use()
    assert found == [float(each) for each in range(len(found))]
    assert len(found) <= row
    assert time.monotonic() - began < 30
    for worker in multiprocessing.active_children():
        worker.kill()


def test_a_slow_step_is_not_the_workers_fault() -> None:
    means = []
    for batch in bound_waits(loader(-1, 1.0), 1.0):
        means.append(batch.mean().item())
        time.sleep(0.6 if len(means) > 2 else 1.8)
    assert means == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
