"""A call of ``python -m src.audit`` on a run, as each part of the audit is given it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.cli.loaded_run import LoadedRun
from src.data import Split


@dataclass(frozen=True)
class AuditCall:
    """A call of the command on a run.

    Attributes:
        run: The run, with its weights.
        config: The configuration, with the command's own flags by name.
        split: The rows that are audited.
        folder: The folder of the results, which exists.
    """

    run: LoadedRun
    config: Any
    split: Split
    folder: Path
