"""The devices of a run, which need not be here."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from src.errors import UserError
from src.launch.topology import devices_per_node


@dataclass(frozen=True)
class Devices:
    """As many on each node.

    Attributes:
        per_node: Processes on CPUs, or GPUs.
        nodes: Machines.
        kind: cpu, gpu ...
        name: What it is sold as; empty where nobody knows.
        memory: Bytes of one GPU, or of a node's main memory, which its processes share; None where
            nobody knows.
    """

    per_node: int
    nodes: int = 1
    kind: str = "cpu"
    name: str = ""
    memory: int | None = None

    @property
    def count(self) -> int:
        """Over all nodes."""
        return self.per_node * self.nodes

    @property
    def share(self) -> float | None:
        """Bytes that each may take."""
        return (
            self.memory / self.per_node
            if self.memory is not None and self.kind == "cpu"
            else self.memory
        )

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Devices":
        """Those that the Trainer's settings, as :func:`topology` left them, ask for.

        Raises:
            UserError: They ask for all GPUs of a machine that has none, or for no node.
        """
        there = torch.cuda.device_count()
        asked = str(settings["accelerator"])
        kind = (
            "gpu"
            if asked in ("gpu", "cuda") or (asked == "auto" and there)
            else "cpu"
            if asked == "auto"
            else asked
        )
        per_node, nodes = devices_per_node(settings), int(settings["num_nodes"])
        if nodes < 1:
            raise UserError(f"--num_nodes is {nodes}; it must be at least 1")
        if per_node < 1:
            raise UserError(
                f"--devices is {settings['devices']}, but this machine has no GPU to count: give a number"
            )
        forks = re.search(
            "fork|notebook", str(settings.get("strategy"))
        )  # a process that has looked at a GPU cannot be forked
        if kind == "gpu" and there and not forks:
            about = torch.cuda.get_device_properties(0)
            return cls(per_node, nodes, kind, about.name, about.total_memory)
        return cls(per_node, nodes, kind, memory=main_memory() if kind == "cpu" else None)

    def __str__(self) -> str:
        """In words: 4 x CPU (16.3 GB together), 2 x 8 x GPU (NVIDIA H100, 85 GB each)."""
        counts = (
            [n for n in (self.nodes, self.per_node) if n > 1]
            if self.nodes == 1
            else [self.nodes, self.per_node]
        )
        known = [self.name] if self.name else []
        if self.memory is not None:
            known.append(
                size(self.memory)
                + ("" if self.per_node == 1 else " together" if self.kind == "cpu" else " each")
            )
        return " x ".join([*map(str, counts), self.kind.upper()]) + (
            f" ({', '.join(known)})" if known else ""
        )


def main_memory(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int | None:
    """Bytes that this machine has, or that its container may use; None where it does not say.

    Args:
        limit: Where a container's is written.
    """
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        return min(there, int(limit.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        return there


def size(count: float) -> str:
    """Bytes in three digits: 12.3 kB, 4.56 MB."""
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * factor:
            value = count / factor
            return f"{value:.0f} {letter}B" if value >= 99.95 else f"{value:.3g} {letter}B"
    return f"{count:.0f} B"
