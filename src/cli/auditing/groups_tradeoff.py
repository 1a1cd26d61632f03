"""The picture of score against gap over several runs: methods, strengths, seeds."""

from collections.abc import Sequence
from dataclasses import replace
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple, cast

from rich.console import Console

from src.analysis.charts.chart import save_chart
from src.analysis.charts.tradeoff import NAME, draw_tradeoff
from src.analysis.fairness.gaps import DEMOGRAPHIC_PARITY, EQUALIZED_ODDS, find_gaps
from src.analysis.fairness.groups import Group
from src.analysis.fairness.measures import TaskRows, list_decision_metrics, measure_groups
from src.analysis.fairness.tradeoff import TradeoffMethod, TradeoffRun, summarise_runs
from src.analysis.record import NAME as STUDY
from src.analysis.record import read_study
from src.analysis.tables import Cell, Column, ReportTable
from src.analysis.terminal import FoldedTable
from src.cli.auditing.groups_rows import load_task_rows, read_columns
from src.cli.flags import Flag
from src.cli.loaded_run import LoadedRun, open_one_run
from src.cli.members import Member, list_members
from src.cli.progress_bar import show_progress
from src.cli.runs import drop_flags
from src.cli.terminal import remark
from src.data import Split
from src.errors import UserError, suggest_or_list
from src.files.atomic import write_atomically
from src.files.typed import to_json
from src.tasks import BinaryClassification, Task

TRADEOFF: tuple[Flag, ...] = (
    Flag(
        "tradeoff",
        str | None,
        None,
        "A task whose score is drawn against its gap between groups, over the runs that --run "
        "names: folders with commas between them, patterns such as 'logs/plain/*', or a study.",
    ),
    Flag(
        "tradeoff_score",
        str | None,
        None,
        "The metric that is the score; the one that selects the task's weights unless told "
        "otherwise.",
    ),
    Flag(
        "tradeoff_gap",
        str | None,
        None,
        f"The metric whose gap is drawn, or {DEMOGRAPHIC_PARITY} or {EQUALIZED_ODDS}; of a binary "
        "task equalized odds unless told otherwise, of others the score's.",
    ),
)
BY_GROUP = "+ thresholds"


class Place(NamedTuple):
    """A run folder, and the method that it is a run of."""

    folder: str
    label: str


class Asked(NamedTuple):
    """The task and the two metrics of the picture."""

    task: str
    score: str
    gap: str


def audit_tradeoff(args: list[str], own: Sequence[Flag]) -> None:
    """Draws each run's score of a task against its gap between groups.

    Runs of one name are seeds of one method. A run with thresholds by group has two places: one
    with them, and one without.

    Args:
        args: The command line after the command.
        own: The flags that the command alone knows.

    Raises:
        UserError: A setting is wrong, or runs cannot be compared.
    """
    rest = drop_flags(args, "run")
    places = find_places(args)
    first: Member | None = None
    runs: list[TradeoffRun] = []
    asked = Asked("", "", "")
    first_rows: TaskRows | None = None
    with show_progress("runs", len(places)) as advance:
        for place in places:
            member = open_one_run([*rest, f"--run={place.folder}"], own, "src.audit")
            first = first or member
            run = LoadedRun(member)
            asked = choose_metrics(run)
            rows = load_task_rows(run, cast(Split, member.cli.config["split"]))[asked.task]
            if first_rows is not None and not has_same_labels(first_rows, rows):
                raise UserError(
                    f"--run: {place.folder} cannot be drawn beside {places[0].folder}: their rows "
                    f"have other labels of {asked.task}"
                )
            first_rows = first_rows or rows
            runs += measure_run(run, place, asked, rows)
            advance()
    assert first is not None and first_rows is not None
    config = first.cli.config
    folder = Path(config["out"] or first.run.path / "audit")
    folder.mkdir(parents=True, exist_ok=True)
    report_tradeoff(runs, asked, first_rows.task, config, folder)


def find_places(args: list[str]) -> list[Place]:
    """Returns the run folders that --run names, each with its method.

    Raises:
        UserError: It names none, or none that exists.
    """
    places: list[Place] = []
    for name in list_members(args):
        if Path(name, STUDY).is_file():
            places += read_places(Path(name))
            continue
        found = sorted(glob(name)) if any(mark in name for mark in "*?[") else [name]
        # other files may lie beside the runs
        folders = [path for path in found if len(found) == 1 or Path(path, "config.yaml").is_file()]
        if not folders:
            raise UserError(f"--run: no run folder is named '{name}'")
        places += [Place(path, Path(path).resolve().parent.name) for path in folders]
    if not places:
        raise UserError("--run is missing: name several run folders, with commas between them")
    return places


def read_places(folder: Path) -> list[Place]:
    """Returns the runs of a study: each replicate of each row, labelled by the row.

    Raises:
        UserError: Its record is damaged, or no run has ended.
    """
    record = read_study(folder)
    places = []
    for row in record["rows"]:
        if row["role"] == "reference":
            continue
        for replicate in row["replicates"]:
            keys = set(replicate["trials"].values())
            run = record["trials"][keys.pop()]["run"] if len(keys) == 1 else None
            # single-task rows have a network for each task, ensembles have several
            if run is not None and not replicate.get("members"):
                places.append(Place(str(folder.resolve().parent / run), row["name"]))
    if not places:
        raise UserError(f"--run: the study {folder} has no run that all its tasks share")
    return places


def choose_metrics(run: LoadedRun) -> Asked:
    """Returns the task, the score and the gap that the flags name.

    Raises:
        UserError: There is no such task, or no such split.
    """
    config = run.member.cli.config
    split = config["split"]
    if split not in ("train", "val", "test"):
        raise UserError(f"--split is '{split}'; it must be train, val or test")
    name = config["tradeoff"]
    if name not in run.tasks:
        raise UserError(f"--tradeoff is '{name}'; {suggest_or_list(name, run.tasks)}")
    task = run.tasks[name]
    score = config["tradeoff_score"] or task.monitor
    is_binary = isinstance(task, BinaryClassification)
    gap = config["tradeoff_gap"] or (EQUALIZED_ODDS if is_binary else score)
    return Asked(name, score, gap)


def has_same_labels(one: TaskRows, other: TaskRows) -> bool:
    """Returns whether two runs have the same kind of task with the same labels, row by row."""
    if type(one.task) is not type(other.task) or one.targets.shape != other.targets.shape:
        return False
    same = one.targets == other.targets
    return bool((same | (one.targets.isnan() & other.targets.isnan())).all())


def measure_run(run: LoadedRun, place: Place, asked: Asked, own: TaskRows) -> list[TradeoffRun]:
    """Returns a run's place in the picture, and a second one where it has thresholds by group.

    Args:
        run: The run.
        place: Its folder and its method.
        asked: The task and its metrics.
        own: The task's outputs and labels.

    Raises:
        UserError: A metric is unknown, or the rows do not tell it.
    """
    config = run.member.cli.config
    split = cast(Split, config["split"])
    columns = read_columns(run.data, split, config["groups"], config["group_bins"])
    # one gap for all columns together
    groups = [
        group
        for group in columns.list(run.data, split)
        if group.columns in ((), tuple(config["groups"]))
    ]
    labels = {place.label: replace(own, decided=None)}
    if own.decided is not None:
        labels[f"{place.label} {BY_GROUP}"] = own
    seed = config["seed_everything"]
    found = []
    for label, rows in labels.items():
        score, gap = measure_place(rows, groups, asked)
        found.append(TradeoffRun(label, place.folder, seed, score, gap))
    return found


def measure_place(own: TaskRows, groups: list[Group], asked: Asked) -> tuple[float, float]:
    """Returns the score over all rows and the gap between groups.

    Raises:
        UserError: A metric is unknown, or the rows do not tell it.
    """
    rows = measure_groups([own], groups, 0, 0)
    scores = {row.metric: row.value for row in rows if not row.groups}
    gaps = {gap.metric: gap.gap for gap in find_gaps(rows, {own.name: own.task})}
    flags = (("score", asked.score, scores), ("gap", asked.gap, gaps))
    values = []
    for flag, metric, known in flags:
        if metric not in known:
            hint = suggest_or_list(metric, known)
            raise UserError(f"--tradeoff_{flag} is '{metric}', which {own.name} has not; {hint}")
        value = known[metric]
        if value is None:
            raise UserError(
                f"--tradeoff_{flag}: the rows do not tell the {metric} of {own.name}: too few "
                "groups have enough labels"
            )
        values.append(value)
    return values[0], values[1]


def report_tradeoff(
    runs: Sequence[TradeoffRun], asked: Asked, task: Task, config: Any, folder: Path
) -> None:
    """Prints a table of methods, and writes tradeoff.json and the picture.

    Args:
        runs: The runs.
        asked: The task and its metrics.
        task: The task.
        config: The configuration of the first run, with the command's own flags.
        folder: The folder of the results.
    """
    methods = summarise_runs(runs)
    columns = config["groups"]
    content = {
        "task": asked.task,
        "score": asked.score,
        "gap": asked.gap,
        "columns": list(columns),
        "split": config["split"],
        "runs": [vars(run) for run in runs],
        "methods": [vars(method) for method in methods],
    }
    write_atomically(folder / f"{NAME}.json", lambda file: file.write(to_json(content)))
    by = " and ".join(columns)
    names = (f"gap in {asked.gap.replace('_', ' ')} by {by}", asked.score)
    is_better = -1 if task.prefers_less(asked.score) else 1
    kinds = list_decision_metrics(task) if isinstance(task, BinaryClassification) else []
    if any(run.label.endswith(BY_GROUP) for run in runs) and asked.score not in kinds:
        remark(
            f"thresholds by group change decisions, and not {asked.score}: --tradeoff_score "
            "accuracy shows what they cost"
        )
    title = f"{asked.task}: {asked.score} against the gap, {config['split']} rows"
    chart = draw_tradeoff(runs, methods, names, is_better, title)
    save_chart(chart, folder)
    Console().print(FoldedTable(tabulate_methods(methods, asked, title)), crop=False)
    print(f"{chart.finding}\nresults: {folder / NAME}.json and .png", flush=True)


def tabulate_methods(methods: Sequence[TradeoffMethod], asked: Asked, title: str) -> ReportTable:
    """Returns a table of methods: runs, score and gap, each with its standard deviation."""

    def write(mean: float, spread: float | None) -> Cell:
        return Cell(f"{mean:.4f}" if spread is None else f"{mean:.4f} ± {spread:.4f}")

    columns = [
        Column(("runs",), [Cell(str(one.runs)) for one in methods]),
        Column((asked.score,), [write(one.score, one.score_spread) for one in methods]),
        Column((f"gap in {asked.gap}",), [write(one.gap, one.gap_spread) for one in methods]),
    ]
    return ReportTable(title, NAME, [one.label for one in methods], columns)
