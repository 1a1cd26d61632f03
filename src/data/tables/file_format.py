"""How the files of a table are laid out, as the settings or the files' names say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from src.errors import UserError

MISSING_WORDS = ("", "?", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "<NA>", "#N/A")
FORMATS = ("csv", "tsv", "parquet", "arff")
ENDINGS = {
    ".csv": "csv",
    ".txt": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arff": "arff",
}
# each column costs milliseconds before the first step: nobody would wait for more
MOST_COLUMNS = 50_000


class NotATable(UserError):
    """A file that cannot be read as a table; the message follows the file's name."""


@dataclass(frozen=True)
class FileFormat:
    """How the files of a table are laid out.

    Attributes:
        format: csv, tsv, parquet or arff; None for the format of the name's ending.
        delimiter: The mark between the columns of a text file, or 'spaces'; None for a comma, or a
            tab in .tsv files.
        names: Names of the columns of a text file without a header.
        missing: Further words that mean that a value is missing.
        missing_defaults: Whether ``MISSING_WORDS`` mean that, too.
    """

    format: str | None = None
    delimiter: str | None = None
    names: tuple[str, ...] | None = None
    missing: tuple[str, ...] = ()
    missing_defaults: bool = True

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise UserError(f"data.format is '{self.format}'; known are {', '.join(FORMATS)}")
        if self.delimiter is not None and len(self.separator) != 1 and self.separator != r"\s+":
            raise UserError(
                f"data.delimiter is '{self.delimiter}'; it must be one character, or 'spaces'"
            )

    @property
    def separator(self) -> str:
        """The delimiter in the form that pandas takes; '' if it is not set."""
        # in a shell, a tab is typed as a backslash and a t
        special = {"\\t": "\t", "spaces": r"\s+"}
        return special.get(self.delimiter or "", self.delimiter or "")

    @property
    def words_for_missing(self) -> list[str]:
        """The words that mean that a value is missing; for whole numbers also with decimals."""
        numbers = [word for word in self.missing if re.fullmatch(r"-?\d+", word)]
        with_decimals = [f"{word}.{'0' * zeros}" for word in numbers for zeros in (1, 2, 3)]
        defaults = MISSING_WORDS if self.missing_defaults else ("",)
        return [*defaults, *self.missing, *with_decimals]

    def has_commas(self, path: str) -> bool:
        """Returns whether commas separate the columns of a file."""
        kind = self.format or find_ending(Path(path)) or "csv"
        return kind == "csv" and self.separator in ("", ",")

    def kind(self, path: Path) -> str:
        """Returns the format of a file, one of ``FORMATS``.

        Raises:
            UserError: Its name does not tell.
        """
        found = self.format or find_ending(path)
        if found is None:
            raise UserError(
                f"{path}: unknown kind of file; a table's name ends in .csv, .tsv or .parquet, "
                f"else say what it is: --data.format {' or '.join(FORMATS)}"
            )
        return found


def find_ending(path: Path) -> str | None:
    """Returns the format that a file's name tells; compressed files have another ending behind."""
    for ending in reversed(path.suffixes):
        if ending.lower() in ENDINGS:
            return ENDINGS[ending.lower()]
    return None


def refuse_too_wide(columns: int) -> None:
    """Refuses a file with too many columns.

    Raises:
        NotATable: It has more than ``MOST_COLUMNS``.
    """
    if columns > MOST_COLUMNS:
        raise NotATable(
            f"has {columns:,} columns, and at most {MOST_COLUMNS:,} can be read: "
            "keep the ones that matter"
        )
