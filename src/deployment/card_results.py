"""The sections of a model card on what was measured, and what was not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from src.deployment.card_markdown import count, draw_table, escape, format_number
from src.files.typed import read_json
from src.run import Run

WORDS = {"auroc": "AUROC", "f1": "F1", "mae": "MAE", "rmse": "RMSE", "r2": "R2", "miou": "mIoU"}
FEW_ROWS = 30  # of a group, whose values say little


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


# -- metrics ---------------------------------------------------------------------------------------
def describe_results(run: Run, tasks: Sequence[str]) -> list[str]:
    """Returns a table of metrics for each task: validation, test, and those of references."""
    results = run.read_results()
    if results is None:
        return ["The run has no metrics.json: nothing was measured."]
    columns = {"validation": results["validation"], "test": results.get("test", {})}
    for name, reference in results.get("references", {}).items():
        columns[f"{name}, test"] = reference.get("test", {})

    lines = []
    for task in tasks:
        rows = []
        for metric in list_metrics(columns, task):
            values = [read_value(columns[column], task, metric) for column in columns]
            rows.append([name_metric(metric), *map(format_number, values)])
        lines += [
            f"### {escape(task)}",
            "",
            *draw_table(["metric", *columns], rows, len(columns)),
            "",
        ]
    if not results.get("test"):
        lines += ["The run was not tested: python -m src.evaluate --run RUN measures it.", ""]
    lines.append(
        "The weights and thresholds were chosen on the validation rows, so that validation metrics "
        "look better than those of new rows; test rows had no part in it."
    )
    return lines


def list_metrics(columns: Mapping[str, Mapping[str, Any]], task: str) -> list[str]:
    """Returns the metrics of a task, in the order of the file."""
    found: dict[str, None] = {}
    for values in columns.values():
        for key in values:
            # <stage>/<task>/<metric>; a metric of one output has a further part
            _, _, rest = key.partition("/")
            if rest.startswith(f"{task}/"):
                found[rest.removeprefix(f"{task}/")] = None
    return list(found)


def read_value(values: Mapping[str, float | None], task: str, metric: str) -> float | None:
    """Returns a metric of a task at whatever stage it was measured."""
    for key, value in values.items():
        if key.partition("/")[2] == f"{task}/{metric}":
            return value
    return None


def name_metric(metric: str) -> str:
    """Returns a metric's name as people write it."""
    return WORDS.get(metric, metric.replace("_", " "))


# -- audits ----------------------------------------------------------------------------------------
def describe_groups(run: Run) -> list[str]:
    """Returns metrics by group with their intervals, and the gaps between groups."""
    audit = read_audit(run, "groups", GroupAudit)
    if audit is None:
        return ["No audit by groups has been made: `python -m src.audit --run RUN --groups ...`."]
    rows = []
    small = 0
    for row in audit["rows"]:
        small += row["n"] < FEW_ROWS
        interval = f"{format_number(row.get('low'))} to {format_number(row.get('high'))}"
        value = format_number(row["value"])
        rows.append([name_group(row["groups"]), row["task"], name_metric(row["metric"])])
        rows[-1] += [f"{row['n']:,}", value, interval]
    lines = draw_table(["group", "task", "metric", "rows", "value", "95 %"], rows, 3)
    if small:
        lines += ["", f"{count(small, 'line')} of groups below {FEW_ROWS} rows: read the interval."]

    gaps = []
    for gap in audit["gaps"]:
        worst = gap.get("worst")
        group = name_group(worst) if isinstance(worst, Mapping) else str(worst or "-")
        cells = [" x ".join(gap["columns"]), gap["task"], name_metric(gap["metric"]), group]
        gaps.append([*cells, format_number(gap["gap"]), format_number(gap.get("ratio"))])
    if gaps:
        headings = ["groups", "task", "metric", "worst", "gap", "ratio"]
        lines += ["", *draw_table(headings, gaps, 2)]
    return lines


def name_group(groups: Mapping[str, str | None]) -> str:
    """Returns the name of a group, such as sex Female, race Black."""
    parts = [f"{column} {'missing' if v is None else v}" for column, v in groups.items()]
    return ", ".join(parts) or "all"


def describe_calibration(run: Run) -> list[str]:
    """Returns what was fitted, and how far probabilities and widths can be believed."""
    lines = []
    fitted = read_fitted(run)
    if fitted is None:
        lines.append(
            "Outputs are as the network gives them: nothing was fitted on validation rows "
            "(`python -m src.audit --run RUN --calibrate`)."
        )
    else:
        lines.append("Fitted on validation rows, and part of every prediction:")
        lines += ["", *draw_anything(fitted)]
    measured = read_audit(run, "calibration", dict[str, Any])
    if measured is None:
        lines += ["", "Calibration was not measured: `python -m src.audit --run RUN`."]
    else:
        lines += ["", "Measured:", "", *draw_anything(measured)]
    return lines


def read_fitted(run: Run) -> dict[str, Any] | None:
    """Returns what calibration has fitted; None where nothing was."""
    path = run.path / "calibration.json"
    found: dict[str, Any] | None = read_json(path, dict[str, Any]) if path.is_file() else None
    return found


def describe_robustness(run: Run) -> list[str]:
    """Returns scores under corrupted inputs, and the shift of inputs."""
    lines: list[str] = []
    for part, word in (("robustness", "Robustness"), ("shift", "Shift of inputs")):
        audit = read_audit(run, part, dict[str, Any])
        if lines:
            lines.append("")
        if audit is None:
            lines.append(f"{word} was not measured: `python -m src.audit --run RUN`.")
        else:
            lines += [f"{word}:", "", *draw_anything(audit)]
    return lines


def read_audit(run: Run, part: str, kind: Any) -> Any:
    """Returns the file of a part of the run's audit; None where it was not made.

    Raises:
        Damaged: It is not as the audit has written it.
    """
    path: Path = run.path / "audit" / f"{part}.json"
    return read_json(path, kind, "make it anew") if path.is_file() else None


def draw_anything(content: Mapping[str, Any]) -> list[str]:
    """Returns lists of objects as tables, and other entries as a list."""
    lines: list[str] = []
    for key, value in content.items():
        if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            headings = list(dict.fromkeys(name for one in value for name in one))
            rows = [[write_plain(one.get(name)) for name in headings] for one in value]
            lines += [f"{escape(key)}:", "", *draw_table(headings, rows), ""]
        else:
            lines.append(f"- {escape(key)}: {escape(write_plain(value))}")
    while lines and not lines[-1]:
        lines.pop()
    return lines


def write_plain(value: Any) -> str:
    """Returns a value of a JSON file as text."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return format_number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {write_plain(one)}" for key, one in value.items())
    if isinstance(value, list):
        more = f" and {len(value) - 8} more" if len(value) > 8 else ""
        return ", ".join(map(write_plain, value[:8])) + more
    return str(value)


# -- limits ----------------------------------------------------------------------------------------
def list_limits(run: Run) -> list[str]:
    """Returns what nobody has measured, and what no measurement covers."""
    lines = []
    results = run.read_results()
    if results is None or not results.get("test"):
        lines.append("No test rows were scored: the figures are of rows that chose the weights.")
    if read_audit(run, "groups", GroupAudit) is None:
        lines.append(
            "No audit by groups has been made, so that nobody knows whether the model errs more "
            "for some people: `python -m src.audit --run RUN --groups '[COLUMN]'` measures it."
        )
    if read_audit(run, "robustness", dict[str, Any]) is None:
        lines.append(
            "No corrupted inputs were tried: scores hold for rows as clean as the test rows."
        )
    if read_audit(run, "calibration", dict[str, Any]) is None:
        lines.append(
            "Calibration was not measured: a probability of 0.8 need not come true in 8 of 10 rows."
        )
    lines.append(
        "The figures are of one seed. Other seeds differ: `python -m src.compare` shows how much."
    )
    lines.append(
        "Rows from other places or later times may be unlike the training rows: "
        "`python -m src.audit --run RUN --data.path NEW.csv` measures the shift."
    )
    return [f"- {line}" for line in lines]
