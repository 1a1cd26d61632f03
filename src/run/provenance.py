"""Where a run comes from: its command, the versions of packages, and the state of the code."""

import os
import platform
import resource
import shlex
import subprocess
import sys
from contextlib import suppress
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "lightning", "torchmetrics", "jsonargparse", "numpy", "pandas", "scikit-learn")
ROOT = Path(__file__).parents[2]
MOST_DIFF = 1_000_000  # bytes of a run's code.diff
MOST_NEW = 100_000  # bytes of a file in it that git does not know yet
MOST_NAMES = 100  # new files that run.json names


def format_now() -> str:
    """Returns date and time, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def command_line() -> str:
    """Returns the command line of this process as one would type it."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    words = ["python", "-m", module.name, *sys.argv[1:]] if module else ["python", *sys.argv]
    return shlex.join(words)


def describe_system() -> dict[str, Any]:
    """Returns the versions of Python, of the system and of packages."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": find_versions(),
    }


def find_versions() -> dict[str, str]:
    """Returns the versions of the packages that numbers depend on."""
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def measure_peak_memory() -> dict[str, int]:
    """Returns the most bytes this process has held, on the host and on its GPU where it has one."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        peak["cuda"] = torch.cuda.max_memory_allocated()
    return peak


def ask_git(*words: str) -> bytes | None:
    """Returns the output of a git command in this project; None where it fails."""
    try:
        done = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


@cache  # the code of a process is what it imported when it began
def read_code_state() -> tuple[dict[str, Any], bytes]:
    """Returns the state of the code, and its difference to the commit as a patch for git apply.

    The state has the commit, whether files differ from it, and the names of new files. The patch
    has the changes to files that git knows, src and configs first, and then the new files there.
    """
    commit = ask_git("rev-parse", "HEAD")
    status = ask_git("status", "--porcelain", "-z", "--no-renames", ".")
    lines = [line.decode(errors="replace") for line in (status or b"").split(b"\0") if line]
    state: dict[str, Any] = {
        "commit": None if commit is None else commit.decode().strip(),
        "dirty": None if status is None else bool(lines),
        "untracked": [line[3:] for line in lines if line.startswith("??")][:MOST_NAMES],
    }
    if commit is None or not lines:
        return state, b""

    changed = ("diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color", "--")
    diff = ask_git(*changed, "src", "configs") or b""
    diff += ask_git(*changed, ".", ":!src", ":!configs") or b""

    top = Path(os.fsdecode(ask_git("rev-parse", "--show-toplevel") or b"").strip())
    listing = ("ls-files", "--others", "--exclude-standard", "--full-name", "-z", "--")
    names = ask_git(*listing, "src", "configs") or b""
    for name in sorted(os.fsdecode(name) for name in names.split(b"\0") if name):
        with suppress(OSError):
            diff += make_patch(name, top / name)
    return state, diff


def make_patch(name: str, path: Path) -> bytes:
    """Returns a new file as a section of a patch; b"" for a large one, or one that is no text."""
    if path.stat().st_size > MOST_NEW or not path.is_file():
        return b""
    content = path.read_bytes()
    if not content or b"\0" in content:
        return b""
    lines = content.split(b"\n")
    ends_in_newline = lines[-1] == b""
    if ends_in_newline:
        lines.pop()
    head = (
        f"diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n"
        f"@@ -0,0 +1,{len(lines)} @@\n"
    )
    body = b"".join(b"+" + line + b"\n" for line in lines)
    tail = b"" if ends_in_newline else b"\\ No newline at end of file\n"
    return os.fsencode(head) + body + tail


def cut_diff(diff: bytes) -> bytes:
    """Returns a patch without the lines beyond ``MOST_DIFF`` bytes, and a note where it is cut."""
    if len(diff) <= MOST_DIFF:
        return diff
    kept = diff[: diff.rfind(b"\n", 0, MOST_DIFF) + 1]
    return kept + f"# cut here: {len(kept):,} of {len(diff):,} bytes\n".encode()
