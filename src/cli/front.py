"""The front of a network that takes preferences: its scores at many, beside fixed weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from lightning.fabric.utilities.rank_zero import rank_zero_only
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from src.analysis.charts.chart import save_chart
from src.analysis.charts.front import draw_fronts
from src.analysis.charts.pareto import find_front
from src.analysis.hypervolume import Hypervolume, list_preferences, measure_hypervolume
from src.analysis.record import NAME as STUDY
from src.analysis.record import read_study
from src.cli.app import CLI
from src.cli.flags import Flag
from src.cli.members import Member, find_difference
from src.cli.passes import evaluate_checkpoint
from src.cli.preference import refuse_no_front
from src.cli.runs import drop_flags, open_run
from src.cli.terminal import remark
from src.errors import UserError
from src.files.atomic import write_atomically
from src.files.typed import to_json
from src.run import Run

FRONT = (
    Flag(
        "front",
        int | None,
        None,
        "Evaluate at as many preferences between each two tasks, and draw the front: 11.",
    ),
    Flag(
        "beside",
        str | None,
        None,
        "Runs of fixed weights that --front shows beside it: folders, with commas, or a study's.",
    ),
)
MOST = 500  # preferences
MARGIN = 0.1


class Point(TypedDict):
    """One evaluation.

    Attributes:
        preference: {task: how much it counts} on the front, the fixed weights of another run.
        run: The run folder.
        scores: {task: score}; more is better.
        metrics: All metrics.
    """

    preference: dict[str, float]
    run: str
    scores: dict[str, float]
    metrics: dict[str, float]


class FrontRecord(TypedDict):
    """The record of a front, front.json.

    Attributes:
        rows: The rows that were evaluated.
        scores: {task: what its score is}.
        front: The network at each preference.
        beside: Other runs.
        reference: {task: a tenth below the worst score of the points that no other beats}, from
            which volumes are measured; of all points where one beats all others.
        best: {task: the best score}.
        hypervolume: {front or beside: the volume that the points dominate}.
        share: {front or beside: its share of the box between the reference and the best scores}.
        error: {front or beside: standard error of that share}; 0 where it is exact.
    """

    rows: str
    scores: dict[str, str]
    front: list[Point]
    beside: list[Point]
    reference: dict[str, float]
    best: dict[str, float]
    hypervolume: dict[str, float]
    share: dict[str, float]
    error: dict[str, float]


@dataclass
class Measured:
    """Points of one kind.

    Attributes:
        name: What they are, for people.
        points: The points.
    """

    name: str
    points: list[Point]

    def tabulate(self, tasks: Sequence[str]) -> NDArray[np.float64]:
        """Returns the scores (n, T)."""
        rows = [[point["scores"][task] for task in tasks] for point in self.points]
        return np.array(rows, dtype=np.float64).reshape(-1, len(tasks))


def asks_for_front(cli: CLI) -> bool:
    """Returns whether the command line asks for a front.

    Raises:
        UserError: A flag that belongs to it stands alone.
    """
    if cli.config["front"] is None and cli.config["beside"] is not None:
        raise UserError("--beside goes with --front, such as --front 11")
    return cli.config["front"] is not None


def evaluate_front(
    members: Sequence[Member],
    args: list[str],
    own: Sequence[Flag],
    described: str,
    out: Path | None,
) -> dict[str, float]:
    """Evaluates a run at many preferences; leaves front.json and a picture in its folder.

    Args:
        members: The run; there may be one alone.
        args: The command line that it was opened by.
        own: The flags that the command alone knows.
        described: The rows, in words.
        out: Another file for the record.

    Returns:
        The hypervolumes, as shares of the box between the ends of the common front.

    Raises:
        UserError: The run has no front, a flag does not go with it, a run beside it is of other
            tasks or rows, or no score is finite.
    """
    cli = members[0].cli
    tasks = list(cli.model.tasks)
    preferences = choose_preferences(cli, len(members), len(tasks))
    others = open_beside(members[0], args, own)

    network = Measured(type(cli.model.sharing).__name__, [])
    for preference in preferences:
        chosen = dict(zip(tasks, preference.tolist(), strict=True))
        cli.model.sharing.prefer(chosen)
        network.points.append(measure_point(members[0], chosen))
    fixed = Measured("other runs", [])
    for member in others:
        member.cli.datamodule = cli.datamodule
        fixed.points.append(measure_point(member, dict(member.cli.model.weights)))

    record = make_record(cli, described, network, fixed)
    for line in cli.datamodule.remarks:
        remark(line)
    show(record, network, fixed, tasks)
    save(record, [network, fixed], members[0].run, out)
    return {f"hypervolume/{name}": value for name, value in record["share"].items()}


def choose_preferences(cli: CLI, runs: int, tasks: int) -> NDArray[np.float64]:
    """Returns the preferences (n, T) at which the network is evaluated.

    Raises:
        UserError: The run has no front, or there are too few preferences or too many.
    """
    refuse_no_front(cli.model, "--front")
    points = cli.config["front"]
    if runs > 1:
        raise UserError("--front goes with one run, not with the mean of several")
    if cli.config["preference"] is not None:
        raise UserError("--front evaluates at many preferences: leave --preference out")
    if points < 2:
        raise UserError(f"--front {points}: it must be at least 2, the two ends between two tasks")
    count = comb(points + tasks - 2, tasks - 1)
    if count > MOST:
        raise UserError(
            f"--front {points} is {count} preferences among {tasks} tasks; there may be {MOST}: "
            "choose fewer"
        )
    return list_preferences(tasks, points)


def open_beside(member: Member, args: list[str], own: Sequence[Flag]) -> list[Member]:
    """Opens the runs that --beside names.

    Raises:
        UserError: There are none, or one is of other tasks or rows.
    """
    value = member.cli.config["beside"]
    if value is None:
        return []
    rest = drop_flags(args, "run", "beside", "front")
    found = []
    for folder in list_folders(value):
        if folder.resolve() == member.run.path.resolve():
            continue
        checkpoint, cli = open_run([*rest, f"--run={folder}"], own, says=False)
        other = Member(Run(folder), str(checkpoint), cli)
        if (how := find_difference(member, other)) is not None:
            raise UserError(f"--beside: {folder} cannot stand beside {member.run.path}: {how}")
        found.append(other)
    return found


def list_folders(value: str) -> list[Path]:
    """Returns the run folders that --beside names: themselves, those below, or those of a study.

    Raises:
        UserError: A folder holds none.
    """
    folders: list[Path] = []
    for name in [value] if Path(value).is_dir() else value.split(","):
        path = Path(name.strip())
        if (path / STUDY).is_file():
            trials = read_study(path)["trials"].values()
            runs = [path.parent / trial["run"] for trial in trials if trial["run"] is not None]
        elif (path / "config.yaml").is_file():
            runs = [path]
        else:
            runs = sorted(config.parent for config in path.rglob("config.yaml"))
        # references are no networks, and a run that has just begun has no weights
        trained = [run for run in runs if (run / "checkpoints").is_dir()]
        if not trained:
            raise UserError(f"--beside {name}: there is no trained run")
        folders += trained
    return folders


def measure_point(member: Member, preference: dict[str, float]) -> Point:
    """Evaluates the checkpoint of a run once."""
    cli = member.cli
    tested = evaluate_checkpoint(cli, member.checkpoint)
    scores = {}
    for name, task in cli.model.tasks.items():
        start = f"test/{name}/"
        own = {key.removeprefix(start): value for key, value in tested.items() if start in key}
        scores[name] = task.score(own)
    metrics = {key.removeprefix("test/"): value for key, value in tested.items()}
    return Point(preference=preference, run=str(member.run.path), scores=scores, metrics=metrics)


def make_record(cli: CLI, described: str, network: Measured, fixed: Measured) -> FrontRecord:
    """Makes the record, with volumes measured from the worst ends of the common front."""
    tasks = cli.model.tasks
    names = list(tasks)
    every = np.concatenate([network.tabulate(names), fixed.tabulate(names)])
    every = every[np.isfinite(every).all(1)]
    if not len(every):
        raise UserError("no point of the front has a finite score of every task")
    best = every.max(0)
    reference = every[find_front(every, (1,) * len(names))].min(0)
    reference = np.where(reference < best, reference, every.min(0))
    # a little below, so that the ends of the front count too
    reference = reference - MARGIN * (best - reference)

    # a task whose score is the same everywhere says nothing, and would leave no volume at all
    told = best > reference
    box = float((best - reference)[told].prod())
    volumes: dict[str, Hypervolume] = {}
    for key, measured in (("front", network), ("beside", fixed)):
        if measured.points:
            scores = measured.tabulate(names)[:, told]
            volumes[key] = measure_hypervolume(scores, reference[told])
    return FrontRecord(
        rows=described,
        scores={name: task.describe_score() for name, task in tasks.items()},
        front=network.points,
        beside=fixed.points,
        reference=dict(zip(names, reference.tolist(), strict=True)),
        best=dict(zip(names, best.tolist(), strict=True)),
        hypervolume={key: volume.value for key, volume in volumes.items()},
        share={key: volume.value / box for key, volume in volumes.items()},
        error={key: volume.error / box for key, volume in volumes.items()},
    )


def describe_volumes(record: FrontRecord, names: Mapping[str, str]) -> str:
    """Says how much the points of each kind dominate."""
    words = []
    for key, share in record["share"].items():
        error = record["error"][key]
        estimate = f" (estimated, standard error {error:.1g})" if error else ""
        count = len(record["front"] if key == "front" else record["beside"])
        words.append(f"{names[key]} {share:.3f}{estimate} with {count} points")
    return (
        "hypervolume, as a share of the box between the ends of the common front: "
        f"{', '.join(words)}"
    )


@rank_zero_only
def show(record: FrontRecord, network: Measured, fixed: Measured, tasks: Sequence[str]) -> None:
    """Prints the scores at each preference, and the volumes."""
    print(record["rows"], flush=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("preference" if len(tasks) > 1 else "")
    for name in tasks:
        table.add_column(f"{name} ({record['scores'][name]})", justify="right")
    for measured in (network, fixed):
        if not measured.points:
            continue
        table.add_row(f"[bold]{measured.name}[/]")
        for point in measured.points:
            shares = " ".join(f"{point['preference'][name]:.3g}" for name in tasks)
            table.add_row(shares, *(f"{point['scores'][name]:.4f}" for name in tasks))
    console = Console()
    console.print(table, crop=False)
    names = {"front": network.name, "beside": fixed.name}
    print(describe_volumes(record, names), flush=True)


@rank_zero_only
def save(record: FrontRecord, sets: Sequence[Measured], run: Run, out: Path | None) -> None:
    """Writes the record, and the picture beside it in the run folder."""
    path = out or run.path / "front.json"
    content: dict[str, Any] = {**record}
    write_atomically(path, lambda file: file.write(to_json(content)))
    names = {"front": sets[0].name, "beside": sets[1].name}
    tasks = list(record["scores"])
    drawn = {measured.name: measured.tabulate(tasks) for measured in sets if len(measured.points)}
    finding = describe_volumes(record, names)
    scores = list(record["scores"].values())
    chart = draw_fronts(drawn, tasks, scores, record["rows"], finding)
    if chart.figure is None:
        print(f"{path}", flush=True)
        return
    save_chart(chart, path.parent)
    print(f"{path}, and the picture front.png, .svg and .pdf beside it", flush=True)
