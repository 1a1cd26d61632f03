"""What a person watches."""

from src.monitoring.checkpoints import BestCheckpoint, LastCheckpoint
from src.monitoring.dashboard import Board, Dashboard
from src.monitoring.figures import Figures
from src.monitoring.geometry import Geometry
from src.monitoring.guards import FiniteLossGuard, NonFiniteLoss, RanksAgreeGuard, RanksDiverged
from src.monitoring.hparams import HParams, log_results
from src.monitoring.interrupt import Interrupt, Interrupted
from src.monitoring.profiler import NoProfiler
from src.monitoring.progress import Progress
from src.monitoring.table import results_table
from src.monitoring.watch import Watch

__all__ = [
    "BestCheckpoint",
    "Board",
    "Dashboard",
    "Figures",
    "FiniteLossGuard",
    "Geometry",
    "HParams",
    "Interrupt",
    "Interrupted",
    "LastCheckpoint",
    "NoProfiler",
    "NonFiniteLoss",
    "Progress",
    "RanksAgreeGuard",
    "RanksDiverged",
    "Watch",
    "log_results",
    "results_table",
]
