"""The report of a study, made from its folder and the run folders that it names, and nothing else.

<study>/
    report.html             the page: tables and figures
    report.md report.tex    its tables
    figures/                its figures
    metrics.csv, .parquet   every metric of every replicate, with its run folder
    hparams/                a line for each trial, for TensorBoard
"""

from collections.abc import Sequence
from operator import methodcaller
from pathlib import Path

from src.analysis.comparison import Comparison, compare_rows
from src.analysis.latex import write_latex
from src.analysis.markdown import write_markdown
from src.analysis.page import write_page
from src.analysis.record import StudyRecord
from src.analysis.results import StudyResults, Value
from src.analysis.statistics import check_packages
from src.analysis.trial_lines import write_lines
from src.errors import UserError, suggest_or_list
from src.files.atomic import write_atomically


def make_report(
    folder: Path,
    tasks: Sequence[str] = (),
    metrics: Sequence[str] = (),
    pareto: Sequence[str] = (),
) -> Comparison:
    """Makes the report of a study anew, and returns what it shows.

    Args:
        folder: The folder of the study.
        tasks: The tasks whose columns the main table has; all of them where none is named.
        metrics: The metrics that it shows of them; where none is named, the one that counts for
            the selection of weights.
        pareto: The two tasks of the front; the first two where none is named.

    Raises:
        UserError: There is no study, a run folder is gone, or a name is unknown.
    """
    check_packages()
    results = StudyResults(folder)
    values = results.list_values()
    record = results.record
    shown = choose_columns(record, values, tasks, metrics)
    comparison = compare_rows(results, values, shown, choose_front(record, pareto))
    write_files(comparison)
    return comparison


def choose_columns(
    record: StudyRecord, values: Sequence[Value], tasks: Sequence[str], metrics: Sequence[str]
) -> list[tuple[str, str]]:
    """Returns (task, metric) of the columns of the main table.

    Raises:
        UserError: There is no such task, no run has such a metric, or a task has none of them.
    """
    known = {(value.task, value.metric): None for value in values}
    for task in tasks:
        refuse_unknown_task("--tasks", task, record)
    names = {metric for _, metric in known}
    for metric in metrics:
        if metric not in names:
            raise UserError(
                f"--metrics names '{metric}', which no run has: {suggest_or_list(metric, names)}"
            )

    shown = []
    for task in tasks or record["tasks"]:
        own = record["tasks"][task]
        chosen = [metric for metric in metrics if (task, metric) in known]
        if not metrics:
            chosen = [own["monitor"]]
        if tasks and not chosen:
            raise UserError(
                f"--metrics {','.join(metrics)}: task {task} has none of them: "
                f"it has {', '.join(own['metrics'])}"
            )
        shown += [(task, metric) for metric in chosen]
    return shown


def choose_front(record: StudyRecord, pareto: Sequence[str]) -> tuple[str, str] | None:
    """Returns the two tasks of the front; None where there is one task.

    Raises:
        UserError: They are not two, or there is no such task.
    """
    for task in pareto:
        refuse_unknown_task("--pareto", task, record)
    if pareto and len(set(pareto)) != 2:
        raise UserError(f"--pareto {','.join(pareto)}: name two tasks, such as income,hours")
    names = list(pareto or record["tasks"])
    return (names[0], names[1]) if len(names) > 1 else None


def refuse_unknown_task(flag: str, task: str, record: StudyRecord) -> None:
    """Refuses a task that the study does not have.

    Raises:
        UserError: It is none of its tasks.
    """
    if task not in record["tasks"]:
        hint = suggest_or_list(task, record["tasks"])
        raise UserError(f"{flag} names the task '{task}', which the study does not have: {hint}")


def write_files(comparison: Comparison) -> None:
    """Writes all files of a report, each whole or not at all; the page last, which lists them."""
    folder = comparison.folder
    contents = {
        "report.md": write_markdown(comparison).encode(),
        "report.tex": write_latex(comparison).encode(),
        "metrics.csv": comparison.values.to_csv(index=False).encode(),
        "metrics.parquet": comparison.values.to_parquet(index=False),
    }
    for name, content in contents.items():
        write_atomically(folder / name, methodcaller("write", content))
    write_lines(comparison)
    write_page(comparison, folder / "report.html")
