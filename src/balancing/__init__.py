"""How T task losses become one step."""

from src.balancing.balancer import Balancer, LossBalancer, TaskLosses
from src.balancing.static import StaticWeights

__all__ = ["Balancer", "LossBalancer", "StaticWeights", "TaskLosses"]
