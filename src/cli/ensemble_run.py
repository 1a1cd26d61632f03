"""An ensemble as a run folder: results as a training leaves them, and which runs are averaged."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console

from src.cli.checks import refuse_place
from src.cli.ensemble import Ensemble, tabulate_ensemble
from src.cli.flags import Flag
from src.cli.members import NAME, Member, open_members
from src.cli.runs import drop_flags, find_value
from src.cli.terminal import remark
from src.cli.training import is_stopped_by_hand
from src.data import Split
from src.errors import UserError
from src.launch.job import name_job
from src.models.task_notes import describe_choices
from src.monitoring import say
from src.run import Run

OWN = (Flag("no_test", bool, False, "Leave the test out, as in tuning."),)
GROUP = "ensemble"  # runs are grouped below this name, unless --name says another


def make_ensemble(args: list[str]) -> dict[str, float]:
    """Averages runs, and leaves their results in a run folder.

    Args:
        args: The command line after the command.

    Returns:
        The value of each metric, of validation and test.

    Raises:
        UserError: A setting is wrong, or the runs cannot be averaged.
    """
    # where a new folder goes is no setting of the runs
    logs = find_value("logs", args) or "logs"
    name = find_value("name", args) or GROUP
    refuse_place(name)
    words = drop_flags(args, "logs", "name")
    members = open_members(words, OWN)
    cli = members[0].cli
    data = cli.datamodule
    if data.is_new:
        raise UserError(
            f"{data.files()[0]} holds new rows: an ensemble's folder has results on rows of its "
            "runs; for others there are src.evaluate and src.predict, with the same --run"
        )
    ensemble = Ensemble(members, words, OWN)
    splits: list[Split] = ["val"] if cli.config["no_test"] else ["val", "test"]
    for split in splits:
        data.split(split)  # a mistake in the rows comes before the folder

    run = Run.create(logs, name)
    run.begin(
        members[0].run.config.read_text(),
        cli.config["seed_everything"],
        resumed=False,
        job=name_job(),
        data=data.fingerprint(),
    )
    with recorded(run):
        keep_members(run, members)
        say(f"mean of the predictions of {len(members)} runs\nrun folder {run.path}")
        results: dict[str, dict[str, float]] = {}
        tables = []
        for split in splits:
            metrics, of_runs = ensemble.evaluate(split)
            results["validation" if split == "val" else split] = metrics
            tables.append(tabulate_ensemble(ensemble, split, metrics, of_runs))
        run.write(run.metrics, results)

        for line in data.remarks:
            remark(line)
        if cli.trainer.is_global_zero:
            lines = describe_choices(ensemble.model.tasks, ensemble.chosen)
            say("\n".join(lines) or "no task has a threshold to choose")
            for table in tables:
                Console().print(table, crop=False)
    return {key: value for metrics in results.values() for key, value in metrics.items()}


@rank_zero_only
def keep_members(run: Run, members: list[Member]) -> None:
    """Writes down which runs are averaged, and the schema that they have in common."""
    folders = [os.path.relpath(member.run.path, run.path) for member in members]
    run.write(run.path / NAME, {"members": folders})
    schema: Path = members[0].run.schema
    if schema.is_file():
        shutil.copy(schema, run.schema)


@contextmanager
def recorded(run: Run) -> Iterator[None]:
    """Records how the run ends: finished, interrupted, or failed."""
    try:
        yield
    except BaseException as error:
        if is_stopped_by_hand(error):
            run.end("interrupted")
            say("stopped; the same command begins anew")
            sys.exit(130)
        run.fail(error)
        raise
    run.end("finished")
