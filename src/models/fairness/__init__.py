"""Fairness in training: ways to treat groups of people alike, beside any balancer."""

from src.models.fairness.base import Fairness
from src.models.fairness.demographic_parity import DemographicParity
from src.models.fairness.equalized_odds import EqualizedOdds
from src.models.fairness.group_dro import GroupDRO
from src.models.fairness.group_objectives import GroupObjectives
from src.models.fairness.reweighting import Reweighting

__all__ = [
    "DemographicParity",
    "EqualizedOdds",
    "Fairness",
    "GroupDRO",
    "GroupObjectives",
    "Reweighting",
]
