"""What learns."""

from src.models.module import MultiTaskModel
from src.models.schedule import WarmupCosine

__all__ = ["MultiTaskModel", "WarmupCosine"]
