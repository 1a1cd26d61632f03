"""Runs every benchmark, prints the tables, and writes them to RESULTS.md beside this file."""

import os
import platform
import sys
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import lightning
import torch
from rich.console import Console
from rich.markdown import Markdown

from src.cli import quiet
from tests.benchmarks import balancing, feeding, memory, sharing, step

MARK = "<!-- below: written by `make bench` -->"


def main() -> None:
    """Measures, prints, writes."""
    quiet()
    torch.set_num_threads(1)
    quick = "--quick" in sys.argv
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, one thread, torch {torch.__version__}, lightning {lightning.__version__}"
    )
    tables = [step.table(quick), feeding.table(quick), balancing.table(quick), sharing.table(quick), memory.table()]
    text = "\n\n".join([MARK, f"## {date.today()}: {machine}", *tables]) + "\n"
    Console().print(Markdown(text))
    if not quick:
        path = Path(__file__).parent / "RESULTS.md"
        head = path.read_text().partition(MARK)[0] if path.exists() else "# Results of the benchmarks\n\n"
        path.write_text(head + text)


if __name__ == "__main__":
    main()
