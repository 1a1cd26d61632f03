"""The table of learning rates that a search prints."""

from collections.abc import Mapping

from rich.table import Table

from src.analysis.rate_curves import Suggestion, judge_rate


def make_rates_table(found: Mapping[str, Suggestion], configured: Mapping[str, float]) -> Table:
    """Returns a table of the encoder and each head with their rates.

    Args:
        found: {part: suggestion}.
        configured: {part: configured rate}.
    """
    table = Table(
        title="learning rates: where a loss falls fastest, the median over seeds",
        title_justify="left",
        box=None,
        padding=(0, 1),
    )
    table.add_column("part", no_wrap=True)
    for name in ("suggested", "over seeds", "loss falls", "configured"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for name, one in found.items():
        rate = configured[name]
        table.add_row(
            name,
            show_rate(one.rate),
            show_range(one.low, one.high),
            show_range(one.falls_from, one.falls_to),
            show_rate(rate),
            judge_rate(rate, one),
        )
    return table


def show_rate(rate: float | None) -> str:
    """Returns a rate with two digits; a dash for none."""
    return "-" if rate is None else f"{rate:.2g}"


def show_range(low: float | None, high: float | None) -> str:
    """Returns two rates as a range."""
    return "-" if low is None or high is None else f"{low:.2g} to {high:.2g}"
