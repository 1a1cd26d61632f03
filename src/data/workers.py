"""Processes that prepare batches: they end with the one that they work for, and it hears of all that goes wrong in them."""

import signal
import sys
from multiprocessing.queues import Queue
from typing import Any

from torch._utils import ExceptionWrapper

from src.ranks import signal_when_alone


def begin(number: int) -> None:
    """Begins the work of such a process.

    Args:
        number: Which of them it is.
    """
    signal_when_alone(signal.SIGKILL)  # else one that has been stopped would stay
    sys.excepthook = lambda *_: None  # errors go to the process that waits; a thread says that nobody fetches a batch any more

    def told(queue: Any, error: Exception, item: Any) -> None:
        queue.put((item[0], ExceptionWrapper(where=f"in DataLoader worker process {number}")))

    # a batch that cannot be sent, for want of memory, would be printed here and waited for there
    Queue._on_queue_feeder_error = told  # type: ignore[attr-defined]
