"""What a strategy of ours says before a run starts."""

from typing import Any, Protocol, runtime_checkable


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
            ValueError: This strategy cannot run it; the message names the way out.
        """
