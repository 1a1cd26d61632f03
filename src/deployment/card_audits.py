"""The sections of a model card on the audits of a run, made from the files that they left."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from src.deployment.card_markdown import count, draw_table, escape, format_number, name_metric
from src.files.typed import read_json
from src.run import Run

FEW_ROWS = 30  # of a group, whose values say little
USUAL = 0.9  # nominal coverage
SHOWN = 10  # columns whose shift is listed


class GroupRow(TypedDict):
    """A metric of a task in one group of rows, with the interval of its value."""

    task: str
    metric: str
    groups: dict[str, str | None]
    n: int
    value: float | None
    low: NotRequired[float | None]
    high: NotRequired[float | None]


class GroupGap(TypedDict):
    """The distance between the best and the worst group in a metric of a task."""

    task: str
    metric: str
    columns: list[str]
    gap: float | None
    ratio: NotRequired[float | None]
    worst: NotRequired[Any]


class GroupAudit(TypedDict):
    """The file of an audit by groups."""

    rows: list[GroupRow]
    gaps: list[GroupGap]


class Rung(TypedDict):
    """The score of a task on rows that are corrupted with one severity."""

    task: str
    corruption: str
    severity: int
    score: float | None


class RobustnessAudit(TypedDict):
    """The file of an audit of robustness."""

    rows: int
    scores: dict[str, str]
    ladder: list[Rung]


class ShiftAudit(TypedDict):
    """The file of an audit of shift."""

    rows: int
    columns: list[dict[str, Any]]
    two_sample_test: NotRequired[dict[str, Any] | None]


class CalibrationAudit(TypedDict):
    """The file of an audit of calibration."""

    measures: list[dict[str, Any]]
    coverage: NotRequired[list[dict[str, Any]]]


AUDITS = {
    "groups": GroupAudit,
    "robustness": RobustnessAudit,
    "shift": ShiftAudit,
    "calibration": CalibrationAudit,
}


def read_audit(run: Run, part: str) -> Any:
    """Returns the file of a part of the run's audit; None where it was not made.

    Raises:
        Damaged: It is not as the audit has written it.
    """
    path: Path = run.path / "audit" / f"{part}.json"
    return read_json(path, AUDITS[part], "make it anew") if path.is_file() else None


# -- groups ----------------------------------------------------------------------------------------
def describe_groups(run: Run) -> list[str]:
    """Returns metrics by group with their intervals, and the gaps between groups."""
    audit = cast(GroupAudit | None, read_audit(run, "groups"))
    if audit is None:
        return ["No audit by groups has been made: `python -m src.audit --run RUN --groups ...`."]
    lines: list[str] = []
    if (run.path / "thresholds.json").is_file():
        lines += ["Decisions follow thresholds of each group, which the run has in a file.", ""]
    for task in dict.fromkeys(row["task"] for row in audit["rows"]):
        rows = [row for row in audit["rows"] if row["task"] == task]
        lines += [f"### {escape(task)} by group", "", *draw_groups(rows), ""]
    small = {name_group(row["groups"]) for row in audit["rows"] if row["n"] < FEW_ROWS}
    if small:
        few = escape("; ".join(sorted(small)[:8])) + (" and others" if len(small) > 8 else "")
        lines += [f"Fewer than {FEW_ROWS} rows, so that values say little: {few}.", ""]

    gaps = []
    for gap in audit["gaps"]:
        worst = gap.get("worst")
        group = name_group(worst) if isinstance(worst, Mapping) else str(worst or "-")
        cells = [" x ".join(gap["columns"]), gap["task"], name_metric(gap["metric"]), group]
        gaps.append([*cells, format_number(gap["gap"]), format_number(gap.get("ratio"))])
    if gaps:
        headings = ["groups", "task", "metric", "worst", "gap", "ratio"]
        lines += ["### Gaps between groups", "", *draw_table(headings, gaps, 2)]
    return lines


def draw_groups(rows: list[GroupRow]) -> list[str]:
    """Returns the metrics of one task, a group a line; each value with its 95 % interval."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    lines: dict[str, list[str]] = {}
    for row in rows:
        cells = lines.setdefault(
            name_group(row["groups"]), [f"{row['n']:,}", *["-"] * len(metrics)]
        )
        value = format_number(row["value"])
        if row.get("low") is not None:
            value += f" ({format_number(row['low'])} to {format_number(row.get('high'))})"
        cells[1 + metrics.index(row["metric"])] = value
    table = [[group, *cells] for group, cells in lines.items()]
    headings = ["group", "rows", *map(name_metric, metrics)]
    return draw_table(headings, table, len(headings) - 1)


def name_group(groups: Mapping[str, str | None]) -> str:
    """Returns the name of a group, such as sex Female, race Black."""
    parts = [f"{column} {'missing' if v is None else v}" for column, v in groups.items()]
    return ", ".join(parts) or "all"


# -- calibration -----------------------------------------------------------------------------------
def describe_calibration(run: Run) -> list[str]:
    """Returns what was fitted, and how far probabilities and widths can be believed."""
    lines = describe_fitted(run)
    audit = cast(CalibrationAudit | None, read_audit(run, "calibration"))
    if audit is None:
        return [*lines, "", "Calibration was not measured: `python -m src.audit --run RUN`."]
    names = []
    for measure in audit["measures"]:
        for label in measure["labels"]:
            names += [name for name in label["values"] if name not in names]
    rows = []
    for measure in audit["measures"]:
        for label in measure["labels"]:
            first = [measure["task"], str(label.get("label") or "-"), measure["split"]]
            values = [format_number(label["values"].get(name)) for name in names]
            rows.append([*first, measure.get("state", "-"), f"{label['rows']:,}", *values])
    headings = ["task", "label", "split", "calibration", "rows", *names]
    lines += ["", *draw_table(headings, rows, 1 + len(names))]

    covered = []
    entries = audit.get("coverage", [])
    # one nominal coverage says enough
    usual = [entry for entry in entries if entry.get("nominal") == USUAL]
    for entry in usual or entries:
        first = [entry["task"], entry["method"], entry["split"], entry.get("group") or "-"]
        values = [format_number(entry.get(key)) for key in ("nominal", "coverage", "size")]
        covered.append([*first, *values])
    if covered:
        headings = ["task", "method", "split", "group", "nominal coverage", "coverage", "size"]
        lines += ["", *draw_table(headings, covered, 3)]
    return lines


def describe_fitted(run: Run) -> list[str]:
    """Returns a table of what was fitted on validation rows for each task."""
    path = run.path / "calibration.json"
    if not path.is_file():
        return [
            "Outputs are as the network gives them: nothing was fitted on validation rows "
            "(`python -m src.audit --run RUN --calibrate`)."
        ]
    rows = []
    for task, entry in read_json(path, dict[str, Any]).get("tasks", {}).items():
        kind = (entry.get("calibrator") or {}).get("kind", "-")
        methods = ", ".join((entry.get("conformal") or {}).get("scores", {})) or "-"
        rows.append([task, kind, methods, f"{entry['rows']:,}"])
    headings = ["task", "map of the outputs", "conformal sets and intervals", "validation rows"]
    title = "Fitted on validation rows, and part of every prediction:"
    return [title, "", *draw_table(headings, rows, 1)]


# -- robustness and shift --------------------------------------------------------------------------
def describe_robustness(run: Run) -> list[str]:
    """Returns scores under corrupted inputs, and the shift of inputs."""
    audit = cast(RobustnessAudit | None, read_audit(run, "robustness"))
    lines = []
    if audit is None:
        lines.append("Robustness was not measured: `python -m src.audit --run RUN`.")
    else:
        lines += [f"Scores on {count(audit['rows'], 'row')} by severity of the corruption:", ""]
        lines += draw_ladder(audit)
    shift = cast(ShiftAudit | None, read_audit(run, "shift"))
    if shift is None:
        return [*lines, "", "Shift of inputs was not measured: `python -m src.audit --run RUN`."]
    return [*lines, "", *draw_shift(shift)]


def draw_ladder(audit: RobustnessAudit) -> list[str]:
    """Returns a line for each task and corruption, with the score at each severity."""
    severities = sorted({rung["severity"] for rung in audit["ladder"]})
    found: dict[tuple[str, str], dict[int, float | None]] = {}
    for rung in audit["ladder"]:
        key = rung["task"], rung["corruption"]
        found.setdefault(key, {})[rung["severity"]] = rung["score"]
    rows = []
    for (task, corruption), scores in found.items():
        values = [format_number(scores.get(severity)) for severity in severities]
        rows.append([task, audit["scores"].get(task, "-"), corruption, *values])
    headings = ["task", "score", "corruption", *(str(severity) for severity in severities)]
    return draw_table(headings, rows, len(severities))


def draw_shift(shift: ShiftAudit) -> list[str]:
    """Returns how far the columns of the audited rows are from those of training."""
    test = shift.get("two_sample_test") or {}
    lines = []
    if test:
        interval = f"{format_number(test.get('low'))} to {format_number(test.get('high'))}"
        lines.append(
            "A classifier that tells the audited rows from training rows has an AUC of "
            f"{format_number(test.get('auc'))} ({interval}); 0.5 means that it cannot."
        )
    columns = sorted(shift["columns"], key=lambda column: -(column.get("distance") or 0.0))
    rows = []
    for column in columns[:SHOWN]:
        beyond = "yes" if column.get("beyond_chance") else "no"
        distance = format_number(column.get("distance"))
        rows.append([str(column["column"]), str(column.get("words", "-")), beyond, distance])
    headings = ["input", "change", "beyond chance", "distance of 1"]
    return [*lines, "", *draw_table(headings, rows, 1)] if rows else lines
