"""Results of merged runs: each task under its own run, merged, and trained jointly."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import Any

from src.checkpoint import load_checkpoint
from src.cli.app import CLI
from src.cli.members import Member
from src.cli.merge_data import find_unlike_rows
from src.cli.merge_network import Network
from src.cli.merge_runs import MergedRun
from src.cli.results import join_stages
from src.cli.runs import drop_flags, open_run
from src.errors import UserError
from src.models import MultiTaskModel
from src.monitoring import tabulate_results
from src.monitoring.table import ResultsTable
from src.run import Run
from src.tasks.score import compute_mean

OWN = "own run"  # the name of the results of each task under the run that trains it
JOINT = "joint"
STAGES = {"validation": "val", "test": "test"}


@dataclass(frozen=True)
class Beside:
    """The results of another run.

    Attributes:
        path: Its folder.
        results: {validation or test: {stage/task/metric: value}}.
    """

    path: str
    results: dict[str, dict[str, float]]


def open_joint(path: str, first: MergedRun, merged: CLI, words: list[str]) -> Beside:
    """Opens a run that was trained on the tasks of all merged runs together.

    Args:
        path: Its folder.
        first: The first of the merged runs.
        merged: The data and model of the merged run.
        words: The flags that open runs.

    Raises:
        UserError: It has none of the tasks, or other rows.
    """
    checkpoint, cli = open_run([*drop_flags(words, "checkpoint"), f"--run={path}"], (), says=False)
    tasks = merged.model.tasks
    if not set(tasks) <= set(cli.model.tasks):
        lacking = [name for name in tasks if name not in cli.model.tasks]
        raise UserError(f"--joint {path}: it was not trained on {', '.join(lacking)}")
    member = Member(Run(path), str(checkpoint), cli)
    if (how := find_unlike_rows(first.member, member)) is not None:
        raise UserError(f"--joint {path} cannot stand beside {first.path}: {how}")
    return Beside(path, read_results(member.run, str(checkpoint)))


def read_results(run: Run, checkpoint: str) -> dict[str, dict[str, float]]:
    """Returns the metrics of a checkpoint in validation, and in test where the run was tested.

    Test rows are not looked at again: without results of the run's own test there are none.
    """
    kept = load_checkpoint(checkpoint, mmap=True, whole=False)
    found = {"validation": dict(kept["metrics"])}
    results = run.read_results()
    # the best weights are tested, and others are not
    if results is not None and "test" in results and checkpoint == str(run.best):
        tested = results["test"]
        found["test"] = {key: nan if value is None else value for key, value in tested.items()}
    return found


def collect_references(
    network: Network, joint: Beside | None, tests: bool
) -> dict[str, dict[str, dict[str, float]]]:
    """Returns the results that stand beside those of the merged run, as metrics.json has them.

    Args:
        network: The merged network.
        joint: A run on all tasks; None for none.
        tests: Whether results on test rows are shown.

    Returns:
        {name: {validation or test: {stage/task/metric: value}}}. Where each task is of one run,
        there is one entry for all of them, else one for each run.
    """
    stages = ["validation", "test"] if tests else ["validation"]
    model = network.model
    own = [read_results(run.run, run.checkpoint) for run in network.runs]
    owners = {
        task: numbers for task, numbers in network.owners.items() if task not in network.untrained
    }
    found: dict[str, dict[str, dict[str, float]]] = {}
    if all(len(numbers) == 1 for numbers in owners.values()):
        sources = {task: own[numbers[0]] for task, numbers in owners.items()}
        found[OWN] = {stage: select_tasks(sources, stage, model) for stage in stages}
    else:
        for number, results in enumerate(own):
            tasks = [task for task, numbers in owners.items() if number in numbers]
            sources = dict.fromkeys(tasks, results)
            name = f"run {number + 1}"
            found[name] = {stage: select_tasks(sources, stage, model) for stage in stages}
    if joint is not None:
        sources = dict.fromkeys(model.tasks, joint.results)
        found[JOINT] = {stage: select_tasks(sources, stage, model) for stage in stages}
    return found


def select_tasks(
    sources: Mapping[str, Mapping[str, Mapping[str, float]]], stage: str, model: MultiTaskModel
) -> dict[str, float]:
    """Returns the metrics of tasks, each of its own results, and the score of these tasks.

    Args:
        sources: {task: its results}.
        stage: validation or test.
        model: The model whose tasks they are.
    """
    word = STAGES[stage]
    values: dict[str, float] = {}
    scores: dict[str, float] = {}
    for name, results in sources.items():
        start = f"{word}/{name}/"
        own = {key: value for key, value in results.get(stage, {}).items() if key.startswith(start)}
        values |= own
        task = model.tasks[name]
        key = start + task.monitor
        scores[name] = task.score({task.monitor: own[key]}) if key in own else nan
    return values | {f"{word}/score": compute_mean(scores, model.score_weights)}


def tabulate(
    tasks: Mapping[str, Any],
    results: Mapping[str, Any],
    references: Mapping[str, Mapping[str, Any]],
) -> ResultsTable:
    """Returns a table of the merged run's results, with the others in rows below each task."""
    shown = join_stages(results)
    stages = [stage for stage in STAGES.values() if f"{stage}/score" in shown]
    beside = {name: join_stages(found) for name, found in references.items()}
    return tabulate_results(tasks, shown, *stages, references=beside)
