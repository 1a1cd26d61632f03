"""How tasks share: from one input to the features of each task."""

from src.models.sharing.hard import HardSharing
from src.models.sharing.separate import Separate
from src.models.sharing.sharing import EncoderFactory, Owned, Sharing

__all__ = ["EncoderFactory", "HardSharing", "Owned", "Separate", "Sharing"]
