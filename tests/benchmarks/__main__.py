"""Runs every benchmark, prints the tables, and writes them to RESULTS.md beside this file."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from rich.console import Console
from rich.markdown import Markdown

from src.cli.entrypoint import quiet
from tests.benchmarks import (
    balancing,
    exporting,
    feeding,
    finetuning,
    machine,
    memory,
    sharing,
    step,
    write,
)


def main() -> None:
    """Measures, prints, writes."""
    quiet()
    torch.set_num_threads(1)
    quick = "--quick" in sys.argv
    tables = [
        step.table(quick),
        feeding.table(quick),
        balancing.table(quick),
        sharing.table(quick),
        memory.table(),
        finetuning.table(quick),
        exporting.table(quick),
    ]
    text = "\n\n".join([f"## {machine()}", *tables])
    Console().print(Markdown(text))
    if not quick:
        write("bench", text)


if __name__ == "__main__":
    main()
