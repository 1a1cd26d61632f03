"""The plan of a run, known before it trains: what each device holds, and what it sends."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast, runtime_checkable

import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy

from src.planning.communication import Traffic, estimate_ddp
from src.planning.devices import Devices
from src.planning.memory import Footprint, Load
from src.runner import ShardableModel

S = TypeVar("S", bound=Strategy)


@runtime_checkable
class PlannableStrategy(Protocol):
    """A strategy that can say what it will do, on devices that need not be here."""

    @property
    def replicas(self) -> int:
        """The number of shares into which the global batch is cut."""

    def arrangement(self, devices: int) -> str:
        """Describes in words how this number of devices, over all nodes, work together."""

    def holds(self, model: ShardableModel, devices: int) -> list[dict[str, float]]:
        """Returns for each device {part: share of its weights there}."""

    def traffic(self, model: ShardableModel, devices: int) -> list[Traffic]:
        """Estimates what a device sends for a batch, besides sums over the global batch."""

    def elsewhere(self, model: ShardableModel, devices: int) -> dict[str, dict[str, float]]:
        """Returns {name of a device outside the Trainer's: {part: copies of it there}}."""


class OfflineStrategy(Protocol):
    """The settings of a strategy that the Trainer would fill in.

    Attributes:
        parallel_devices: The devices of a node.
        num_nodes: Machines.
        starts: Whether it will run, so that its devices must be here.
        precision_plugin: How it computes.
    """

    parallel_devices: list[torch.device] | None
    num_nodes: int
    starts: bool
    precision_plugin: object


@dataclass(frozen=True)
class Plan:
    """A run on its devices, in numbers.

    Attributes:
        strategy: The strategy's name; empty where one device needs none.
        devices: Where the run will be.
        arrangement: How the devices work together, in words.
        replicas: Into how many shares the global batch is cut.
        holds: For each device {part: share of its weights there}. Devices outside the Trainer's
            come last. Empty where the strategy does not say.
        loads: The bytes of each of these devices.
        names: The names of the devices outside the Trainer's.
        traffic: Messages of a device in a step; None where the strategy does not say.
        rows: Rows of a global batch.
        micro_batches: Global batches per step.
        sizes: {part: bytes of its weights}.
        why: Why this strategy was chosen, where it was chosen automatically.
    """

    strategy: str
    devices: Devices
    arrangement: str
    replicas: int
    holds: list[dict[str, float]]
    loads: list[Load]
    names: list[str]
    traffic: list[Traffic] | None
    rows: int
    micro_batches: int
    sizes: dict[str, float]
    why: str = ""


def make_plan(
    model: ShardableModel,
    strategy: Strategy | None,
    devices: Devices,
    footprint_of: Callable[[int], Footprint],
    rows: int,
    micro_batches: int = 1,
    batch_sums: Callable[[bool], list[Traffic]] = lambda sharded: [],
    why: str = "",
) -> Plan:
    """Makes the plan of a run.

    Args:
        model: The model, built, on the CPU.
        strategy: How devices work together, see :func:`configure_offline`; None for one device.
        devices: Where the run will be.
        footprint_of: Returns the footprint of the model for a number of rows.
        rows: Rows of a global batch.
        micro_batches: Global batches per step.
        batch_sums: Lists the sums over replicas that each batch takes, given whether parameters
            are sharded.
        why: Why this strategy was chosen, to be read after its name.
    """
    count = devices.count
    replicas = strategy.replicas if isinstance(strategy, PlannableStrategy) else count
    rows_each = -(-rows // replicas)  # of the fullest replica
    footprint = footprint_of(rows_each)

    traffic: list[Traffic] | None
    outside: dict[str, dict[str, float]] = {}
    if isinstance(strategy, PlannableStrategy):
        outside = strategy.elsewhere(model, count)
        arrangement = strategy.arrangement(count)
        holds = strategy.holds(model, count)
        traffic = strategy.traffic(model, count)
    elif count == 1 or type(strategy) is DDPStrategy:  # Lightning's own
        arrangement = f"data {count}"
        holds = [dict.fromkeys(footprint.costs, 1.0)] * count
        traffic = estimate_ddp(model.parameters()) if count > 1 else []
    else:  # another strategy of Lightning, which does not say
        arrangement = f"{count} devices"
        holds = []
        traffic = None

    if traffic is not None:
        # Balancers sum other numbers where parameters are sharded.
        sharded = any(0 < share < 1 for held in holds[:1] for share in held.values())
        sums = batch_sums(sharded) if replicas > 1 else []
        traffic = [scale_traffic(t, rows_each, micro_batches) for t in traffic]
        traffic += [t.times(micro_batches) for t in sums]

    holds = [*holds, *outside.values()]

    return Plan(
        strategy=name_strategy(strategy),
        devices=devices,
        arrangement=arrangement,
        replicas=replicas,
        holds=holds,
        loads=compute_loads(footprint, holds),
        names=list(outside),
        traffic=traffic,
        rows=rows,
        micro_batches=micro_batches,
        sizes={part: float(cost.parameters) for part, cost in footprint.costs.items()},
        why=why,
    )


def compute_loads(footprint: Footprint, holds: list[dict[str, float]]) -> list[Load]:
    """Returns the load of each device, given the parts that each one holds."""
    named = {part for held in holds for part in held}
    # A part that no device names, such as what runs between stages, is on all of them.
    everywhere = {part: 1.0 for part in footprint.costs if part not in named}

    # Thousands of devices often hold the same: each load is computed once.
    loads: dict[tuple[tuple[str, float], ...], Load] = {}
    for held in holds:
        key = tuple(held.items())
        if key not in loads:
            loads[key] = footprint.load(everywhere | held)
    return [loads[tuple(held.items())] for held in holds]


def scale_traffic(traffic: Traffic, rows: int, micro_batches: int) -> Traffic:
    """Returns the traffic of a whole step, from the traffic of a batch.

    Messages whose size depends on rows go with each batch. The others, gradients, wait for the last
    batch of a step.
    """
    return traffic.of(rows).times(micro_batches) if traffic.each_row else traffic


def configure_offline(strategy: S, devices: Devices, precision: str) -> S:
    """Sets what the Trainer would set on a strategy, which will never start, and returns it.

    Args:
        strategy: The strategy.
        devices: Where the run would be.
        precision: The Trainer's precision.
    """
    settings = cast(OfflineStrategy, strategy)
    kind = "cuda" if devices.kind == "gpu" else "cpu"
    settings.parallel_devices = [torch.device(kind, k) for k in range(devices.per_node)]
    settings.num_nodes = devices.nodes
    settings.starts = False
    # GPUs may not be here, and the model that is measured lies on the CPU.
    if precision == "bf16-mixed":
        settings.precision_plugin = MixedPrecision("bf16-mixed", "cpu")
    elif precision == "16-mixed":
        settings.precision_plugin = MixedPrecision("16-mixed", "cpu")
    return strategy


def name_strategy(strategy: Strategy | None) -> str:
    """Returns a strategy's name on the command line; empty where one device needs none."""
    if strategy is None or type(strategy) is SingleDeviceStrategy:
        return ""
    return str(getattr(strategy, "strategy_name", type(strategy).__name__))
