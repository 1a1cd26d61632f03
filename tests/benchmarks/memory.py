"""Peak memory of a step, in a process of its own.

python -m tests.benchmarks.memory static|features|parameters
"""

import re
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from src.balancing import StaticWeights, UPGrad
from src.batch import InputShape
from src.cli.entrypoint import quiet
from tests.benchmarks.step import Job, PlainConvNet

BATCH, TASKS = 512, 8


def peak() -> int:
    """The most memory that this process has held, in bytes."""
    # rusage counts in what the process held that started this one
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def measure(kind: str) -> int:
    """Bytes that training takes on top of a process that has done one small step."""
    quiet()
    torch.set_num_threads(1)
    balancer: Any = StaticWeights if kind == "static" else partial(UPGrad, level=cast(Any, kind))
    with tempfile.TemporaryDirectory() as folder:
        Job(TASKS, PlainConvNet, (3, 32, 32), 8, 2).ours(Path(folder), balancer)
        job = Job(TASKS, PlainConvNet, (3, 32, 32), BATCH, 4)
        before = peak()
        job.ours(Path(folder), balancer)
    return peak() - before


def table() -> str:
    """Peaks beside what they may be: 1.1 plain steps and T x features, or T x P rows once."""
    found = {}
    for kind in ("static", "features", "parameters"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.memory", kind],
            capture_output=True,
            text=True,
            check=True,
        )
        found[kind] = int(done.stdout.split()[-1]) / 2**20
    encoder = PlainConvNet(InputShape((3, 32, 32)))
    features = TASKS * BATCH * encoder.features * 4 / 2**20
    rows = TASKS * sum(p.numel() for p in encoder.parameters()) * 4 / 2**20
    plain = 1.1 * found["static"] + features
    limits = {"static": found["static"], "features": plain, "parameters": plain + rows}
    lines = [
        f"| peak memory, conv net, batch {BATCH}, {TASKS} tasks | MiB | limit |",
        "|---|---|---|",
    ]
    return "\n".join(
        [*lines, *(f"| {kind} | {found[kind]:.0f} | {limits[kind]:.0f} |" for kind in found)]
    )


if __name__ == "__main__":
    print(measure(sys.argv[1]))
