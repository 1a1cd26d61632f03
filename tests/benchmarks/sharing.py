"""Stacked encoders against a loop over them, and whole steps of sharing architectures.

CPU time on one thread, in turn, many rounds; the median ratio counts.
"""

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

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
from src.models.sharing.gates import mix
from src.models.sharing.stacked_encoders import StackedEncoders
from src.models.sharing.stacked_layers import StackedLinear, StackedNorm
from tests.benchmarks.balancing import ratio
from tests.benchmarks.step import Job, PlainMLP

EXPERTS = 8
TASKS = 4
ROWS = 256

Network = tuple[Callable[[Tensor], Any], list[Tensor]]  # a forward pass, and its parameters


def build_loop(make: Callable[[], Encoder]) -> Network:
    """Builds encoders that run one after the other."""
    encoders = [make() for _ in range(EXPERTS)]

    def forward(x: Tensor) -> Tensor:
        return torch.stack([encoder(x) for encoder in encoders])

    return forward, [p for encoder in encoders for p in encoder.parameters()]


def build_stacked(
    make: Callable[[], Encoder], wide: Sequence[type[nn.Module]] | None = None
) -> Network:
    """Builds stacked encoders.

    Args:
        make: Makes an encoder.
        wide: The stacked layers that run network by network; None: as they choose.
    """
    encoders = StackedEncoders(make, EXPERTS)
    for module in encoders.modules() if wide is not None else ():
        if isinstance(module, StackedLinear | StackedNorm):
            one_by_one = type(module) in wide  # type: ignore[operator]
            module.is_wide = lambda x, one_by_one=one_by_one: one_by_one  # type: ignore[method-assign,misc]
    return encoders, list(encoders.parameters())


def build_vmap(make: Callable[[], Encoder]) -> Network:
    """Builds encoders under torch.func: their parameters stacked, one of them under vmap."""
    encoders = [make() for _ in range(EXPERTS)]
    parameters, buffers = stack_module_state(encoders)
    one = copy.deepcopy(encoders[0])

    def forward_one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        output: Tensor = functional_call(one, (parameters, buffers), (x,))
        return output

    run = vmap(forward_one, in_dims=(0, 0, None))
    return partial(run, parameters, buffers), list(parameters.values())


def time_steps(network: Network, x: Tensor, gates: Tensor, count: int) -> float:
    """CPU seconds of a forward pass, a mixture for each task, a backward pass and AdamW."""
    forward, parameters = network
    optimizer = torch.optim.AdamW(parameters, fused=True)
    start = time.process_time()
    for _ in range(count):
        optimizer.zero_grad()
        z = mix(gates, forward(x))
        assert isinstance(z, Tensor)
        z.square().sum().backward()
        optimizer.step()
    return (time.process_time() - start) / count


VARIANTS: dict[str, Callable[[Callable[[], Encoder]], Network]] = {
    "loop": build_loop,
    "stacked": build_stacked,
    "all layers batched": partial(build_stacked, wide=()),
    "linear layers batched": partial(build_stacked, wide=(StackedNorm,)),
    "no layer batched": partial(build_stacked, wide=(StackedLinear, StackedNorm)),
    "vmap": build_vmap,
}


def stacked_table(rounds: int) -> list[str]:
    """Eight experts and four tasks at batch 256."""
    names = list(VARIANTS)
    lines = [
        f"| {EXPERTS} experts, {TASKS} tasks, batch {ROWS} | a loop, ms | "
        + " | ".join(f"{name}, times as fast" for name in names[1:])
        + " | goal |",
        "|---" * (len(names) + 2) + "|",
    ]
    jobs: dict[str, tuple[type[Encoder], InputShape, int]] = {
        f"MLP, width {width}": (MLP, InputShape((64,)), width) for width in (8, 64, 256, 512)
    }
    jobs["conv net, width 8 (stays a loop)"] = ConvNet, InputShape((3, 8, 8)), 8
    goals = {"MLP, width 8": "2", "MLP, width 256": "1"}
    for name, (kind, shape, width) in jobs.items():
        make = partial(kind, shape, width=width)  # type: ignore[call-arg]
        x = shape.example(ROWS)
        assert isinstance(x, Tensor)
        gates = torch.randn(ROWS, TASKS, EXPERTS).softmax(-1)

        networks = {}
        for variant, build in VARIANTS.items():
            torch.manual_seed(0)
            networks[variant] = build(make)
        expected = networks["loop"][0](x)
        for forward, _ in networks.values():
            torch.testing.assert_close(forward(x), expected, rtol=1e-5, atol=1e-6)

        # the order turns round in each round; the first one warms up
        seconds: dict[str, list[float]] = {variant: [] for variant in names}
        count = 2 if kind is ConvNet else max(2, 400 // width)
        for number in range(rounds + 1):
            for variant in names if number % 2 else reversed(names):
                taken = time_steps(networks[variant], x, gates, count)
                if number:
                    seconds[variant].append(taken)

        cells = [f"{statistics.median(seconds['loop']) * 1e3:.2f}"]
        for variant in names[1:]:
            pairs = zip(seconds["loop"], seconds[variant], strict=True)
            cells.append(f"{statistics.median(loop / ours for loop, ours in pairs):.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} | {goals.get(name, '-')} |")
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
        parts = [stacked_table(4 * rounds), architectures_table(Path(name), rounds)]
    return "\n\n".join("\n".join(lines) for lines in parts)
