"""Worker processes that prepare batches: they end with their parent, which hears of every error."""

import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from multiprocessing.queues import Queue
from typing import Any, TypeVar

from torch._utils import ExceptionWrapper

from src.processes import signal_when_alone

T = TypeVar("T")


def start_worker(number: int) -> None:
    """Prepares a worker process; the DataLoader calls it first of all in each worker.

    Args:
        number: Number of the worker.
    """
    # a worker that is stopped (SIGSTOP) would outlive its parent, and hold its memory
    signal_when_alone(signal.SIGKILL)

    # an error goes to the parent; what a thread of the queue prints when nobody fetches its
    # batches any more would only hide it
    sys.excepthook = lambda *_: None

    def send_error(queue: Any, error: Exception, item: Any) -> None:
        queue.put((item[0], ExceptionWrapper(where=f"in DataLoader worker process {number}")))

    # a batch that cannot be sent, for want of memory, would be printed here, and the parent would
    # wait for it until its timeout
    Queue._on_queue_feeder_error = send_error  # type: ignore[attr-defined]


def bound_waits(batches: Iterable[T], seconds: float) -> Iterator[T]:
    """Yields the batches of worker processes, and kills these if a batch does not come in time.

    torch applies its timeout while it waits for a message, but not while it fetches the memory that
    the message names. If a worker is stopped in between, torch waits forever.

    Args:
        batches: A DataLoader with workers.
        seconds: Longest wait for a batch. The DataLoader's own timeout, which is as long, notices
            most delays earlier.

    Raises:
        RuntimeError: A batch did not come in time; the message is that of torch.
    """
    watch = Stopwatch(seconds + 0.5)
    try:
        yield from watch.time(iter(batches))
    except Exception:
        # a killed worker raises an error of its own, wherever this process is by then
        if watch.has_expired:
            raise RuntimeError(f"DataLoader timed out after {seconds:g} seconds") from None
        raise
    finally:
        watch.stopped.set()


class Stopwatch:
    """Kills the worker processes when this process waits for a batch too long.

    Args:
        seconds: Longest wait.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.since: float | None = None  # when the wait for the next batch began
        self.has_expired = False
        self.stopped = threading.Event()
        threading.Thread(target=self._watch, daemon=True, name="watches over workers").start()

    def time(self, batches: Iterator[T]) -> Iterator[T]:
        """Yields batches; the time runs while they are waited for, not while they are used."""
        self.since = time.monotonic()
        for batch in batches:
            self.since = None
            yield batch
            self.since = time.monotonic()

    def _watch(self) -> None:
        while not self.stopped.wait(min(1.0, self.seconds / 10)):
            since = self.since
            if since is not None and time.monotonic() - since > self.seconds:
                self.has_expired = True
                for worker in multiprocessing.active_children():
                    worker.kill()
                return
