"""Several encoders as one against a loop over them, and whole steps of sharing architectures.

CPU time on one thread, in turn, many rounds; the median ratio counts.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.batch import InputShape
from src.models.encoders import MLP, ConvNet, Encoder
from src.models.sharing import (
    PLE,
    CrossStitch,
    MMoE,
    Separate,
    SoftSharing,
    TaskAdapters,
    WeightedSharing,
)
from src.models.sharing.stacked_encoders import StackedEncoders
from tests.benchmarks.balancing import ratio
from tests.benchmarks.step import Job, PlainMLP

EXPERTS = 8


def steps(forward: Callable[[], Tensor], parameters: list[Any], count: int = 30) -> float:
    """CPU seconds of a forward pass, a backward pass and a step of the optimizer."""
    optimizer = torch.optim.AdamW(parameters, fused=True)
    start = time.process_time()
    for _ in range(count):
        optimizer.zero_grad()
        forward().square().sum().backward()
        optimizer.step()
    return (time.process_time() - start) / count


def by_loop(encoders: list[Encoder], x: Tensor) -> Tensor:
    """One encoder after the other."""
    return torch.stack([encoder(x) for encoder in encoders])


def copies_table(rounds: int) -> list[str]:
    """Eight experts at batch 256."""
    lines = [
        "| 8 experts, batch 256 | a loop, ms | as one, ms | times as fast | goal |",
        "|---|---|---|---|---|",
    ]
    jobs: dict[str, tuple[type[Encoder], InputShape, int]] = {
        f"MLP, width {width}": (MLP, InputShape((64,)), width) for width in (8, 16, 32, 64, 256)
    }
    jobs["conv net, width 8 (stays a loop)"] = ConvNet, InputShape((3, 8, 8)), 8
    for name, (kind, shape, width) in jobs.items():
        make = partial(kind, shape, width=width)  # type: ignore[call-arg]
        x = shape.example(256)
        assert isinstance(x, Tensor)
        torch.manual_seed(0)
        together = StackedEncoders(make, EXPERTS)
        torch.manual_seed(0)
        alone = [make() for _ in range(EXPERTS)]
        torch.testing.assert_close(together(x), by_loop(alone, x), rtol=1e-5, atol=1e-6)
        loop = partial(
            steps,
            partial(by_loop, alone, x),
            [p for encoder in alone for p in encoder.parameters()],
        )
        ours = partial(steps, partial(together, x), list(together.parameters()))
        one, two, times = ratio(ours, loop, rounds)
        lines.append(
            f"| {name} | {two:.2f} | {one:.2f} | {times:.2f} "
            f"| {2 if width == 8 and kind is MLP else '-'} |"
        )
    return lines


def architectures_table(folder: Path, rounds: int) -> list[str]:
    """Whole logged steps under static weights, against hard sharing: what an architecture costs."""
    lines = [
        "| whole step, MLP 64-256-256, batch 256, 8 tasks | hard sharing, ms | ms | ratio |",
        "|---|---|---|---|",
    ]
    job = Job(8, PlainMLP, (64,), 256, 60)
    kinds: dict[str, Any] = {
        "Separate": Separate,
        "SoftSharing": SoftSharing,
        "WeightedSharing": WeightedSharing,
        "CrossStitch": CrossStitch,
        "MMoE, 4 experts": MMoE,
        "PLE, 2 levels": PLE,
        "TaskAdapters": TaskAdapters,
    }
    for name, kind in kinds.items():
        one, two, times = ratio(
            partial(job.ours, folder), partial(job.ours, folder, sharing=kind), rounds
        )
        lines.append(f"| {name} | {one:.2f} | {two:.2f} | {times:.2f} |")
    return lines


def table(quick: bool) -> str:
    """Both as Markdown tables."""
    rounds = 1 if quick else 5
    with tempfile.TemporaryDirectory() as name:
        parts = [copies_table(rounds), architectures_table(Path(name), rounds)]
    return "\n\n".join("\n".join(lines) for lines in parts)
