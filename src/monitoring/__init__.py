"""What a person watches."""

from src.monitoring.checkpoints import LastCheckpoint, best_checkpoint
from src.monitoring.dashboard import Dashboard, log_hparams
from src.monitoring.figures import Figures
from src.monitoring.guards import FiniteLossGuard, NonFiniteLoss, RanksAgreeGuard, RanksDiverged
from src.monitoring.interrupt import Interrupt, Interrupted
from src.monitoring.progress import Progress
from src.monitoring.table import results_table
from src.monitoring.watch import Watch

__all__ = [
    "Dashboard",
    "Figures",
    "FiniteLossGuard",
    "Interrupt",
    "Interrupted",
    "LastCheckpoint",
    "NonFiniteLoss",
    "Progress",
    "RanksAgreeGuard",
    "RanksDiverged",
    "Watch",
    "best_checkpoint",
    "log_hparams",
    "results_table",
]
