"""The files of a table: as settings name them, or those of a run, which are known by their content."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.data.reading import nearest
from src.data.record import difference, fingerprint, is_same, rows_of, unpacked
from src.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

ROLES = {
    "train": "path",
    "val": "val_path",
    "test": "test_path",
}  # which setting names the file of which rows


class TableFiles:
    """Finds and reads the files of a table, each once.

    Args:
        given: The files that the settings name, by what they hold: train, val, test.
        read: Reads one.
        saved: The schema of the run whose files these are to be; None for a new run.
    """

    def __init__(
        self,
        given: Mapping[str, str],
        read: Callable[[str], pd.DataFrame],
        saved: Mapping[str, Any] | None,
    ) -> None:
        self.given, self.read, self.saved = given, read, saved
        self.new_rows = (
            False  # whether the first file is said to hold other rows than those of the run
        )
        self._frames: dict[str, pd.DataFrame] = {}

    @cached_property
    def paths(self) -> dict[str, str]:
        """The files by what they hold: as given, or one of new rows, or those of the run.

        That a run's file is as it was is looked at when it is read, so that prediction does not ask
        for the rows of a test.
        """
        if self.saved is None:
            return dict(self.given)
        main, records = self.given["train"], self.saved["files"]
        if self.is_new:
            return {"train": main}
        return {role: self.given.get(role, record["path"]) for role, record in records.items()}

    @cached_property
    def is_new(self) -> bool:
        """Whether the first file holds other rows than those of the run."""
        if self.saved is None:
            return False
        main, record = self.given["train"], self.saved["files"]["train"]
        named = self.new_rows or main != record["given"]
        return named and not is_same(main, record)

    def frame(self, role: str = "train") -> pd.DataFrame:
        """Returns the rows of a file as read.

        Raises:
            UserError: It cannot be read, or lacks a column of the first file.
        """
        if role not in self._frames:
            path = self.paths[role]
            if self.saved is not None and not self.is_new:
                path = self.own(role)
            frame = self.read(path)
            if self.saved is None and role != "train":
                main = self.frame()
                for column in main.columns:
                    if column not in frame.columns:
                        other = self.paths["train"]
                        raise UserError(
                            f"{path}: lacks the column '{column}' of {other}: {nearest(column, frame.columns)}"
                        )
            self._frames[role] = frame
        return self._frames[role]

    def notes(self) -> list[str]:
        """What was left out of files or taken apart when they were read."""
        return [note for frame in self._frames.values() for note in frame.attrs.get("notes", [])]

    @cached_property
    def records(self) -> dict[str, dict[str, Any]]:
        """What identifies the files in a run's schema."""
        records = {}
        for role, path in self.paths.items():
            frame = self.frame(role)
            size = {"rows": len(frame), "columns": [str(column) for column in frame.columns]}
            records[role] = {"given": path, **fingerprint(path), **size}
        return records

    def trained_on(self) -> np.ndarray:
        """The hashes of the inputs of the rows that the run was trained on."""
        assert self.saved is not None
        hashes: np.ndarray = unpacked(self.saved["hashes"])[rows_of(self.saved["sides"])["train"]]
        return hashes

    def own(self, role: str) -> str:
        """Returns where a file of the run lies now: where the settings say, or where it lay in training.

        Raises:
            UserError: Its content has changed, or it is gone.
        """
        assert self.saved is not None
        record, given = self.saved["files"][role], self.given.get(role)
        places = [path for path in (given, record["path"]) if path is not None]
        for path in places:
            if is_same(path, record):
                return path
        shown = given or record["path"]
        how = self._how_changed(role, shown, record)
        way_out = f"or name it as new rows: --data.path {shown}"
        if role != "train" or not Path(shown).exists():
            way_out = f"or say where it lies now: --data.{ROLES[role]}"
        raise UserError(
            f"{shown}: is not the file that the run began with{how}; its split would mean other rows. Restore it, {way_out}"
        )

    # how the inputs of a file are hashed; the table says, which knows what its columns become
    hashes: Callable[[pd.DataFrame], np.ndarray] | None = None

    def _how_changed(self, role: str, path: str, record: Mapping[str, Any]) -> str:
        """Says in what a file differs from that of the run, as far as it can be read."""
        try:
            frame = self.read(path)
        except (ValueError, OSError):
            return " (it is gone, or cannot be read)"
        lost = [column for column in record["columns"] if column not in frame.columns]
        if lost:
            return f": it lacks the column '{lost[0]}'"
        if role != "train" or self.hashes is None or self.saved is None:
            return f": it has {len(frame)} rows where it had {record['rows']}"
        try:
            return f": {difference(unpacked(self.saved['hashes']), self.hashes(frame))}"
        except ValueError:
            return f": it has {len(frame)} rows where it had {record['rows']}, and other values"
