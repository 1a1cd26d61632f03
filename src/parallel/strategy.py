"""What a strategy of ours says before a run starts."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch.callbacks import WeightAveraging

from src.errors import UserError


@runtime_checkable
class Checks(Protocol):
    """A strategy that knows before any process starts whether it can run a model.

    Attributes:
        replicas: Into how many shares the global batch is cut.
    """

    replicas: int

    def check(self, model: Any) -> None:
        """Looks at a model that has been built, on the CPU, where its network still is whole.

        Raises:
            UserError: This strategy cannot run it; the message names the way out.
        """


class WorkerTimeout:
    """Says how long a process of a strategy waits for its workers; a base of our strategies."""

    @property
    def worker_timeout(self) -> float:
        """Seconds to wait for a process that prepares batches.

        It is less than the wait for other ranks, so that the run ends with the error that names
        the worker, and not with that of a rank that has waited for this one.
        """
        timeout: timedelta | None = getattr(self, "_timeout", None)
        return 600.0 if timeout is None else 0.9 * timeout.total_seconds()


def refuse_timeout(timeout: timedelta | None) -> None:
    """Looks at how long processes are to wait for one another.

    Raises:
        UserError: Not at all.
    """
    if timeout is not None and timeout <= timedelta(0):
        raise UserError(
            f"strategy.timeout is {timeout.total_seconds()}; it must be more than 0 seconds"
        )


def refuse_second_models(callbacks: Iterable[Any], strategy: str) -> None:
    """Looks for callbacks that keep a whole model besides the one that is trained.

    Raises:
        UserError: There is one, and a process of this strategy has a part.
    """
    for callback in callbacks:
        if isinstance(callback, WeightAveraging):
            name = type(callback).__name__
            raise UserError(
                f"{name} keeps a second whole model, of which a process has a part under {strategy}: use --strategy ddp"
            )
