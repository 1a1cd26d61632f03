"""The run folder: what a run leaves behind, and how to open it again."""

from src.run.lock import Holder, Lock
from src.run.provenance import find_versions
from src.run.run import Run

__all__ = ["Holder", "Lock", "Run", "find_versions"]
