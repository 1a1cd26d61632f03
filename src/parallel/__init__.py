"""Strategies: how several devices train one model."""

from src.parallel.ddp import DDP
from src.parallel.ddp_placement import DDPPlacement
from src.parallel.fsdp import FSDP
from src.parallel.pipeline import Pipeline
from src.parallel.placement import Placement
from src.parallel.strategy import MultiTaskStrategy

__all__ = ["DDP", "FSDP", "DDPPlacement", "MultiTaskStrategy", "Pipeline", "Placement"]
