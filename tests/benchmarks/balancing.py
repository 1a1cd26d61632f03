"""Balanced steps against plain ones, against one backward pass per task, and against TorchJD.

Whole training steps in CPU time, in turn, many rounds; the median ratio counts. Ours run under
Lightning with logging, guards and checkpoints, the others are bare loops.
"""

import statistics
import tempfile
import time
import timeit
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchjd import aggregation
from torchjd.autojac import jac_to_grad, mtl_backward

import src.balancing
from src.balancing import MGDA, Balancer, GramianBalancer, NashMTL, PCGrad, TaskLosses, UPGrad
from src.balancing.gradients import CpuBalancer
from src.balancing.solvers import project_each
from src.batch import InputShape
from src.tasks import Classification
from tests.balancing.test_solvers import crowd
from tests.benchmarks.step import CLASSES, Job, PlainConvNet, PlainMLP

MLPS = {tasks: Job(tasks, PlainMLP, (64,), 256, 100 if tasks < 32 else 50) for tasks in (2, 8, 32)}
DEEP = Job(8, PlainMLP, (64,), 256, 100, depth=1)
CONV = Job(2, PlainConvNet, (3, 32, 32), 64, 30)


def ratio(
    first: Callable[[], float], second: Callable[[], float], rounds: int
) -> tuple[float, float, float]:
    """Medians: milliseconds of each, and of second / first in pairs."""
    pairs = [(first(), second()) for _ in range(rounds + 1)][1:]  # the first one warms up
    one, two = (statistics.median(times) * 1e3 for times in zip(*pairs, strict=True))
    return one, two, statistics.median(b / a for a, b in pairs)


def network(job: Job) -> tuple[nn.Module, nn.ModuleDict, Any]:
    """Encoder, heads and optimizer of the loops by hand."""
    encoder: Any = job.encoder(InputShape(job.shape))
    outputs = {n: CLASSES if isinstance(t, Classification) else 1 for n, t in job.kinds.items()}
    heads = nn.ModuleDict({n: nn.Linear(encoder.features, o) for n, o in outputs.items()})
    return encoder, heads, job.optimizer([*encoder.parameters(), *heads.parameters()])


def losses_by_hand(job: Job, heads: nn.ModuleDict, z: Tensor, rows: Tensor) -> list[Tensor]:
    """One loss per task, kept as a list."""
    found = []
    for name, head in heads.items():
        output, y = head(z), job.targets[name][rows]
        found.append(
            F.cross_entropy(output, y) if y.dtype == torch.long else F.mse_loss(output[:, 0], y)
        )
    return found


def loop(job: Job, step: Callable[[nn.Module, nn.ModuleDict, Any, Tensor], None]) -> float:
    """CPU seconds per step of a bare loop."""
    encoder, heads, optimizer = network(job)
    order = torch.randperm(len(job.inputs)).split(job.batch)
    start = time.process_time()
    for rows in order:
        step(encoder, heads, optimizer, rows)
    return (time.process_time() - start) / job.steps


def floor(job: Job) -> float:
    """Times T backward passes over the whole network: the least that level parameters can cost."""

    def step(encoder: nn.Module, heads: nn.ModuleDict, optimizer: Any, rows: Tensor) -> None:
        losses = losses_by_hand(job, heads, encoder(job.inputs[rows]), rows)
        optimizer.zero_grad()
        for loss in losses:
            loss.backward(retain_graph=True)
        optimizer.step()

    return loop(job, step)


def torchjd(job: Job, aggregator: Any) -> float:
    """TorchJD's multi-task step."""

    def step(encoder: nn.Module, heads: nn.ModuleDict, optimizer: Any, rows: Tensor) -> None:
        z = encoder(job.inputs[rows])
        losses = losses_by_hand(job, heads, z, rows)
        optimizer.zero_grad()
        mtl_backward(losses, features=z)
        jac_to_grad(encoder.parameters(), aggregator)
        optimizer.step()

    return loop(job, step)


def features_table(folder: Path, rounds: int) -> list[str]:
    """Features level against static weights."""
    lines = [
        "| features level | method | static, ms | balanced, ms | ratio | goal |",
        "|---|---|---|---|---|---|",
    ]
    jobs = {f"MLP, {n} tasks, linear heads": (job, 1.2) for n, job in MLPS.items()}
    jobs |= {"MLP, 8 tasks, hidden heads": (DEEP, 1.35), "conv net, 2 tasks": (CONV, 1.03)}
    for name, (job, goal) in jobs.items():
        for method in (UPGrad, NashMTL, PCGrad, MGDA):
            ours = partial(job.ours, folder, partial(method, level="features"))
            one, two, times = ratio(partial(job.ours, folder), ours, rounds)
            lines.append(
                f"| {name} | {method.__name__} | {one:.2f} | {two:.2f} | {times:.2f} | {goal} |"
            )
    job = MLPS[32]
    one, two, times = ratio(
        job.by_hand, partial(job.ours, folder, partial(MGDA, level="features")), rounds
    )
    lines.append(
        f"| MLP, 32 tasks, against a *plain* loop by hand | MGDA | {one:.2f} | {two:.2f} "
        f"| {times:.2f} | 0.8 |"
    )
    return lines


def parameters_table(folder: Path, rounds: int) -> list[str]:
    """Parameters level against the floor."""
    lines = ["| parameters level | floor, ms | ours, ms | ratio | goal |", "|---|---|---|---|---|"]
    for name, job in {"MLP, 8 tasks": MLPS[8], "conv net, 2 tasks": CONV}.items():
        one, two, times = ratio(
            partial(floor, job),
            partial(job.ours, folder, partial(UPGrad, level="parameters")),
            rounds,
        )
        lines.append(f"| {name} | {one:.2f} | {two:.2f} | {times:.2f} | 1.1 |")
    return lines


def torchjd_table(folder: Path, rounds: int) -> list[str]:
    """Features level against TorchJD, method by method."""
    lines = [
        "| against TorchJD's mtl_backward | its ms | our ms | times as fast | goal |",
        "|---|---|---|---|---|",
    ]
    for tasks, goal in ((8, 4), (32, 10)):
        job = MLPS[tasks]
        for method, theirs in (
            ("UPGrad", aggregation.UPGrad),
            ("MGDA", aggregation.MGDA),
            ("PCGrad", aggregation.PCGrad),
        ):
            ours = partial(
                job.ours, folder, partial(getattr(src.balancing, method), level="features")
            )
            one, two, times = ratio(ours, partial(torchjd, job, theirs()), max(1, rounds // 3))
            lines.append(
                f"| {tasks} tasks, {method} | {two:.1f} | {one:.2f} | {times:.1f} | {goal} |"
            )
    return lines


def solvers_table() -> list[str]:
    """What the T numbers cost: median milliseconds of a call, over conflicting gradient sets."""
    lines = ["| a balancer alone, ms | 8 tasks | 32 tasks |", "|---|---|---|"]
    kinds = [
        k for k in vars(src.balancing).values() if isinstance(k, type) and issubclass(k, Balancer)
    ]
    for kind in sorted(kinds, key=lambda kind: kind.__name__):
        if not issubclass(kind, GramianBalancer) or kind is GramianBalancer:
            continue
        level: Any = kind.levels[0]
        cells = []
        for tasks in (8, 32):
            balancer: CpuBalancer = kind({f"t{i}": "gaussian" for i in range(tasks)}, level=level)
            balancer.prepare(1)
            if isinstance(balancer, src.balancing.MoCo):
                balancer.steps += 1
            losses = TaskLosses(
                torch.ones(tasks), torch.ones(tasks), torch.ones(tasks, dtype=torch.bool), 7
            )
            times = []
            for seed in range(20):
                J = np.random.default_rng(seed).normal(size=(tasks, 400))
                J -= J.mean(0) * (seed % 3) / 2
                gram = torch.from_numpy(J @ J.T)
                times.append(
                    min(timeit.repeat(partial(balancer, losses, gram), number=3, repeat=3))
                    / 3
                    * 1e3
                )
            cells.append(f"{statistics.median(times):.2f}")
        lines.append(f"| {kind.__name__} | {' | '.join(cells)} |")
    return [*lines, "| goal | 2 | 15 |"]


def crowds_table() -> list[str]:
    """UPGrad alone where many gradients are dependent, beside TorchJD's on the same Gramian."""
    lines = [
        "| UPGrad alone | tasks | its ms | our ms | times as fast | goal, ms |",
        "|---|---|---|---|---|---|",
    ]
    theirs = aggregation.UPGrad().gramian_weighting
    for tasks, goal in ((64, 20), (128, 60)):
        for kind in ("duplicates in conflict", "opposite", "some of each", "of low rank"):
            J = crowd(kind, tasks)
            gram = torch.from_numpy(J @ J.T)
            its = timeit.timeit(partial(theirs, gram), number=1)
            ours = min(timeit.repeat(partial(project_each, J @ J.T), number=1, repeat=5))
            lines.append(
                f"| {kind} | {tasks} | {its * 1e3:.0f} | {ours * 1e3:.1f} | {its / ours:.0f} "
                f"| {goal} |"
            )
    return lines


def table(quick: bool) -> str:
    """All comparisons as Markdown tables."""
    rounds = 1 if quick else 4
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = [
            features_table(folder, rounds),
            parameters_table(folder, rounds),
            torchjd_table(folder, rounds),
        ]
        parts += [solvers_table(), crowds_table()]
    return "\n\n".join("\n".join(lines) for lines in parts)
