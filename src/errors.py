"""Files of this project that cannot be imported, named in one line.

This file imports nothing that takes time or can be broken: ``src/__init__.py`` reads it first.
"""

import difflib
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

SOURCES = Path(__file__).resolve().parent


class UserError(ValueError):
    """A mistake of the user; its message is one line that names the key or file, and the way out.

    A command prints the message without a traceback and ends with exit code 2. Every other error
    is a fault of this project or of a library, and keeps its traceback.
    """


def suggest(word: str, words: Iterable[str]) -> str:
    """Returns "did you mean 'x'?" for the nearest of the known words; "" where none is near.

    Args:
        word: A word that is not known.
        words: The known words. Their case is ignored in the search.
    """
    by_lower_case = {known.lower(): known for known in map(str, words)}
    near = difflib.get_close_matches(word.lower(), by_lower_case, n=1)
    return f"did you mean '{by_lower_case[near[0]]}'?" if near else ""


def suggest_or_list(word: str, words: Iterable[str]) -> str:
    """Returns the hint of :func:`suggest`, or the known words themselves where none is near."""
    known = [str(name) for name in words]
    more = ", ..." if len(known) > 12 else ""
    return suggest(word, known) or f"there are {', '.join(known[:12])}{more}"


class BrokenFile(UserError):
    """A file of ours that cannot be imported; the message is one line."""


def frames_of_ours(error: BaseException) -> list[traceback.FrameSummary]:
    """Returns the steps of a traceback that lie in our files, the innermost last."""
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if Path(frame.filename).is_relative_to(SOURCES)]


def where_broken(error: BaseException, file: str = "") -> str:
    """Says which file and line of the project an import has failed in, and how.

    Args:
        error: Why it failed.
        file: The file that was asked for; another one that it imports may be the broken one.
    """
    frames = frames_of_ours(error)
    line, reason = 0, str(error)
    if frames:
        file, line = frames[-1].filename, frames[-1].lineno or 0
    if isinstance(error, SyntaxError):
        file, line, reason = error.filename or file, error.lineno or line, error.msg
    path = Path(file)
    shown = path.relative_to(SOURCES.parent) if path.is_relative_to(SOURCES) else path
    reason = " ".join(f"{type(error).__name__}: {reason}".split())
    where = f"line {line}: " if line else ""
    way_out = "mend it, or move it out of its folder"
    if isinstance(error, ModuleNotFoundError) and (error.name or "src").split(".")[0] != "src":
        way_out = "`make setup` brings what the project needs into .venv; install another package yourself, or mend it"
    return f"{shown} cannot be imported: {where}{reason}; {way_out}"


def is_broken_file(error: BaseException) -> bool:
    """Returns whether an error came up while one of our files was read."""
    if isinstance(error, SyntaxError):
        return Path(error.filename or "").is_relative_to(SOURCES)
    frames = frames_of_ours(error)
    return bool(frames) and frames[-1].name == "<module>"


def first_here() -> bool:
    """Returns whether this is the only process of a machine, or the first."""
    return os.environ.get("LOCAL_RANK", "0") in ("", "0")


def say_in_one_line(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> Any:
    """Says what is broken, once a machine; an error of another kind keeps its traceback."""
    if not isinstance(error, Exception) or not is_broken_file(error):
        return sys.__excepthook__(kind, error, trace)
    if first_here():
        print(f"error: {where_broken(error)}", file=sys.stderr, flush=True)
    return None
