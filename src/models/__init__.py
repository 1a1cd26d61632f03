"""The model: a shared encoder, one head per task, and the step that trains them."""

from src.models.module import MultiTaskModel
from src.models.optimisation import WarmupCosine

__all__ = ["MultiTaskModel", "WarmupCosine"]
