"""The audit of data before any training: the work of ``python -m src.audit --data``."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from src.cli.auditing.data_cli import DataCLI
from src.cli.flags import Flag
from src.cli.terminal import remark
from src.data import MultiTaskDataModule, Table
from src.data.audit.finding import Finding
from src.data.tables.columns import MemberColumn
from src.errors import UserError
from src.files.atomic import write_atomically
from src.files.typed import to_json

OWN = (
    Flag("out", str | None, None, "A .json file for the findings."),
    Flag("overwrite", bool, False, "Replace the file that --out names."),
)
STYLES = {"high": "bold red", "medium": "yellow", "low": "dim"}
ONLY_ROWS = (
    "{kind}: no columns of a table are its inputs, so that leaks by single columns, identifiers, "
    "groups and time order were not looked for"
)


def audit_data(args: list[str]) -> list[Finding]:
    """Looks through data for what makes scores look better than they are, and prints it.

    Args:
        args: The command line after the command.

    Returns:
        The findings, the weightiest first.

    Raises:
        UserError: A setting is wrong, or the data cannot be read.
    """
    cli = DataCLI(args, own=OWN, starts=True)
    out = cli.config["out"]
    path = check_file(out, cli.config["overwrite"]) if out is not None else None
    data = cli.datamodule
    data.check_files()

    began = time.monotonic()
    findings = data.audit(thorough=True)
    took = time.monotonic() - began
    print(describe_rows(data), flush=True)
    show(findings)
    if not reads_columns(data):
        remark(ONLY_ROWS.format(kind=type(data).__name__))
    print(f"looked through in {took:.1f} s", flush=True)
    if path is not None:
        write_findings(path, data, findings)
        print(f"findings: {path}", flush=True)
    return findings


def check_file(out: str, overwrite: bool) -> Path:
    """Returns the path of the file of findings.

    Raises:
        UserError: It has another ending, exists already, or has no folder.
    """
    path = Path(out)
    if path.suffix != ".json":
        raise UserError(f"--out {out}: findings are written to a .json file")
    if path.exists() and not overwrite:
        raise UserError(f"--out {out} exists; add --overwrite to replace it")
    if not path.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {path.parent}")
    return path


def describe_rows(data: MultiTaskDataModule) -> str:
    """Returns the tasks and the size of each split, in one line."""
    train, val, test = (len(data.split(side)) for side in ("train", "val", "test"))
    names = ", ".join(data.tasks)
    return f"{names}: {train} rows to train, {val} to validate, {test} to test"


def reads_columns(data: MultiTaskDataModule) -> bool:
    """Returns whether single columns of a table are inputs."""
    if not isinstance(data, Table):
        return False
    return any(not isinstance(column, MemberColumn) for column in data.columns)


def show(findings: Sequence[Finding]) -> None:
    """Prints findings as a table, the weightiest first."""
    if not findings:
        print("nothing suspicious was found", flush=True)
        return
    table = RichTable(box=None, padding=(0, 2, 0, 0))
    table.add_column("severity")
    table.add_column("finding", overflow="fold", ratio=3)
    table.add_column("what mends it", overflow="fold", ratio=2)
    for finding in findings:
        sentence = finding.sentence
        if finding.rows:
            sentence += f" (rows {', '.join(map(str, finding.rows))})"
        mend = "-"
        if finding.mend is not None:
            mend = f"{finding.mend.write_flags()} {finding.mend.effect}"
        style = STYLES[finding.severity]
        table.add_row(f"[{style}]{finding.severity}[/]", escape(sentence), escape(mend))
    Console().print(table, highlight=False)


def write_findings(path: Path, data: MultiTaskDataModule, findings: Sequence[Finding]) -> None:
    """Writes findings, with the data that they are of, as JSON."""
    content = {
        "data": type(data).__name__,
        "files": data.files(),
        "rows": {side: len(data.split(side)) for side in ("train", "val", "test")},
        "findings": [finding.to_plain() for finding in findings],
    }
    write_atomically(path, lambda file: file.write(to_json(content)))
