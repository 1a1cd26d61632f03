"""Affinities for a person at the terminal: tables, and the best partition in words."""

import shlex
from collections.abc import Sequence

import numpy as np
import yaml
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from src.analysis.affinities import AffinityRecord, PartitionRecord, TableRecord, read_mean
from src.monitoring.task_affinity import find_unit

TITLES = {
    "lookahead": "exact, by a step that is tried and taken back",
    "first_order": "to first order, learning rate x <gradient, gradient> / loss",
}
MOST_WITH_INTERVALS = 8  # tasks: of more, a line of the terminal would not hold them


def show_affinities(record: AffinityRecord, command: Sequence[str]) -> None:
    """Prints both tables, how they are read, and the best partition.

    Args:
        record: The affinities.
        command: The words of the command line that trains the run anew, without the partition.
    """
    tasks = record["tasks"]
    print(
        "affinities: row helps column. An entry is the share of the column's loss that a step on "
        "the row's\ntask alone takes away, in the shared parameters; below 0 the row hurts the "
        "column."
    )
    with_intervals = len(tasks) <= MOST_WITH_INTERVALS
    where = "" if with_intervals else ", which the file has"
    print(f"intervals{where}: {record['intervals']}")
    print_whole(make_table(tasks, record["lookahead"], TITLES["lookahead"], with_intervals))
    print_whole(make_table(tasks, record["first_order"], TITLES["first_order"], with_intervals))
    print(count_clear_pairs(record["lookahead"]))
    partition = record["partition"]
    if partition is not None:
        print("\n".join(describe_partition(partition, command)), flush=True)


def make_table(
    tasks: Sequence[str], affinities: TableRecord, title: str, with_intervals: bool
) -> Table:
    """Returns a table of affinities in a common power of ten."""
    mean_TT = read_mean(affinities)
    half_TT = np.array(affinities["half_width"], dtype=float)
    unit = find_unit(mean_TT)
    scale = 10.0**unit
    table = Table(title=f"{title}; in 1e{unit}", title_justify="left", box=None, padding=(0, 1))
    table.add_column("row helps column", no_wrap=True)
    for name in tasks:
        table.add_column(name, justify="right", no_wrap=True)

    for name, means, halves in zip(tasks, mean_TT / scale, half_TT / scale, strict=True):
        cells = []
        for mean, half in zip(means, halves, strict=True):
            cell = "-" if np.isnan(mean) else f"{mean:.2f}"
            if with_intervals and not np.isnan(half):
                cell += f" ± {half:.2f}"
            cells.append(cell)
        table.add_row(name, *cells)
    return table


def count_clear_pairs(affinities: TableRecord) -> str:
    """Returns a line that says how many affinities between two tasks are told from 0."""
    between = ~np.eye(len(affinities["mean"]), dtype=bool)
    means = np.abs(read_mean(affinities)[between])
    halves = np.array(affinities["half_width"], dtype=float)[between]
    clear = int((means > halves).sum())
    return f"the intervals of {clear} of the {len(means)} exact affinities between tasks exclude 0"


def print_whole(table: Table) -> None:
    """Prints a table on lines as long as it needs."""
    console = Console()
    unlimited = console.options.update(max_width=10_000)
    needed = Measurement.get(console, unlimited, table).maximum
    Console(width=max(console.width, needed)).print(table, crop=False)


def describe_partition(partition: PartitionRecord, command: Sequence[str]) -> list[str]:
    """Returns lines that say which partition is best, and how to train it."""
    groups = partition["groups"]
    shown = ", ".join(f"{{{', '.join(group)}}}" for group in groups)
    how = "exact" if partition["exact"] else "found greedily, since exact takes 12 tasks or fewer"
    value = f"value {partition['value']:.3g}, of all tasks together {partition['together']:.3g}"
    networks = "network" if partition["networks"] == 1 else "networks"
    trained = shlex.join(["python", "-m", "src.train", *command, *partition["flags"]])
    return [
        f"best partition into at most {partition['networks']} {networks} ({how}): {shown}",
        f"  {value}: the sum over tasks of the mean affinity from the others of their group",
        f"train it with: {trained}",
    ]


def make_flags(groups: Sequence[Sequence[str]], level: str | None) -> list[str]:
    """Returns the flags that train groups.

    Args:
        groups: The groups.
        level: Where the balancer takes gradients. At the features it cannot, of several groups.
    """
    listed = [list(group) for group in groups]
    written = yaml.safe_dump(listed, default_flow_style=True, width=10**6, allow_unicode=True)
    flags = ["--model.sharing", "Groups", "--model.sharing.groups", written.strip()]
    if level == "features" and len(groups) > 1:
        flags += ["--model.balancer.level", "parameters"]
    return flags
