"""A finding of an audit of data: what was seen, where, how much it weighs, and what mends it."""

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Severity = Literal["high", "medium", "low"]
WEIGHTS: dict[Severity, int] = {"high": 0, "medium": 1, "low": 2}
MANY = 0.05  # share of copies from which scores mean little
SOME = 0.005  # share of copies that changes scores
SHOWN = 3  # findings that a training prints
PLAIN = r"[A-Za-z_][\w./+-]*"  # a name that YAML reads as text, and as one entry of a list
# words that YAML reads as something else
NO_TEXT = ("true", "false", "null")


@dataclass(frozen=True)
class Mend:
    """The settings of the data that mend what was found.

    Attributes:
        settings: (name of a setting, its value as YAML), such as ("drop", "[copy]").
        effect: The effect, to be read after the flags: "leaves it out".
    """

    settings: tuple[tuple[str, str], ...]
    effect: str

    def write_flags(self) -> str:
        """Returns the flags as one types them, such as --data.drop '[copy]'."""
        return " ".join(f"--data.{name} {shlex.quote(value)}" for name, value in self.settings)


@dataclass(frozen=True)
class Finding:
    """A finding.

    Attributes:
        severity: high: scores mean nothing; medium: they may look better than they are; low: worth
            knowing.
        check: One word for the kind of finding.
        sentence: What was seen, without a full stop.
        mend: The settings that mend it; None where none does.
        columns: The columns that it is about.
        rows: Some rows that show it, counted from 1 as in the file.
        value: The figure that was measured, if there is one.
    """

    severity: Severity
    check: str
    sentence: str
    mend: Mend | None = None
    columns: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()
    value: float | None = None

    def write_note(self) -> str:
        """Returns the finding and its way out in one line."""
        if self.mend is None:
            return f"note: {self.sentence}"
        joint = "" if self.sentence.endswith("?") else ":"
        return f"note: {self.sentence}{joint} {self.mend.write_flags()} {self.mend.effect}"

    def below(self, key: str) -> "Finding":
        """Returns the finding of a source among several, whose settings lie below a key."""
        mend = self.mend
        if mend is not None:
            mend = replace(mend, settings=tuple((f"{key}.{n}", v) for n, v in mend.settings))
        return replace(self, sentence=f"{key.rpartition('.')[2]}: {self.sentence}", mend=mend)

    def to_plain(self) -> dict[str, Any]:
        """Returns plain values, for a file."""
        return {
            "severity": self.severity,
            "check": self.check,
            "sentence": self.sentence,
            "flag": None if self.mend is None else self.mend.write_flags(),
            "columns": list(self.columns),
            "rows": list(self.rows),
            "value": self.value,
        }


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Returns findings, the weightiest first."""
    return sorted(findings, key=lambda finding: WEIGHTS[finding.severity])


def write_notes(findings: Sequence[Finding]) -> list[str]:
    """Returns a line for each of the worst findings, and how to see the others."""
    weighty = [finding for finding in sort_findings(findings) if finding.severity != "low"]
    notes = [finding.write_note() for finding in weighty[:SHOWN]]
    more = len(weighty) - SHOWN
    if more > 0:
        verb = "lists them" if more > 1 else "lists it"
        notes.append(f"note: {more} more: python -m src.audit with the same --data flags {verb}")
    return notes


def weigh_share(share: float) -> Severity:
    """Returns the severity of copies of training rows, by their share of a split."""
    if share >= MANY:
        return "high"
    return "medium" if share >= SOME else "low"


def write_share(share: float) -> str:
    """Returns a share in percent, with decimals where it is small."""
    return f"{share:.0%}" if share >= 0.01 else f"{share:.2%}"


def write_list(names: Iterable[object]) -> str:
    """Returns names as a list in YAML, with quotes where a name needs them."""
    return f"[{', '.join(map(write_name, names))}]"


def write_name(name: object) -> str:
    """Returns a name as YAML reads it as text."""
    text = str(name)
    is_plain = re.fullmatch(PLAIN, text) and text.lower() not in NO_TEXT
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def list_few(values: Sequence[object], most: int = 5) -> str:
    """Returns some values in quotes, and ... where there are more."""
    listed = ", ".join(f"'{value}'" for value in values[:most])
    return listed + (" ..." if len(values) > most else "")
