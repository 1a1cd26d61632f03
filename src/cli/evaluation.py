"""The metrics of a run's checkpoint on one split of its data, or on new rows."""

from typing import cast

from rich.console import Console

from src.cli.calibrated import describe_calibration
from src.cli.ensemble import Ensemble, tabulate_ensemble
from src.cli.flags import Flag
from src.cli.front import FRONT, asks_for_front, evaluate_front
from src.cli.group_decisions import evaluate_decisions
from src.cli.members import open_members
from src.cli.output import check_output
from src.cli.passes import evaluate_checkpoint
from src.cli.preference import PREFERENCE, set_preference
from src.cli.terminal import remark
from src.data import Split
from src.errors import UserError
from src.files.atomic import write_atomically
from src.files.typed import to_json
from src.monitoring import tabulate_results

OWN = (
    Flag("split", str, "test", "train, val or test; new rows are evaluated whole."),
    Flag("out", str | None, None, "A .json file for the metrics."),
    Flag("overwrite", bool, False, "Replace the file that --out names."),
    PREFERENCE,
    *FRONT,
)


def evaluate_run(args: list[str]) -> dict[str, float]:
    """Prints a table of tasks x metrics, the same on any number of devices.

    Several runs are averaged, and the mean of their own values stands beside.

    Args:
        args: The command line after the command.

    Returns:
        The value of each metric.

    Raises:
        UserError: A setting is wrong, or the rows are.
    """
    members = open_members(args, OWN)
    cli = members[0].cli
    split = cli.config["split"]
    if split not in ("train", "val", "test"):
        raise UserError(f"--split is '{split}'; it must be train, val or test")
    out = check_output(cli.config["out"], [".json"], members) if cli.config["out"] else None

    set_preference([member.cli.model for member in members], cli.config["preference"])
    data = cli.datamodule
    data.test_split = cast(Split, split)
    # it also reads the rows, so that a mistake in them comes before any work
    described = data.describe(data.test_split)
    if asks_for_front(cli):
        cli.model.calibrate({})
        return evaluate_front(members, args, OWN, described, out)
    if len(members) > 1:
        described += f"; predictions are the means of {len(members)} runs"
        ensemble = Ensemble(members, args, OWN)
        metrics, of_runs = ensemble.evaluate(data.test_split)
        shown = tabulate_ensemble(ensemble, split, metrics, of_runs)
    else:
        tested = evaluate_checkpoint(cli, members[0].checkpoint)
        metrics = {key.replace("test/", f"{split}/", 1): value for key, value in tested.items()}
        metrics = evaluate_decisions(cli, members[0], data.test_split, metrics)
        shown = tabulate_results(cli.model.tasks, metrics, split)

    for line in (*data.remarks, *describe_calibration([one.cli.model for one in members])):
        remark(line)
    if cli.trainer.is_global_zero:
        print(described, flush=True)
        Console().print(shown, crop=False)
        for line in cli.model.meta.summary() if cli.model.meta is not None else []:
            print(line, flush=True)
        if out:
            write_atomically(out, lambda file: file.write(to_json(metrics)))
    return metrics
