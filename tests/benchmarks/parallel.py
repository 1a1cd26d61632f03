"""Measures the gain and the cost of two processes: steps under ddp, balancing, the start of a run.

Run it as ``python -m tests.benchmarks.parallel`` or ``make bench-parallel``. It reports medians of
wall time, with one thread for each process; what is compared runs in turn.
"""

import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import lightning as L
import torch
import torch.distributed as dist
import torch.nn.functional as F
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import track
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from src.balancing import StaticWeights, UPGrad
from src.data import Synthetic
from src.models import MultiTaskModel
from src.models.encoders import MLP
from src.parallel import DDP
from tests.benchmarks import machine, write
from tests.launching import finish, launch, start
from tests.toy import At, bare_trainer

HAND = "by hand"
FIRST = 5  # steps before the clock starts
STEPS = 30  # all steps
BATCH = 4096
SETTINGS: dict[str, Any] = {
    "encoder": partial(MLP, width=384, depth=2),
    "optimizer": partial(SGD, lr=1e-3),
    "scheduler": None,
}
BALANCERS: dict[str, Any] = {"static": StaticWeights, "UPGrad": partial(UPGrad, level="features")}


class Clock(L.Callback):
    """Measures seconds per step, without the first ones."""

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last
        self.seconds = 0.0

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == self.first:
            self.seconds = -time.perf_counter()
        if trainer.global_step == self.last:
            self.seconds = (self.seconds + time.perf_counter()) / (self.last - self.first)


def make_data() -> Synthetic:
    """Makes rows for a network that spends its time on matrix products."""
    return Synthetic(rows=BATCH * 4, tasks=4, features=64, batch_size=BATCH)


def time_step(balancer: Any, devices: int, steps: int) -> float:
    """Trains 4 tasks with 0.6 M parameters, and returns the seconds of a step."""
    data = make_data()
    clock = Clock(FIRST, steps)
    trainer = bare_trainer(
        devices,
        10_000,
        strategy=DDP() if devices > 1 else "auto",
        callbacks=[clock],
        max_steps=steps,
    )
    trainer.fit(MultiTaskModel(data.tasks, data.input_shape, balancer=balancer, **SETTINGS), data)
    return clock.seconds


class Losses(nn.Module):
    """The same network as in a tutorial: it returns the sum of the tasks' mean squared errors."""

    def __init__(self, data: Synthetic) -> None:
        super().__init__()
        self.encoder = SETTINGS["encoder"](data.input_shape)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(self.encoder.features, 1) for name in data.tasks}
        )

    def forward(self, x: Tensor, targets: dict[str, Tensor]) -> Tensor:
        z = self.encoder(x)
        return torch.stack(
            [F.mse_loss(head(z)[:, 0], targets[name]) for name, head in self.heads.items()]
        ).sum()


def time_step_by_hand(devices: int, steps: int) -> float:
    """Times a step of a tutorial's loop, on this process's share of each batch."""
    data = make_data()
    rows = data.split("train")
    few = BATCH // devices
    model: nn.Module = Losses(data)
    if devices > 1:
        model = DistributedDataParallel(model)
    optimizer = SETTINGS["optimizer"](model.parameters())
    began = 0.0
    for step in range(steps):
        if step == FIRST:
            began = time.perf_counter()
        batch = rows[torch.randint(len(rows), (few,))]
        loss = model(batch.inputs, batch.targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - began) / (steps - FIRST)


def run_job(out: Path, devices: int, rounds: int) -> None:
    """Times each balancer in turn, and the loop by hand, in a process that torchrun has started."""
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {name: [] for name in (*BALANCERS, HAND)}
    for _ in range(rounds):
        for name, kind in BALANCERS.items():
            found[name].append(time_step(kind, devices, STEPS))
        found[HAND].append(time_step_by_hand(devices, STEPS))
    if not dist.is_initialized() or dist.get_rank() == 0:
        torch.save(found, out)


def compare_steps(folder: Path, rounds: int) -> list[str]:
    """Compares the steps of one process and of two; returns the lines of a table."""
    kept: dict[int, list[dict[str, list[float]]]] = {1: [], 2: []}
    for _ in track(range(rounds), description="throughput", console=Console(stderr=True)):
        for devices in kept:
            words = ("-m", "tests.benchmarks.parallel", "job", folder / "out.pt", devices, 3)
            launch(
                "torch.distributed.run", "--nproc_per_node", devices, "--master_port", 29590, *words
            )
            kept[devices].append(torch.load(folder / "out.pt", weights_only=True))
    times = {
        (name, devices): [t for r in kept[devices] for t in r[name]]
        for name in (*BALANCERS, HAND)
        for devices in kept
    }
    ms = {key: f"{1e3 * statistics.median(each):.1f}" for key, each in times.items()}

    def ratio(first: tuple[str, int], second: tuple[str, int]) -> str:
        pairs = zip(times[first], times[second], strict=True)
        return f"{statistics.median(a / b for a, b in pairs):.2f}"

    def line(what: str, first: tuple[str, int], second: tuple[str, int], goal: str) -> str:
        return f"| {what} | {ms[first]} | {ms[second]} | {ratio(first, second)} | {goal} |"

    return [
        "| MLP, 4 tasks, 0.6 M parameters, batch 4096 | ms a step | | ratio | goal |",
        "|---|---|---|---|---|",
        line("one process, then ddp x 2: times as fast", ("static", 1), ("static", 2), "1.8"),
        line("the same of a loop by hand with torch's DDP", (HAND, 1), (HAND, 2), ""),
        line("ddp x 2: by hand, then ours", (HAND, 2), ("static", 2), ""),
        line(
            "ddp x 2: UPGrad at features level, then static weights",
            ("UPGrad", 2),
            ("static", 2),
            "1.03",
        ),
    ]


def time_first_step(folder: Path, devices: int) -> float:
    """Returns the seconds from the command to the end of the first step."""
    marker = folder / "marker"
    marker.unlink(missing_ok=True)
    toy = (
        "--data",
        "tests.toy.Toy",
        "--max_epochs",
        1,
        "--model.encoder.width",
        16,
        "--logs",
        folder,
        "--devices",
        devices,
    )
    key = "--trainer.callbacks"
    began = time.time()
    process = start(
        "src.train", *toy, key, f"{__spec__.name}.Mark", f"{key}.step", 1, f"{key}.marker", marker
    )
    done = finish(process)
    assert done.returncode == 0, done.stderr
    return marker.stat().st_mtime - began


class Mark(At):
    """Leaves a file behind when the first step ends."""

    def act(self, module: L.LightningModule) -> None:
        pass


def compare_starts(folder: Path, rounds: int) -> list[str]:
    """Compares the start of one process and of two; returns the lines of a table."""
    turns = track(range(rounds), description="start", console=Console(stderr=True))
    found = [(time_first_step(folder, 1), time_first_step(folder, 2)) for _ in turns]
    one, two = (statistics.median(times) for times in zip(*found, strict=True))
    ratio = statistics.median(b / a for a, b in found)
    return [
        "| from the command to the end of the first step | one process, s | ddp x 2, s | ratio "
        "| goal |",
        "|---|---|---|---|---|",
        f"| `python -m src.train --devices 2` | {one:.2f} | {two:.2f} | {ratio:.2f} | 1.6 |",
    ]


def main() -> None:
    """Measures, prints and writes the tables."""
    with tempfile.TemporaryDirectory() as name:
        parts = [compare_starts(Path(name), 5), compare_steps(Path(name), 3)]
    text = "\n\n".join([f"## {machine()}", *("\n".join(lines) for lines in parts)])
    Console().print(Markdown(text))
    write("bench-parallel", text)


if __name__ == "__main__":
    if sys.argv[1:2] == ["job"]:
        run_job(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
