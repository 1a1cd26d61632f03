"""Where it runs."""

from src.parallel.checks import Checks
from src.parallel.ddp import DDP
from src.parallel.topology import several_devices, topology

__all__ = ["DDP", "Checks", "several_devices", "topology"]
