"""The files of a table: as the settings name them, or those of a run, known by their content."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.data.tables.record import (
    describe_difference,
    fingerprint_file,
    is_same,
    unpack_hashes,
    unpack_sides,
)
from src.errors import UserError, suggest_or_list

if TYPE_CHECKING:
    import pandas as pd

# the setting that names the file of the training, validation or test rows
ROLES = {"train": "path", "val": "val_path", "test": "test_path"}


class TableFiles:
    """Finds and reads the files of a table, each once.

    Args:
        given: {role: file} as the settings name them, with the roles train, val and test. The file
            of the role train may hold validation and test rows, too.
        read: Reads one file.
        saved: The schema of the run whose files these are to be; None for a new run.
        names_new_rows: Returns whether a command says that the first file holds other rows than
            those of the run. It is asked when the files are first needed.
        hash_inputs: Hashes the inputs of each row, as the schema encodes them: (N,) uint64.
    """

    def __init__(
        self,
        given: Mapping[str, str],
        read: Callable[[str], pd.DataFrame],
        saved: Mapping[str, Any] | None,
        names_new_rows: Callable[[], bool],
        hash_inputs: Callable[[pd.DataFrame], np.ndarray],
    ) -> None:
        self.given = given
        self.read = read
        self.saved = saved
        self.names_new_rows = names_new_rows
        self.hash_inputs = hash_inputs
        self._frames: dict[str, pd.DataFrame] = {}

    @cached_property
    def paths(self) -> dict[str, str]:
        """The file of each role: as given, or that of new rows, or those of the run.

        The content of a run's file is compared when it is read, so that prediction does not ask
        for the file of the test rows.
        """
        if self.saved is None:
            return dict(self.given)
        if self.is_new:
            return {"train": self.given["train"]}
        records = self.saved["files"]
        return {role: self.given.get(role, record["path"]) for role, record in records.items()}

    @cached_property
    def is_new(self) -> bool:
        """Whether the first file holds other rows than those of the run."""
        if self.saved is None:
            return False
        main = self.given["train"]
        record = self.saved["files"]["train"]
        is_named = self.names_new_rows() or main != record["given"]
        return is_named and not is_same(main, record)

    def frame(self, role: str = "train") -> pd.DataFrame:
        """Returns the rows of a file.

        Raises:
            UserError: It cannot be read, or lacks a column of the first file.
        """
        if role not in self._frames:
            path = self.paths[role]
            if self.saved is not None and not self.is_new:
                path = self.find(role)
            frame = self.read(path)
            if self.saved is None and role != "train":
                self._compare_columns(path, frame)
            self._frames[role] = frame
        return self._frames[role]

    def _compare_columns(self, path: str, frame: pd.DataFrame) -> None:
        """Refuses a file that lacks a column of the first one."""
        for column in self.frame().columns:
            if column not in frame.columns:
                hint = suggest_or_list(column, frame.columns)
                raise UserError(
                    f"{path}: lacks the column '{column}' of {self.paths['train']}: {hint}"
                )

    def notes(self) -> list[str]:
        """Returns what was left out or taken apart when the files were read, one line each."""
        return [note for frame in self._frames.values() for note in frame.attrs.get("notes", [])]

    @cached_property
    def records(self) -> dict[str, dict[str, Any]]:
        """The entries of the files in a run's schema."""
        records = {}
        for role, path in self.paths.items():
            frame = self.frame(role)
            size = {"rows": len(frame), "columns": [str(column) for column in frame.columns]}
            records[role] = {"given": path, **fingerprint_file(path), **size}
        return records

    def training_hashes(self) -> np.ndarray:
        """Returns the hashes of the inputs of the rows that the run was trained on."""
        assert self.saved is not None
        hashes: np.ndarray = unpack_hashes(self.saved["hashes"])
        return hashes[unpack_sides(self.saved["sides"])["train"]]

    def find(self, role: str) -> str:
        """Finds a file of the run: where the settings say, or where it was in training.

        Raises:
            UserError: Its content has changed, or it is gone.
        """
        assert self.saved is not None
        record = self.saved["files"][role]
        given = self.given.get(role)
        # the content counts, not the place
        for path in (given, record["path"]):
            if path is not None and is_same(path, record):
                return path

        shown = given or record["path"]
        way_out = f"or name it as new rows: --data.path {shown}"
        if role != "train" or not Path(shown).exists():
            way_out = f"or say where it is now: --data.{ROLES[role]}"
        raise UserError(
            f"{shown}: is not the file that the run began with"
            f"{self._describe_change(role, shown, record)}; "
            f"its split would mean other rows. Restore it, {way_out}"
        )

    def _describe_change(self, role: str, path: str, record: Mapping[str, Any]) -> str:
        """Says how a file differs from that of the run, as far as it can be read."""
        assert self.saved is not None
        try:
            frame = self.read(path)
        except (ValueError, OSError):
            return " (it is gone, or cannot be read)"
        lost = [column for column in record["columns"] if column not in frame.columns]
        if lost:
            return f": it lacks the column '{lost[0]}'"

        # hashes are kept of the first file alone
        if role != "train":
            return f": it has {len(frame)} rows where it had {record['rows']}"
        try:
            before = unpack_hashes(self.saved["hashes"])
            return f": {describe_difference(before, self.hash_inputs(frame))}"
        except ValueError:
            return f": it has {len(frame)} rows where it had {record['rows']}, and other values"
