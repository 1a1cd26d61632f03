"""Settings that must not be below a number."""

from collections.abc import Mapping

from src.errors import UserError


def check_least(
    settings: object, section: str, least: Mapping[str, int], way_out: str = ""
) -> None:
    """Refuses settings that are too small; None passes.

    Args:
        settings: The object that has them.
        section: The key that they are below.
        least: {setting: least value}.
        way_out: A further clause of the message.

    Raises:
        UserError: A setting is below its least value.
    """
    for name, limit in least.items():
        value = getattr(settings, name)
        if value is not None and value < limit:
            raise UserError(f"{section}.{name} is {value}; it must be at least {limit}{way_out}")
