"""Processes that prepare batches: they end with the one that they work for, and it hears of all that goes wrong in them."""

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


def begin(number: int) -> None:
    """Begins the work of such a process.

    Args:
        number: Which of them it is.
    """
    signal_when_alone(signal.SIGKILL)  # else one that has been stopped would stay
    sys.excepthook = lambda *_: (
        None
    )  # errors go to the process that waits; a thread says that nobody fetches a batch any more

    def told(queue: Any, error: Exception, item: Any) -> None:
        queue.put((item[0], ExceptionWrapper(where=f"in DataLoader worker process {number}")))

    # a batch that cannot be sent, for want of memory, would be printed here and waited for there
    Queue._on_queue_feeder_error = told  # type: ignore[attr-defined]


def awaited(batches: Iterable[T], seconds: float) -> Iterator[T]:
    """Yields what worker processes make, and kills them where a batch does not come in time.

    torch looks at the clock while it waits for a message, but not while it fetches what the
    message names: for a worker that is stopped meanwhile it would wait without end.

    Args:
        batches: A DataLoader.
        seconds: That a batch is waited for; the DataLoader itself is to notice most delays by then.

    Raises:
        RuntimeError: One did not come, in the words of torch.
    """
    clock = Clock(seconds + 0.5)
    try:
        yield from clock.during(iter(batches))
    except Exception:
        # each worker that is killed raises an error of its own, wherever this process is by then
        if clock.has_struck:
            raise RuntimeError(f"DataLoader timed out after {seconds:g} seconds") from None
        raise
    finally:
        clock.stopped.set()


class Clock:
    """Kills the processes that prepare batches when they are waited for too long.

    Args:
        seconds: How long.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.since: float | None = None  # when the wait for the next batch began
        self.has_struck = False
        self.stopped = threading.Event()
        threading.Thread(target=self._watch, daemon=True, name="watches over workers").start()

    def during(self, batches: Iterator[T]) -> Iterator[T]:
        """Yields batches, and runs while they are waited for, not while they are used."""
        self.since = time.monotonic()
        for batch in batches:
            self.since = None
            yield batch
            self.since = time.monotonic()

    def _watch(self) -> None:
        while not self.stopped.wait(min(1.0, self.seconds / 10)):
            since = self.since
            if since is not None and time.monotonic() - since > self.seconds:
                self.has_struck = True
                for worker in multiprocessing.active_children():
                    worker.kill()
                return
