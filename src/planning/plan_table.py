"""Prints a plan: a table of devices for --plan, and one line before a run."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import astuple

from rich.table import Table

from src.planning.communication import Traffic
from src.planning.devices import format_bytes
from src.planning.measure import REST
from src.planning.plan import Plan

COLUMNS = ("weights", "gradients", "optimizer", "activations", "total")


def format_plan(plan: Plan) -> str:
    """Describes a plan for one device in a line."""
    strategy = f", strategy {plan.strategy}" if plan.strategy else ""
    first, *others = plan.loads
    outside = "".join(
        f"; {format_bytes(load.state)} on {name}"
        for name, load in zip(plan.names, others, strict=True)
    )
    state = format_bytes(first.state)
    return f"{plan.devices}{strategy}: {state} of weights, gradients and optimizer{outside}"


def make_table(plan: Plan) -> Table:
    """Lays a plan out as a table.

    Devices that hold the same parts are one row, with the bytes of the fullest one.
    """
    groups = group_devices(plan)
    table = Table(
        title=describe_arrangement(plan),
        title_style="bold",
        title_justify="left",
        caption="\n".join(describe_step(plan, groups)),
        caption_style="",
        caption_justify="left",
        show_header=bool(plan.loads),
        box=None,
        padding=(0, 1, 0, 0),
    )
    table.add_column("device", no_wrap=True)
    table.add_column("holds", ratio=1, overflow="fold")
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)

    count = plan.devices.count
    for places in groups:
        first = places[0]
        name = format_ranges(places) if first < count else plan.names[first - count]

        # A rest without weights is no news.
        held = [part for part in plan.holds[first] if plan.sizes.get(part) or part not in REST]
        parts = describe_share(plan, places) + describe_parts(held)

        load = max((plan.loads[k] for k in places), key=lambda load: load.total)
        table.add_row(name, parts or "nothing", *map(format_bytes, (*astuple(load), load.total)))
    return table


def group_devices(plan: Plan) -> list[list[int]]:
    """Groups the places of devices that hold the same parts; a device with a name is alone."""
    count = plan.devices.count
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for k, held in enumerate(plan.holds):
        name = k if k >= count else None
        groups[name, *held].append(k)
    return list(groups.values())


# -- around the table ------------------------------------------------------------------------------
def describe_arrangement(plan: Plan) -> str:
    """Describes in a line how devices work together."""
    strategy = f"strategy {plan.strategy}" if plan.strategy else "plan"
    if plan.devices.count == 1:
        return f"{strategy}: {plan.devices}"
    return f"{strategy}, {plan.arrangement}: {plan.devices}"


def describe_step(plan: Plan, groups: list[list[int]]) -> list[str]:
    """Describes the rows of a step, what is sent in it, and whether it fits, in a few lines.

    Args:
        plan: The plan.
        groups: The places of devices that are one row, see :func:`group_devices`.
    """
    lines = [f"{plan.strategy} was chosen, {plan.why}"] if plan.why else []
    lines.append(describe_batch(plan))
    if any(plan.loads[k] != plan.loads[places[0]] for places in groups for k in places):
        lines.append("bytes: of the fullest device in each row")
    return [*lines, *describe_traffic(plan), *describe_fit(plan)]


def describe_batch(plan: Plan) -> str:
    """Describes how many rows a step takes, and each device."""
    line = f"batch: {plan.rows} rows"
    if plan.replicas > 1:
        each = -(-plan.rows // plan.replicas)
        line += f", {each} on each "
        line += "device" if plan.replicas == plan.devices.count else "replica"
    if plan.micro_batches > 1:
        line += f"; {plan.micro_batches} batches a step"
    return line


def describe_traffic(plan: Plan) -> list[str]:
    """Describes what is sent in a step."""
    if plan.traffic is None:
        return [f"{plan.strategy} decides what each device holds and sends"]
    if plan.devices.count > 1 and not plan.traffic:
        return ["sent in a step: nothing"]

    between = [describe_messages(t) for t in plan.traffic if not t.inside]
    inside = [describe_messages(t) for t in plan.traffic if t.inside]
    lines = []
    if between:
        lines.append(f"sent in a step by each process: {', '.join(between)}")
    if inside:
        lines.append(f"carried between devices in a step: {', '.join(inside)}")
    return lines


def describe_messages(traffic: Traffic) -> str:
    """Describes traffic in bytes and messages, or copies: losses 32 B (1 message)."""
    words = ("copy", "copies") if traffic.inside else ("message", "messages")
    word = words[traffic.count != 1]
    return f"{traffic.what} {format_bytes(traffic.bytes)} ({traffic.count} {word})"


def describe_fit(plan: Plan) -> list[str]:
    """Says where devices have too little memory, or where that is unknown."""
    room = plan.devices.share
    if room is None:
        return ["whether this fits is unknown, as is the memory of these devices"]
    needed = max((load.total for load in plan.loads[: plan.devices.count]), default=0.0)
    if needed <= room:
        return []
    return [
        f"this will not fit: {format_bytes(needed)} are needed, "
        f"and each device has {format_bytes(room)}"
    ]


# -- in a row --------------------------------------------------------------------------------------
def describe_share(plan: Plan, places: Sequence[int]) -> str:
    """Describes the mean share that devices hold of their parts: "about 1/4 of "; "" for all."""
    whole = sum(plan.sizes.get(part, 0.0) for part in plan.holds[places[0]])
    if not whole:
        return ""

    shares = []
    for k in places:
        held = plan.holds[k].items()
        shares.append(sum(plan.sizes.get(part, 0.0) * share for part, share in held) / whole)
    mean = sum(shares) / len(shares)
    if mean >= 0.995:
        return ""
    about = "about " if max(shares) > min(shares) else ""
    return f"{about}{format_fraction(mean)} of "


def describe_parts(held: Iterable[str]) -> str:
    """Describes parts by groups: encoder stages 0-2, 8 heads."""
    stages: dict[str, list[int]] = defaultdict(list)  # of each encoder
    heads = []
    others = []
    for part in held:
        prefix, dot, stage = part.rpartition(".stages.")
        if dot and stage.isdigit():
            stages[prefix.removeprefix("sharing.")].append(int(stage))
        elif part.startswith("heads."):
            heads.append(part.removeprefix("heads."))
        elif part in ("sharing", "heads"):
            others.append(f"the rest of {part}")
        else:
            others.append(part)

    # Encoders are named together where a device holds the same stages of each.
    encoders: dict[str, list[str]] = defaultdict(list)
    for encoder, numbers in stages.items():
        word = "stage" if len(numbers) == 1 else "stages"
        encoders[f"{word} {format_ranges(numbers)}"].append(encoder)

    words = []
    for numbers_in_words, names in encoders.items():
        subject = names[0] if len(names) == 1 else f"{len(names)} encoders"
        words.append(f"{subject} {numbers_in_words}")
    if len(heads) > 3:
        words.append(f"{len(heads)} heads")
    elif heads:
        word = "head" if len(heads) == 1 else "heads"
        words.append(f"{word} {', '.join(heads)}")
    return ", ".join([*words, *others])


def format_fraction(share: float) -> str:
    """Formats a share in short: 1/32, 28%."""
    n = round(1 / share)
    if abs(n * share - 1) < 0.01:
        return f"1/{n}"
    return f"{share:.2g}" if share < 0.01 else f"{share:.0%}"


def format_ranges(numbers: Sequence[int]) -> str:
    """Formats ascending numbers in short: 0-3, 6. Many runs show their ends: 0, 2 .. 62 (32)."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    if len(runs) > 4:
        return f"{numbers[0]}, {numbers[1]} .. {numbers[-1]} ({len(numbers)})"
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
