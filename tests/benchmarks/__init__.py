"""Benchmarks: ratios measured side by side in one run, written to RESULTS.md beside this file."""

import os
import platform
import re
from datetime import date
from pathlib import Path

import lightning
import torch

RESULTS = Path(__file__).parent / "RESULTS.md"
MARK = "<!-- below: written by `make {}` -->\n"


def machine() -> str:
    """The date, and what was measured on."""
    versions = f"torch {torch.__version__}, lightning {lightning.__version__}"
    return f"{date.today()}: {platform.machine()}, {os.cpu_count()} cores, one thread, {versions}"


def read(target: str) -> str:
    """Returns the text that a make target has written before."""
    _, _, rest = RESULTS.read_text().partition(MARK.format(target))
    return re.split(r"^<!-- below: .* -->$", rest, maxsplit=1, flags=re.M)[0].strip()


def write(target: str, text: str) -> None:
    """Puts a text in place of what a make target has written before."""
    mark = MARK.format(target)
    whole = RESULTS.read_text()
    if mark not in whole:
        whole = f"{whole.rstrip()}\n\n{mark}"
    head, _, rest = whole.partition(mark)
    others = re.search(r"^<!-- below: .* -->$", rest, flags=re.M)
    tail = "\n" + rest[others.start() :] if others else ""
    RESULTS.write_text(f"{head}{mark}\n{text.strip()}\n{tail}")
