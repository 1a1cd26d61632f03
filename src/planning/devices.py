"""The devices of a run, which need not be here."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from src.errors import UserError
from src.launch.topology import count_devices_per_node


@dataclass(frozen=True)
class Devices:
    """The devices of a run: the same number on each node.

    Attributes:
        per_node: Number of GPUs, or of processes on CPUs.
        nodes: Number of machines.
        kind: "cpu", "gpu" or another accelerator.
        name: The product's name; empty where it is unknown.
        memory: Bytes of one GPU, or of a node's main memory, which its processes share; None where
            it is unknown.
    """

    per_node: int
    nodes: int = 1
    kind: str = "cpu"
    name: str = ""
    memory: int | None = None

    @property
    def count(self) -> int:
        """Number of devices over all nodes."""
        return self.per_node * self.nodes

    @property
    def share(self) -> float | None:
        """Bytes that each device may take; None where that is unknown."""
        if self.memory is not None and self.kind == "cpu":
            return self.memory / self.per_node
        return self.memory

    @classmethod
    def from_settings(cls, settings: Mapping[str, object]) -> "Devices":
        """Makes the devices for which the Trainer's settings ask.

        Args:
            settings: The Trainer's settings, as :func:`resolve_topology` left them.

        Raises:
            UserError: They ask for all GPUs of a machine that has none, or for no node.
        """
        nodes = int(str(settings["num_nodes"]))
        if nodes < 1:
            raise UserError(f"--num_nodes is {nodes}; it must be at least 1")
        per_node = count_devices_per_node(settings)
        if per_node < 1:
            raise UserError(
                f"--devices is {settings['devices']}, but this machine has no GPU to count: "
                "give a number"
            )

        here = torch.cuda.device_count()
        kind = str(settings["accelerator"])
        if kind == "auto":
            kind = "gpu" if here else "cpu"
        elif kind == "cuda":
            kind = "gpu"

        # A process that has looked at a GPU cannot be forked.
        forks = re.search("fork|notebook", str(settings.get("strategy")))
        if kind == "gpu" and here and not forks:
            gpu = torch.cuda.get_device_properties(0)
            return cls(per_node, nodes, kind, gpu.name, gpu.total_memory)
        return cls(per_node, nodes, kind, memory=find_main_memory() if kind == "cpu" else None)

    def __str__(self) -> str:
        """Describes the devices: 4 x CPU (16.3 GB together), 2 x 8 x GPU (H100, 85 GB each)."""
        factors = []
        if self.nodes > 1:
            factors.append(str(self.nodes))
        if self.nodes > 1 or self.per_node > 1:
            factors.append(str(self.per_node))

        about = [self.name] if self.name else []
        if self.memory is not None:
            memory = format_bytes(self.memory)
            if self.per_node > 1:
                memory += " together" if self.kind == "cpu" else " each"
            about.append(memory)

        devices = " x ".join([*factors, self.kind.upper()])
        return f"{devices} ({', '.join(about)})" if about else devices


def find_main_memory(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int | None:
    """Returns the bytes that this machine has, or that its container may use; None if unknown.

    Args:
        limit: The file in which Linux keeps a container's limit.
    """
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        return min(machine, int(limit.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        return machine


def format_bytes(count: float) -> str:
    """Formats bytes in three digits: 12.3 kB, 4.56 MB."""
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        # From 999.5 on, three digits would round up to the next unit.
        if count >= 0.9995 * factor:
            value = count / factor
            return f"{value:.0f} {letter}B" if value >= 99.95 else f"{value:.3g} {letter}B"
    return f"{count:.0f} B"
