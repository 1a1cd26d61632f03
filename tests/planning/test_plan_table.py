"""Plans as a person reads them."""

from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from src.parallel import DDP, FSDP, Pipeline, Placement
from src.planning.devices import Devices, format_bytes
from src.planning.memory import (
    Footprint,
)
from src.planning.plan import make_plan
from src.planning.plan_table import (
    describe_parts,
    format_fraction,
    format_plan,
    format_ranges,
)
from tests.planning.toys import plan_of, text_of, toy


def test_table_of_copies() -> None:
    plan = plan_of(toy(), DDP(), Devices(4, memory=16 * 10**9), micro_batches=3)
    title, _, row, batch, *wrapped = text_of(plan).splitlines()
    sent = " ".join(wrapped)
    assert title == "strategy ddp, data 4: 4 x CPU (16 GB together)"
    assert "memory" not in sent
    assert row.startswith("0-3")
    assert "encoder stages 0-2, 8 heads" in row
    assert batch == "batch: 64 rows, 16 on each device; 3 batches a step"
    assert sent.startswith("sent in a step by each process: gradients ")
    assert sent.endswith("(1 message), losses 192 B (3 messages)")
    assert plan.replicas == 4


def test_table_of_shards_is_one_row() -> None:
    plan = plan_of(toy(), FSDP(), Devices(8, 8, "gpu"))
    assert (plan.replicas, len(plan.loads)) == (64, 64)
    title, _, row, *below = text_of(plan).splitlines()
    assert title == "strategy fsdp, data 64, each with 1/64 of the parameters: 8 x 8 x GPU"
    assert row.startswith("0-63")
    assert "about 1/64 of encoder" in row
    assert "bytes: of the fullest device in each row" in below
    plan = plan_of(toy(), FSDP(tensor_parallel_size=4), Devices(8, memory=10**9))
    assert text_of(plan).startswith("strategy fsdp, data 2 x tensor 4: 8 x CPU")
    assert plan.replicas == 2
    assert (
        next(t for t in plan.traffic or () if t.what == "sums within layers").bytes
        == 4 * 32 * 20 * 4
    )


@pytest.mark.parametrize(
    ("share", "text"),
    [(1 / 32, "1/32"), (0.25, "1/4"), (0.28, "28%"), (0.75, "75%"), (0.0031, "1/323")],
)
def test_fractions(share: float, text: str) -> None:
    assert format_fraction(share) == text


def test_what_will_not_fit_is_said() -> None:
    assert "this will not fit" in text_of(
        plan_of(toy(), DDP(), Devices(2, kind="gpu", memory=1000))
    )
    unknown = text_of(plan_of(toy(), DDP(), Devices(2, kind="gpu")))
    assert "will not fit" not in unknown
    assert "whether this fits is unknown, as is the memory of these devices" in unknown
    roomy = text_of(
        plan_of(toy(), Placement({"heads": "cpu"}), Devices(2, kind="gpu", memory=10**9))
    )
    assert "fit" not in roomy


def test_one_device_is_a_line() -> None:
    model = toy()
    plan = plan_of(model, None, Devices(1, memory=16 * 10**9))
    assert format_plan(plan) == "CPU (16 GB): 38.3 kB of weights, gradients and optimizer"
    assert text_of(plan).startswith("plan: CPU (16 GB)\n")
    assert plan.traffic == []
    assert plan.loads[0].state == 16 * sum(p.numel() for p in model.parameters())


def test_one_device_that_runs_by_a_strategy() -> None:
    for strategy in (DDP(), FSDP(), Pipeline(), Placement()):
        plan = plan_of(toy(), strategy, Devices(1, memory=16 * 10**9))
        start = f"CPU (16 GB), strategy {strategy.strategy_name}: 38.3 kB of weights, "
        assert format_plan(plan) == start + "gradients and optimizer"
        assert text_of(plan).startswith(f"strategy {strategy.strategy_name}: CPU (16 GB)\n")
    assert format_plan(plan_of(toy(), SingleDeviceStrategy("cpu"), Devices(1))).startswith(
        "CPU: 38.3 kB"
    )
    apart = plan_of(toy(), Placement({"heads.class": "cpu"}), Devices(1, kind="gpu"))
    assert format_plan(apart).startswith("GPU, strategy placement: 37")
    assert format_plan(apart).endswith(f"; {format_bytes(apart.loads[1].state)} on cpu")


def test_a_pipeline_in_words() -> None:
    plan = plan_of(toy(), Pipeline(), Devices(2, memory=10**9))
    assert text_of(plan).startswith(
        "strategy pipeline, stages in 2 runs, 4 slices: 2 x CPU (1 GB together)\n"
    )


class Opaque(torch.nn.Module):
    """A strategy that does not say what it will do."""

    strategy_name = "opaque"


def test_a_strategy_that_does_not_say() -> None:
    text = text_of(make_plan(toy(), Opaque(), Devices(2), lambda rows: Footprint({}, 2.0), 64))  # type: ignore[arg-type]
    assert "opaque decides what each device holds and sends" in text


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([0], "0"),
        ([0, 1, 2], "0-2"),
        ([0, 2, 3], "0, 2-3"),
        ([0, 2, 4, 6], "0, 2, 4, 6"),
        (range(0, 64, 2), "0, 2 .. 62 (32)"),
    ],
)
def test_ranges(numbers: Any, text: str) -> None:
    assert format_ranges(list(numbers)) == text


def test_parts() -> None:
    encoders = {f"sharing.encoders.{name}.stages.{k}": 1.0 for name in "abc" for k in range(2)}
    assert (
        describe_parts(encoders | {"heads.a": 1.0, "sharing": 1.0})
        == "3 encoders stages 0-1, head a, the rest of sharing"
    )
    assert describe_parts({"sharing.encoder.stages.2": 1.0}) == "encoder stage 2"
