"""Callbacks and tables that a person watches a run by."""

from src.monitoring.budget import Budget, Limits, has_limit
from src.monitoring.checkpoints import BestCheckpoint, LastCheckpoint
from src.monitoring.conflicts import GradientConflicts
from src.monitoring.dashboard import Board, Dashboard
from src.monitoring.ending import describe_weights, explain_end
from src.monitoring.figures import Figures
from src.monitoring.guards import FiniteLossGuard, NonFiniteLoss, RanksAgreeGuard, RanksDiverged
from src.monitoring.hparams import HParams, log_results
from src.monitoring.interrupt import Interrupt, Interrupted
from src.monitoring.learning_rate import LearningRate
from src.monitoring.progress import Progress
from src.monitoring.say import say
from src.monitoring.selection import Selection
from src.monitoring.table import tabulate_results
from src.monitoring.task_affinity import TaskAffinity, draw_affinities
from src.monitoring.watch import Watch

__all__ = [
    "BestCheckpoint",
    "Board",
    "Budget",
    "Dashboard",
    "Figures",
    "FiniteLossGuard",
    "GradientConflicts",
    "HParams",
    "Interrupt",
    "Interrupted",
    "LastCheckpoint",
    "LearningRate",
    "Limits",
    "NonFiniteLoss",
    "Progress",
    "RanksAgreeGuard",
    "RanksDiverged",
    "Selection",
    "TaskAffinity",
    "Watch",
    "describe_weights",
    "draw_affinities",
    "explain_end",
    "has_limit",
    "log_results",
    "say",
    "tabulate_results",
]
