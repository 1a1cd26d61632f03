"""Meta-learning: ways to train for tasks that have a few labelled rows each."""

from src.models.meta.anil import ANIL
from src.models.meta.base import Meta
from src.models.meta.maml import MAML
from src.models.meta.prototypes import Prototypes
from src.models.meta.reptile import Reptile

__all__ = ["ANIL", "MAML", "Meta", "Prototypes", "Reptile"]
