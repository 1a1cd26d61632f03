"""Builds the classes that a configuration names, and tells whose mistake it is when one refuses.

A class of this project raises a UserError for what a user got wrong. Classes of libraries and of
forks cannot all know that: where the configuration chooses one, its ValueError says that it does
not take the settings it was given, and is the user's as well. Its line names the class, and for
code that is not installed the place, since it may be a bug after all. Any other error is one.
"""

import inspect
import traceback
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from src.errors import UserError, in_one_line

REFUSALS = (ValueError, ModuleNotFoundError, MisconfigurationException)


def build(kind: type, /, *args: Any, **settings: Any) -> Any:
    """Builds a class that the configuration names.

    Args:
        kind: The class.
        *args: What the caller of a factory gives.
        **settings: Its settings.

    Raises:
        UserError: It does not take these settings.
    """
    installed = is_installed(kind)
    try:
        return kind(*args, **settings)
    except UserError:
        raise
    except (*REFUSALS, TypeError) as error:
        # a call that does not fit is the user's only where the code is tried and tested
        if isinstance(error, TypeError) and not installed:
            raise
        step = traceback.extract_tb(error.__traceback__)[-1]
        where = "" if installed else f" ({step.filename}, line {step.lineno})"
        raise UserError(f"{kind.__name__}: {in_one_line(error)}{where}") from error


def is_installed(kind: type) -> bool:
    """Returns whether a class is of an installed package, and none of this project or a fork."""
    try:
        return "site-packages" in Path(inspect.getfile(kind)).parts
    except (TypeError, OSError):  # built into Python
        return True


def find_user_error(error: BaseException) -> UserError | None:
    """Returns the user's mistake behind an error that jsonargparse has put around it."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, UserError):
            return link
        link = link.__cause__ or link.__context__
    return None
