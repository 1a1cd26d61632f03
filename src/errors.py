"""Mistakes of the user, and files of this project that cannot be imported: a line each.

This file imports nothing that takes time or can be broken: every command reads it first.
"""

import difflib
import os
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

E = TypeVar("E", bound=Exception)

SOURCES = Path(__file__).resolve().parent


class UserError(ValueError):
    """A mistake of the user; its message is one line that names the key or file, and the way out.

    A command prints the message without a traceback and ends with exit code 2. Every other error
    is a fault of this project or of a library, and keeps its traceback.
    """


def suggest(word: str, words: Iterable[str], cutoff: float = 0.6) -> str:
    """Returns "did you mean 'x'?" for the nearest of the known words; "" where none is near.

    Args:
        word: A word that is not known.
        words: The known words. Their case is ignored in the search.
        cutoff: How alike two words must be, from 0 to 1.
    """
    by_lower_case = {known.lower(): known for known in map(str, words)}
    near = difflib.get_close_matches(word.lower(), by_lower_case, n=1, cutoff=cutoff)
    return f"did you mean '{by_lower_case[near[0]]}'?" if near else ""


def suggest_or_list(word: str, words: Iterable[str]) -> str:
    """Returns the hint of :func:`suggest`, or the known words themselves where none is near."""
    known = [str(name) for name in words]
    more = ", ..." if len(known) > 12 else ""
    return suggest(word, known) or f"there are {', '.join(known[:12])}{more}"


def in_one_line(error: BaseException | str) -> str:
    """Returns the message of an error without line breaks."""
    return " ".join(str(error).split())


def attempt(action: Callable[[], object], kind: type[E]) -> E | None:
    """Runs an action; returns the error of this kind that has ended it, if any.

    Processes that meet after it can then all fail where one has failed.
    """
    try:
        action()
    except kind as error:
        return error
    return None


class BrokenFile(UserError):
    """A file of ours that cannot be imported; the message is one line."""


def list_frames_of_ours(error: BaseException) -> list[traceback.FrameSummary]:
    """Returns the steps of a traceback that lie in our files, the innermost last."""
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if Path(frame.filename).is_relative_to(SOURCES)]


def where_broken(error: BaseException, file: str = "") -> str:
    """Says which file and line of the project an import has failed in, and how.

    Args:
        error: Why it failed.
        file: The file that was asked for; another one that it imports may be the broken one.
    """
    line = 0
    reason = str(error)
    frames = list_frames_of_ours(error)
    if frames:
        file = frames[-1].filename
        line = frames[-1].lineno or 0
    if isinstance(error, SyntaxError):
        file = error.filename or file
        line = error.lineno or line
        reason = error.msg

    path = Path(file)
    shown = path.relative_to(SOURCES.parent) if path.is_relative_to(SOURCES) else path
    reason = in_one_line(f"{type(error).__name__}: {reason}")
    where = f"line {line}: " if line else ""
    way_out = "mend it, or move it out of its folder"
    if isinstance(error, ModuleNotFoundError) and (error.name or "src").split(".")[0] != "src":
        way_out = (
            "`make setup` brings what the project needs into .venv; install another package "
            "yourself, or mend it"
        )
    return f"{shown} cannot be imported: {where}{reason}; {way_out}"


def is_broken_file(error: BaseException) -> bool:
    """Returns whether an error came up while one of our files was read."""
    if isinstance(error, SyntaxError):
        return Path(error.filename or "").is_relative_to(SOURCES)
    frames = list_frames_of_ours(error)
    return bool(frames) and frames[-1].name == "<module>"


def is_first_here() -> bool:
    """Returns whether this is the only process of a machine, or the first."""
    return os.environ.get("LOCAL_RANK", "0") in ("", "0")
