"""Fits that are kept as files, so that the same command goes on where it has stopped."""

from pathlib import Path
from typing import cast

from src.analysis.few_shot import Fit
from src.errors import UserError
from src.files.atomic import write_atomically
from src.files.typed import read_json, to_json


class Fits:
    """The fits of one adaptation, a file each.

    Args:
        folder: Their folder, whose name is the hash of all settings that their numbers depend on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, method: str, shots: int, draw: int) -> Fit | None:
        """Returns a fit that is kept; None where it is not, or its file is damaged."""
        path = self._name(method, shots, draw)
        if not path.is_file():
            return None
        try:
            return cast(Fit, read_json(path, Fit))
        except UserError:
            # it is made anew
            return None

    def keep(self, fit: Fit) -> None:
        """Writes a fit down."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._name(fit["method"], fit["shots"], fit["draw"])
        write_atomically(path, lambda file: file.write(to_json(dict(fit))))

    def _name(self, method: str, shots: int, draw: int) -> Path:
        return self.folder / f"{method}-{shots}-{draw}.json"
