"""The metrics of a run's checkpoint on one split of its data, or on new rows."""

from typing import cast

from rich.console import Console

from src.cli.flags import Flag
from src.cli.output import check_output
from src.cli.passes import evaluate_checkpoint
from src.cli.runs import open_run
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
)


def evaluate_run(args: list[str]) -> dict[str, float]:
    """Prints a table of tasks x metrics, the same on any number of devices.

    Args:
        args: The command line after the command.

    Returns:
        The value of each metric.

    Raises:
        UserError: A setting is wrong, or the rows are.
    """
    checkpoint, cli = open_run(args, OWN)
    split = cli.config["split"]
    if split not in ("train", "val", "test"):
        raise UserError(f"--split is '{split}'; it must be train, val or test")
    out = check_output(cli.config["out"], [".json"], cli) if cli.config["out"] else None

    data = cli.datamodule
    data.test_split = cast(Split, split)
    # it also reads the rows, so that a mistake in them comes before any work
    described = data.describe(data.test_split)
    metrics: dict[str, float] = {}
    for key, value in evaluate_checkpoint(cli, checkpoint).items():
        metrics[key.replace("test/", f"{split}/", 1)] = value

    for line in data.remarks:
        remark(line)
    if cli.trainer.is_global_zero:
        print(described, flush=True)
        Console().print(tabulate_results(cli.model.tasks, metrics, split), crop=False)
        if out:
            write_atomically(out, lambda file: file.write(to_json(metrics)))
    return metrics
