"""The audit of a table: every check, on as many rows as a training can wait for, or on more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from src.data.audit.finding import Finding, Mend, sort_findings, write_list
from src.data.audit.label_counts import find_lacking_classes, find_rare_classes
from src.data.tables.audit.groups import find_hidden_groups, find_odd_shares
from src.data.tables.audit.identifiers import find_identifiers, find_missing_codes
from src.data.tables.audit.input_columns import has_setting
from src.data.tables.audit.late_columns import find_late_columns, find_time_spans
from src.data.tables.audit.leaking_inputs import find_leaking_inputs
from src.data.tables.audit.plain_columns import (
    find_constant_columns,
    find_empty_columns,
    find_shift,
)
from src.data.tables.audit.repeated_rows import (
    find_nearly_repeated_rows,
    find_repeated_rows,
    find_same_files,
)
from src.data.tables.audit.time_order import find_time_order

if TYPE_CHECKING:
    from src.data.rows import Split
    from src.data.tables.table import Table

FEW_ROWS = 4000  # of each split, where a training waits
MANY_ROWS = 50_000
COMPARED_ROWS = 2000  # of each split, which are compared with all training rows


def audit_table(table: Table, thorough: bool = False) -> list[Finding]:
    """Returns the findings on a table, the weightiest first.

    Args:
        table: The table.
        thorough: Whether to look at more rows, and for near copies and shift, too.
    """
    most = MANY_ROWS if thorough else FEW_ROWS
    findings = [
        *find_same_files(table),
        *find_leaking_inputs(table, most),
        *find_late_columns(table, most),
        *find_time_spans(table, most),
        *find_repeated_rows(table, most),
        *find_identifiers(table),
        *find_missing_codes(table),
        *find_odd_shares(table),
        *find_hidden_groups(table),
        *find_time_order(table),
        *audit_labels(table),
    ]
    if thorough:
        findings += find_nearly_repeated_rows(table, COMPARED_ROWS)
        findings += find_constant_columns(table)
        findings += find_empty_columns(table)
        findings += find_shift(table, most)
    return sort_findings(leave_out_repeats(findings))


def leave_out_repeats(findings: list[Finding]) -> list[Finding]:
    """Returns findings without a second one of the same kind on the same column."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for finding in findings:
        keys = {(finding.check, column) for column in finding.columns}
        if finding.check != "leak" or not keys & seen:
            kept.append(finding)
        seen |= keys
    return kept


def audit_labels(table: Table) -> list[Finding]:
    """Returns findings on classes with few rows, or none on some side."""
    sides: tuple[Split, ...] = ("train", "val", "test")
    targets = {side: table.split(side).targets for side in sides}
    mends = {}
    decides = table.group or table.split_column or table.time or table.keep_copies_together
    if not decides and len(table.table_files.paths) == 1 and has_setting(table, "stratify"):
        for name, columns in table.targets.items():
            wanted = write_list(dict.fromkeys([*table.stratify, *columns[:1]]))
            mends[name] = Mend((("stratify", wanted),), "deals classes out in proportion")
    return [
        *find_lacking_classes(table.tasks, targets, mends),
        *find_rare_classes(table.tasks, targets),
    ]
