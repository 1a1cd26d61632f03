"""How tasks share: from one input to the features of each task."""

from src.models.sharing.adapters import TaskAdapters
from src.models.sharing.aitm import AITM
from src.models.sharing.cross_stitch import CrossStitch
from src.models.sharing.dselectk import DSelectK
from src.models.sharing.groups import Groups
from src.models.sharing.hard import HardSharing
from src.models.sharing.hydra_lora import HydraLoRA
from src.models.sharing.learning_to_branch import LearningToBranch
from src.models.sharing.lora_experts import LoRAExperts
from src.models.sharing.mmoe import MMoE
from src.models.sharing.mtan import MTAN
from src.models.sharing.nddr import NDDR
from src.models.sharing.palora import PaLoRA
from src.models.sharing.ple import CGC, PLE
from src.models.sharing.separate import Separate
from src.models.sharing.sharing import EncoderFactory, Owned, Sharing, check_owners
from src.models.sharing.sluice import Sluice
from src.models.sharing.soft import SoftSharing
from src.models.sharing.stacked_encoders import StackedEncoders
from src.models.sharing.weighted import WeightedSharing

__all__ = [
    "AITM",
    "CGC",
    "MTAN",
    "NDDR",
    "PLE",
    "CrossStitch",
    "DSelectK",
    "EncoderFactory",
    "Groups",
    "HardSharing",
    "HydraLoRA",
    "LearningToBranch",
    "LoRAExperts",
    "MMoE",
    "Owned",
    "PaLoRA",
    "Separate",
    "Sharing",
    "Sluice",
    "SoftSharing",
    "StackedEncoders",
    "TaskAdapters",
    "WeightedSharing",
    "check_owners",
]
