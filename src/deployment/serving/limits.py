"""The limits of a server, and the answer to a request that it refuses."""

from collections.abc import Sequence
from dataclasses import dataclass

from src.data.tables.row_reader import Problem
from src.errors import UserError


@dataclass(frozen=True)
class Limits:
    """How much a client may ask for.

    Attributes:
        max_body: Most bytes of a request.
        max_rows: Most rows of a request.
        time_limit: Seconds in which a client must have sent its request.
        max_waiting: Most requests that wait for the network; others are told to come again.
        max_batch: Most rows that the network takes at once.
        batch_wait: Seconds that a request waits for others, to run with them.
    """

    max_body: int = 1_000_000
    max_rows: int = 1000
    time_limit: float = 10.0
    max_waiting: int = 64
    max_batch: int = 256
    batch_wait: float = 0.002

    def __post_init__(self) -> None:
        for name in ("max_body", "max_rows", "max_waiting", "max_batch"):
            value = getattr(self, name)
            if value < 1:
                raise UserError(f"--{name} is {value}; it must be at least 1")
        if not 0 < self.time_limit < float("inf"):
            raise UserError(f"--time_limit is {self.time_limit}; it must be above 0 seconds")


class Refusal(Exception):
    """A request that is refused.

    Attributes:
        status: The status of HTTP.
        problems: Why, one line each.
    """

    def __init__(self, status: int, problems: Sequence[Problem] | str) -> None:
        super().__init__(status)
        self.status = status
        if isinstance(problems, str):
            problems = [Problem(None, None, problems)]
        self.problems = list(problems)

    def to_json(self) -> dict[str, list[dict[str, object]]]:
        """Returns the body of the answer."""
        return {"errors": [vars(problem) for problem in self.problems]}
