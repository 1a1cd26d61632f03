"""The space of settings that a search draws from.

::

    lr: {low: 0.0001, high: 0.01, log: true}              # a range
    model.encoder.width: {low: 16, high: 256, integer: true}
    model.balancer: [StaticWeights, UPGrad]               # a choice

A list is always a choice among its entries, and a mapping with ``low`` and ``high`` always a range.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from src.analysis.settings import Settings, shorten, spell
from src.errors import UserError, suggest_or_list
from src.files.yaml12 import Bool

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

OF_A_RANGE = ("low", "high", "log", "integer")
DIGITS = 4  # of a number from a range: more of them change no result, and no person reads them


@dataclass(frozen=True)
class Choice:
    """Values to choose from.

    Attributes:
        values: The values, as the file has them.
    """

    values: tuple[Any, ...]

    def make_distribution(self) -> "BaseDistribution":
        """Returns the distribution of Optuna; each value goes by its text."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution([spell(value) for value in self.values])

    def read(self, drawn: Any) -> Any:
        """Returns the value of a draw."""
        return next(value for value in self.values if spell(value) == drawn)

    def list_bounds(self) -> list[Any]:
        """Returns all values."""
        return list(self.values)

    def describe(self) -> list[str]:
        """Returns it as a record notes it."""
        return [spell(value) for value in self.values]


@dataclass(frozen=True)
class Range:
    """Numbers between two bounds, both included.

    Attributes:
        low: The lower bound.
        high: The upper bound.
        log: Whether the logarithm is drawn uniformly, not the number.
        integer: Whether the numbers are whole.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def make_distribution(self) -> "BaseDistribution":
        """Returns the distribution of Optuna."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.integer:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def read(self, drawn: float) -> float:
        """Returns the value of a draw: a number of a few digits within the bounds."""
        if self.integer:
            return int(drawn)
        return min(max(float(f"{drawn:.{DIGITS}g}"), self.low), self.high)

    def list_bounds(self) -> list[Any]:
        """Returns the lowest and the highest value."""
        return [self.read(self.low), self.read(self.high)]

    def describe(self) -> dict[str, Any]:
        """Returns it as a record notes it."""
        return {"low": self.low, "high": self.high, "log": self.log, "integer": self.integer}


Space = dict[str, Choice | Range]


def read_space(tree: object, where: str = "tuning.space") -> Space:
    """Reads a space.

    Args:
        tree: {flag: values to choose from, or the bounds of a range}.
        where: The place that messages name.

    Raises:
        UserError: It is empty, or holds something that is neither a choice nor a range.
    """
    if not isinstance(tree, dict) or not tree:
        raise UserError(
            f"{where} is {shorten(tree)}, where settings with their values belong, such as "
            "{lr: {low: 0.0001, high: 0.01, log: true}, model.encoder.width: [32, 64]}"
        )
    space: Space = {}
    for key, value in tree.items():
        place = f"{where}: {key}"
        if isinstance(value, list):
            space[key] = read_choice(value, place)
        elif isinstance(value, dict) and value.keys() & {"low", "high"}:
            space[key] = read_range(value, place)
        else:
            raise UserError(
                f"{place} is {shorten(value)}; a list of values belongs there, or a range such as "
                "{low: 0.0001, high: 0.01, log: true}"
            )
    return space


def read_choice(values: list[Any], place: str) -> Choice:
    """Reads a choice.

    Raises:
        UserError: It is empty, or has a value twice.
    """
    if not values:
        raise UserError(f"{place} is an empty list: it must have at least one value")
    for number, value in enumerate(values):
        if value in values[:number]:
            raise UserError(f"{place} has the value {spell(value)} twice")
    return Choice(tuple(values))


def read_range(content: dict[str, Any], place: str) -> Range:
    """Reads a range.

    Raises:
        UserError: A bound is missing or no number, or the bounds do not go together.
    """
    for key in content:
        if key not in OF_A_RANGE:
            raise UserError(
                f"{place}.{key} is no key of a range; {suggest_or_list(key, OF_A_RANGE)}"
            )
    low = read_bound(content, "low", place)
    high = read_bound(content, "high", place)
    log = read_truth(content, "log", place)
    integer = read_truth(content, "integer", place)
    if low >= high:
        kind = "reversed" if low > high else "a single number"
        raise UserError(f"{place} from {low:g} to {high:g} is {kind}: low must be below high")
    if log and low <= 0:
        raise UserError(f"{place}.low is {low:g}, whose logarithm is not defined: use one above 0")
    if integer and not (low.is_integer() and high.is_integer()):
        raise UserError(f"{place} from {low:g} to {high:g} has integer: true: use whole bounds")
    return Range(low, high, log, integer)


def read_bound(content: dict[str, Any], key: str, place: str) -> float:
    """Returns a bound of a range.

    Raises:
        UserError: It is no finite number.
    """
    value = content.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool | Bool) or not isfinite(value):
        raise UserError(f"{place}.{key} is {shorten(value)}; it must be a number")
    return float(value)


def read_truth(content: dict[str, Any], key: str, place: str) -> bool:
    """Returns whether a range has a property.

    Raises:
        UserError: It is neither true nor false.
    """
    value = content.get(key, False)
    if not isinstance(value, bool | Bool):
        raise UserError(f"{place}.{key} is {shorten(value)}; it must be true or false")
    return bool(value)


def describe_space(space: Space) -> dict[str, Any]:
    """Returns a space in plain values, as a record notes it."""
    return {key: part.describe() for key, part in space.items()}


def list_corners(space: Space) -> Iterator[Settings]:
    """Yields settings that have each value of a choice, and each bound of a range, once or more.

    The other settings have their first values meanwhile.
    """
    first = {key: part.list_bounds()[0] for key, part in space.items()}
    yield first
    for key, part in space.items():
        for value in part.list_bounds()[1:]:
            yield first | {key: value}


def count_points(space: Space) -> int | None:
    """Returns how many different settings there are; None where a range has no end of them."""
    total = 1
    for part in space.values():
        if isinstance(part, Choice):
            total *= len(part.values)
        elif part.integer:
            total *= int(part.high) - int(part.low) + 1
        else:
            return None
    return total
