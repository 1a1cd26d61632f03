"""Where it runs."""

from src.parallel.checks import Checks
from src.parallel.ddp import DDP
from src.parallel.ddp_placement import DDPPlacement
from src.parallel.fsdp import FSDP
from src.parallel.job import job, started_again
from src.parallel.network import choose_interface, meet_anew
from src.parallel.pipeline import Pipeline
from src.parallel.placement import Placement
from src.parallel.topology import main_address, topology

__all__ = [
    "DDP",
    "FSDP",
    "Checks",
    "DDPPlacement",
    "Pipeline",
    "Placement",
    "choose_interface",
    "job",
    "main_address",
    "meet_anew",
    "started_again",
    "topology",
]
