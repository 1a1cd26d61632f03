"""What a run will be on its devices, known before it trains: what lies where, how many bytes, and what is sent in a step."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from rich.table import Table
from torch import nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from src.planning.communication import Traffic, averaged
from src.planning.devices import Devices, size
from src.planning.measure import REST, Cost, holdings


@runtime_checkable
class Arranges(Protocol):
    """A strategy that can say what it will do, on devices that need not be here."""

    def arrangement(self, devices: int) -> str:
        """How so many devices, over all nodes, work together, in words."""

    def holds(self, model: Any, devices: int) -> list[dict[str, float]]:
        """For each device {part: share of its weights that lies there}, by parts of ``measured``; a part runs where it is named."""

    def traffic(self, model: Any, devices: int) -> list[Traffic]:
        """What a device sends in a step of one batch, besides sums over the global batch."""


@runtime_checkable
class NamesDevices(Protocol):
    """A strategy that also uses devices which the Trainer was not given."""

    def elsewhere(self, model: Any, devices: int) -> dict[str, dict[str, float]]:
        """{name of a device: {part: share of its weights, or how many copies of them, that a node's processes have there}}."""


@dataclass(frozen=True)
class Load:
    """Bytes on one device."""

    parameters: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    activations: float = 0.0

    @property
    def state(self) -> float:
        """What is there between two steps, gradients included."""
        return self.parameters + self.gradients + self.optimizer

    @property
    def total(self) -> float:
        """All of it."""
        return self.state + self.activations


@dataclass(frozen=True)
class Plan:
    """A run on its devices.

    Attributes:
        strategy: What the strategy is called; empty where one device needs none.
        devices: Where it runs.
        arrangement: How they work together.
        replicas: Into how many shares the global batch is cut.
        holds: Per device the share of each part that lies there, of those that go by a name alone
            at the end; empty where the strategy does not say.
        loads: Per device its bytes; likewise.
        names: Of those at the end.
        traffic: What a device sends in a step; None where nobody knows.
        rows: Of a global batch.
        micro_batches: Global batches per step.
        sizes: {part: bytes of its weights}.
        why: This strategy, where it was chosen here.
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

    def line(self) -> str:
        """All there is to say of one device."""
        how = f", strategy {self.strategy}" if self.strategy else ""
        there = "".join(
            f"; {size(load.state)} on {name}"
            for name, load in zip(self.names, self.loads[1:], strict=True)
        )
        return f"{self.devices}{how}: {size(self.loads[0].state)} of weights, gradients and optimizer{there}"

    def table(self) -> Table:
        """All there is to say; devices that hold the same parts are one row, with the bytes of the fullest."""
        table = Table(
            title=self._title(), caption="\n".join(self._below()), box=None, padding=(0, 1, 0, 0)
        )
        table.title_justify = table.caption_justify = "left"
        table.title_style, table.caption_style, table.show_header = "bold", "", bool(self.loads)
        table.add_column("device", no_wrap=True)
        table.add_column("holds", ratio=1, overflow="fold")
        for column in ("weights", "gradients", "optimizer", "activations", "total"):
            table.add_column(column, justify="right", no_wrap=True)
        for places in self._alike():
            load = max((self.loads[k] for k in places), key=lambda load: load.total)
            something = [
                part for part in self.holds[places[0]] if self.sizes.get(part) or part not in REST
            ]
            words = self._share(places) + parts_in_words(something)
            name = (
                ranges(places)
                if places[0] < self.devices.count
                else self.names[places[0] - self.devices.count]
            )
            table.add_row(name, words or "nothing", *map(size, (*astuple(load), load.total)))
        return table

    def _alike(self) -> list[list[int]]:
        """The places of devices that hold the same parts."""
        alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for k, held in enumerate(self.holds):
            alike[(max(k - self.devices.count, -1), *held)].append(
                k
            )  # each that goes by its name is a row
        return list(alike.values())

    def _title(self) -> str:
        how = f"strategy {self.strategy}" if self.strategy else "plan"
        return (
            f"{how}, {self.arrangement}: {self.devices}"
            if self.devices.count > 1
            else f"{how}: {self.devices}"
        )

    def _share(self, places: Sequence[int]) -> str:
        """How much of what they hold each of these devices holds, in the mean."""
        whole = sum(self.sizes.get(part, 0.0) for part in self.holds[places[0]])
        mine = [
            sum(self.sizes.get(part, 0.0) * share for part, share in self.holds[k].items())
            / (whole or 1.0)
            for k in places
        ]
        share = sum(mine) / len(mine) if whole else 1.0
        return (
            f"{'about ' if max(mine) > min(mine) else ''}{fraction(share)} of "
            if share < 0.995
            else ""
        )

    def _below(self) -> list[str]:
        each = (
            ""
            if self.replicas == 1
            else f", {-(-self.rows // self.replicas)} on each "
            + ("device" if self.replicas == self.devices.count else "replica")
        )
        micro = f"; {self.micro_batches} batches a step" if self.micro_batches > 1 else ""
        lines = [f"{self.strategy} was chosen, {self.why}"] if self.why else []
        lines.append(f"batch: {self.rows} rows{each}{micro}")
        if any(self.loads[k] != self.loads[places[0]] for places in self._alike() for k in places):
            lines.append("bytes: of the fullest device in each row")
        for inside, words in (
            (False, "sent in a step by each process"),
            (True, "carried between devices in a step"),
        ):
            sent = [
                f"{t.what} {size(t.bytes)} ({counted(t)})"
                for t in self.traffic or ()
                if t.inside == inside
            ]
            lines += [f"{words}: {', '.join(sent)}"] if sent else []
        if self.devices.count > 1 and self.traffic == []:
            lines.append("sent in a step: nothing")
        if self.traffic is None:
            lines.append(f"what lies where, and what is sent, is {self.strategy}'s to decide")
        room, needed = (
            self.devices.share,
            max((load.total for load in self.loads[: self.devices.count]), default=0.0),
        )
        if room is None:
            lines.append("whether this fits is unknown, as is the memory of these devices")
        elif needed > room:
            lines.append(
                f"this will not fit: {size(needed)} are needed, and each device has {size(room)}"
            )
        return lines


def planned(
    model: Any,
    strategy: Strategy | None,
    devices: Devices,
    costs: Callable[[int], Mapping[str, Cost]],
    make_optimizer: Callable[[Iterable[Any]], Optimizer],
    rows: int,
    micro_batches: int = 1,
    sums: Callable[[bool], list[Traffic]] = lambda shards: [],
    factor: float = 1.0,
    why: str = "",
) -> Plan:
    """Makes the plan.

    Args:
        model: The model, built, on the CPU.
        strategy: How devices work together, told which (:func:`told`); None for one device.
        devices: Where the run will be.
        costs: Gives what the parts take for so many rows, as ``measured`` does.
        make_optimizer: Makes the optimizer.
        rows: Of a global batch.
        micro_batches: Global batches per step.
        sums: Gives what is summed over replicas for one batch; is told whether parameters are
            sharded.
        factor: On all bytes of the model, whose numbers the run may make longer.
        why: This strategy, where it was chosen, in words after its name.
    """
    count = devices.count
    replicas = getattr(strategy, "replicas", count)
    mine = -(-rows // replicas)
    parts = costs(mine)
    traffic: list[Traffic] | None = []
    if isinstance(strategy, Arranges):
        arrangement, holds, traffic = (
            strategy.arrangement(count),
            strategy.holds(model, count),
            strategy.traffic(model, count),
        )
    elif count == 1 or type(strategy) is DDPStrategy:  # Lightning's own
        arrangement, holds = f"data {count}", [dict.fromkeys(parts, 1.0)] * count
        traffic = averaged(model.parameters()) if count > 1 else []
    else:
        arrangement, holds, traffic = f"{count} devices", [], None
    there: dict[str, dict[str, float]] = (
        strategy.elsewhere(model, count) if isinstance(strategy, NamesDevices) else {}
    )
    if traffic is not None:
        sharded = any(0 < share < 1 for held in holds[:1] for share in held.values())
        # what is averaged waits for the last batch of a step
        traffic = [t.of(mine).times(micro_batches) if t.each_row else t for t in traffic]
        traffic += [t.times(micro_batches) for t in (sums(sharded) if replicas > 1 else [])]
    holds = [*holds, *there.values()]
    ratio, rows_of_tasks = state_ratio(make_optimizer), task_gradients(model)
    same: dict[Any, Load] = {}
    for held in holds:
        key = tuple(held.items())
        if key not in same:
            same[key] = load_of(parts, held, holds, ratio, rows_of_tasks, factor)
    return Plan(
        strategy=""
        if strategy is None or type(strategy) is SingleDeviceStrategy
        else name_of(strategy),
        devices=devices,
        arrangement=arrangement,
        replicas=replicas,
        holds=holds,
        loads=[same[tuple(held.items())] for held in holds],
        names=list(there),
        traffic=traffic,
        rows=rows,
        micro_batches=micro_batches,
        sizes={part: float(cost.parameters) for part, cost in parts.items()},
        why=why,
    )


def load_of(
    parts: Mapping[str, Cost],
    held: Mapping[str, float],
    everyone: Sequence[Mapping[str, float]],
    ratio: float,
    rows_of_tasks: Mapping[str, float],
    factor: float = 1.0,
) -> Load:
    """The bytes on one device.

    Args:
        parts: What each part takes.
        held: The share of each part that lies there; above 1, how many copies.
        everyone: The same of all devices; what none of them names, such as what runs between
            stages, is everywhere.
        ratio: Bytes of optimizer state per byte of trained weights.
        rows_of_tasks: {part: bytes of the gradients that tasks have there, one each}.
        factor: On all of them.
    """
    nowhere = {part: 1.0 for part in parts if not any(part in other for other in everyone)}
    here = nowhere | {part: share for part, share in held.items() if part in parts}
    trained = sum(parts[part].gradients * share for part, share in here.items())
    of_tasks = sum(rows_of_tasks.get(part, 0.0) * share for part, share in here.items())
    return Load(
        parameters=factor
        * sum(
            parts[p].parameters * share + parts[p].buffers * max(share, 1.0)
            for p, share in here.items()
        ),
        gradients=factor * (trained + of_tasks),
        optimizer=factor * trained * ratio,
        activations=factor
        * sum(parts[part].activations * max(share, 1.0) for part, share in here.items()),
    )


def unmeasured(model: Any) -> dict[str, Cost]:
    """What the parts hold, without what they keep for a backward pass."""
    return {part: Cost(*held, 0, 0.0) for part, held in holdings(model).items()}


def state_ratio(make_optimizer: Callable[[Iterable[Any]], Optimizer]) -> float:
    """Bytes that an optimizer keeps per byte of weights, found out on a small matrix."""
    weight = nn.Parameter(torch.zeros(64, 64))
    optimizer = make_optimizer([weight])
    with torch.enable_grad():

        def closure() -> float:
            weight.grad = torch.ones_like(weight)
            return 0.0

        closure()
        optimizer.step(closure)
    kept = [leaf for leaf in tree_leaves(dict(optimizer.state)) if isinstance(leaf, torch.Tensor)]
    # a count of steps is no matter of size
    return sum(t.numel() * t.element_size() for t in kept if t.numel() > 1) / (
        weight.numel() * weight.element_size()
    )


def task_gradients(model: Any) -> dict[str, float]:
    """{part: bytes of the gradients that all tasks have with respect to its shared weights}, where the balancer takes them."""
    if model.balancer.level != "parameters":
        return {}
    shared = {id(p): p for p in model.sharing.shared_parameters() if p.requires_grad}
    found: dict[str, float] = {}
    for part, module in [*model.parts().items(), ("sharing", model.sharing)]:
        own = [shared.pop(id(p)) for p in module.parameters() if id(p) in shared]
        found[part] = float(len(model.tasks) * sum(p.numel() * p.element_size() for p in own))
    return found


def told(strategy: Any, devices: Devices, precision: str) -> Any:
    """A strategy that will never start, told what the Trainer would tell it; returns it."""
    strategy.parallel_devices = [
        torch.device("cuda" if devices.kind == "gpu" else "cpu", k) for k in range(devices.per_node)
    ]
    strategy.num_nodes, strategy.starts = devices.nodes, False
    if precision in ("bf16-mixed", "16-mixed"):
        strategy.precision_plugin = MixedPrecision(precision, "cpu")  # type: ignore[arg-type]
    return strategy


def name_of(strategy: Any) -> str:
    """What ``--strategy`` calls it."""
    return str(getattr(strategy, "strategy_name", type(strategy).__name__))


def counted(traffic: Traffic) -> str:
    """How many messages, or copies from device to device."""
    word = "message" if not traffic.inside else "copy" if traffic.count == 1 else "copie"
    return f"{traffic.count} {word}{'s' * (traffic.count != 1)}"


def fraction(share: float) -> str:
    """A share in short: 1/32, 28%."""
    n = round(1 / share)
    return (
        f"1/{n}"
        if abs(n * share - 1) < 0.01
        else f"{share:.2g}"
        if share < 0.01
        else f"{share:.0%}"
    )


def parts_in_words(held: Iterable[str]) -> str:
    """Parts by groups: encoder stages 0-2, 8 heads."""
    stages: dict[str, list[int]] = defaultdict(list)
    heads, others = [], []
    for part in held:
        prefix, dot, stage = part.rpartition(".stages.")
        if dot and stage.isdigit():
            stages[prefix.removeprefix("sharing.")].append(int(stage))
        elif part.startswith("heads."):
            heads.append(part.removeprefix("heads."))
        else:
            others.append(
                {"sharing": "the rest of sharing", "heads": "the rest of heads"}.get(part, part)
            )
    together: dict[str, list[str]] = defaultdict(list)
    for encoder, numbers in stages.items():
        together[f"stage{'s' * (len(numbers) > 1)} {ranges(numbers)}"].append(encoder)
    words = [
        f"{names[0] if len(names) == 1 else f'{len(names)} encoders'} {what}"
        for what, names in together.items()
    ]
    if heads:
        words.append(
            f"head{'s' * (len(heads) > 1)} {', '.join(heads)}"
            if len(heads) < 4
            else f"{len(heads)} heads"
        )
    return ", ".join([*words, *others])


def ranges(numbers: Sequence[int]) -> str:
    """Numbers in order, in short: 0-3, 6; of many apart from each other the ends and how many."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    if len(runs) > 4:
        return f"{numbers[0]}, {numbers[1]} .. {numbers[-1]} ({len(numbers)})"
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
