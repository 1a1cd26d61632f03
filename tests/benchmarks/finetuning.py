"""What frozen parts save: time of a step, state of the optimizer, and bytes that ddp sends.

Each row stands beside training everything, on the same model and batches. Times are CPU time, in
turn, many rounds; the median ratio counts. Bytes of ddp are those of the buckets that two processes
sum in a step.

python -m torch.distributed.run --nproc_per_node 2 -m tests.benchmarks.finetuning OUT
"""

import json
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from src.cli.entrypoint import quiet
from src.models.transfer.finetune import Finetune, LoRA
from src.parallel import DDP
from tests.benchmarks.step import Job, PlainConvNet, PlainMLP

EVERYTHING = "everything"
WAYS = {
    EVERYTHING: Finetune(),
    "heads alone": Finetune("encoder"),
    "heads and top stage": Finetune(["stages.0", "stages.1", "stages.2"]),
    "heads and biases": Finetune(bias_only=True),
    "heads and LoRA of rank 8": Finetune(lora=LoRA(8)),
}
CONV = Job(2, PlainConvNet, (3, 32, 32), 64, 10)
MLP_OF_TWO = Job(8, PlainMLP, (64,), 256, 50)
JOBS = {
    "conv net, 0.9 M parameters, batch 64, 2 tasks": (CONV, list(WAYS)),
    "MLP 64-256-256, batch 256, 8 tasks": (MLP_OF_TWO, [EVERYTHING, "heads alone"]),
}


class CountingDDP(DDP):
    """DDP that notes the bytes of all buckets that it sums.

    Attributes:
        sent: The bytes of each bucket since somebody last emptied the list.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[int] = []

    def configure_ddp(self) -> None:
        """Wraps the model, and looks at each bucket on its way."""
        super().configure_ddp()

        def count(sent: list[int], bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
            sent.append(bucket.buffer().nbytes)
            # torch's hook takes None for all processes, which its type does not say
            group: Any = None
            return allreduce_hook(group, bucket)

        assert self.model is not None
        self.model.register_comm_hook(self.sent, count)  # type: ignore[operator]


def measure_traffic() -> dict[str, dict[str, float]]:
    """Returns {job: {way: bytes that ddp sums in a step}}; both processes call this."""
    found: dict[str, dict[str, float]] = {}
    for name, (job, ways) in JOBS.items():
        found[name] = {}
        for way in ways:
            strategy = CountingDDP()
            few = Job(job.tasks, job.encoder, job.shape, job.batch, 3)
            with tempfile.TemporaryDirectory() as folder:
                few.train(Path(folder), finetune=WAYS[way], devices=2, strategy=strategy)
            found[name][way] = sum(strategy.sent) / few.steps
    return found


def launch_traffic() -> dict[str, dict[str, float]]:
    """Runs this file on two processes; returns as ``measure_traffic``."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "traffic.json"
        alone = ("--nproc_per_node", "2", "--master_port", "29777")
        what = ("-m", "tests.benchmarks.finetuning", str(out))
        command = [sys.executable, "-m", "torch.distributed.run", *alone, *what]
        subprocess.run(command, check=True, capture_output=True)
        traffic: dict[str, dict[str, float]] = json.loads(out.read_text())
    return traffic


def table(quick: bool) -> str:
    """The comparison as a Markdown table."""
    traffic = launch_traffic()
    lines = [
        "| what trains | step, ms | ratio | optimizer, kB | ratio | ddp sends, kB a step | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (job, ways) in JOBS.items():
        rounds: list[dict[str, float]] = []
        states: dict[str, int] = {}
        with tempfile.TemporaryDirectory() as folder:
            # the first round warms up
            for _ in range(2 if quick else 8):
                times = {}
                for way in ways:
                    model = job.train(Path(folder), finetune=WAYS[way])
                    times[way] = model.seconds / job.steps
                    states[way] = model.state_bytes
                rounds.append(times)
        for way in ways:
            seconds = statistics.median(times[way] for times in rounds[1:])
            ratio = statistics.median(times[way] / times[EVERYTHING] for times in rounds[1:])
            state, sent = states[way], traffic[name][way]
            lines.append(
                f"| {name}: {way} | {seconds * 1e3:.2f} | {ratio:.2f} "
                f"| {state / 1e3:,.0f} | {state / states[EVERYTHING]:.3f} "
                f"| {sent / 1e3:,.0f} | {sent / traffic[name][EVERYTHING]:.3f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    quiet()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    measured = measure_traffic()
    if dist.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(measured))
