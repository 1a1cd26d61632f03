"""The sections of a model card on what was measured, and what was not."""

from collections.abc import Mapping, Sequence
from typing import Any

from src.deployment.card_audits import read_audit
from src.deployment.card_markdown import draw_table, escape, format_number, name_metric
from src.run import Run


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


# -- limits ----------------------------------------------------------------------------------------
def list_limits(run: Run) -> list[str]:
    """Returns what nobody has measured, and what no measurement covers."""
    lines = []
    results = run.read_results()
    if results is None or not results.get("test"):
        lines.append("No test rows were scored: the figures are of rows that chose the weights.")
    if read_audit(run, "groups") is None:
        lines.append(
            "No audit by groups has been made, so that nobody knows whether the model errs more "
            "for some people: `python -m src.audit --run RUN --groups '[COLUMN]'` measures it."
        )
    if read_audit(run, "robustness") is None:
        lines.append(
            "No corrupted inputs were tried: scores hold for rows as clean as the test rows."
        )
    if read_audit(run, "calibration") is None:
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
