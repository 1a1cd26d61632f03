"""Balancing methods: how T task losses become one step."""

from src.balancing.alignedmtl import AlignedMTL
from src.balancing.autolambda import AutoLambda
from src.balancing.autoscale import AutoScale
from src.balancing.balancer import Balancer, LossBalancer, TaskLosses
from src.balancing.cagrad import CAGrad
from src.balancing.conflictfree import ConFIG
from src.balancing.cosmos import COSMOS
from src.balancing.dualbalance import DualBalance
from src.balancing.dualproj import DualProj
from src.balancing.dwa import DynamicWeightAverage
from src.balancing.excess import ExcessMTL
from src.balancing.famo import FAMO
from src.balancing.geometric import GeometricMean, LogSum
from src.balancing.graddrop import GradDrop
from src.balancing.gradients import (
    Coordinates,
    CpuBalancer,
    GradientBalancer,
    GramianBalancer,
    Problem,
)
from src.balancing.gradnorm import GradNorm
from src.balancing.gradvac import GradVac
from src.balancing.imtl import ImpartialGradients, ImpartialLoss
from src.balancing.mgda import MGDA
from src.balancing.moco import MoCo
from src.balancing.nash import FairGrad, NashMTL
from src.balancing.pcd import PCD
from src.balancing.pcgrad import PCGrad
from src.balancing.random import RandomWeights
from src.balancing.sdmgrad import SDMGrad
from src.balancing.static import StaticWeights
from src.balancing.tchebycheff import SmoothTchebycheff
from src.balancing.uncertainty import UncertaintyWeights
from src.balancing.upgrad import UPGrad
from src.balancing.uwso import UWSO

__all__ = [
    "COSMOS",
    "FAMO",
    "MGDA",
    "PCD",
    "UWSO",
    "AlignedMTL",
    "AutoLambda",
    "AutoScale",
    "Balancer",
    "CAGrad",
    "ConFIG",
    "Coordinates",
    "CpuBalancer",
    "DualBalance",
    "DualProj",
    "DynamicWeightAverage",
    "ExcessMTL",
    "FairGrad",
    "GeometricMean",
    "GradDrop",
    "GradNorm",
    "GradVac",
    "GradientBalancer",
    "GramianBalancer",
    "ImpartialGradients",
    "ImpartialLoss",
    "LogSum",
    "LossBalancer",
    "MoCo",
    "NashMTL",
    "PCGrad",
    "Problem",
    "RandomWeights",
    "SDMGrad",
    "SmoothTchebycheff",
    "StaticWeights",
    "TaskLosses",
    "UPGrad",
    "UncertaintyWeights",
]
