"""Evaluates a run's best checkpoint: python -m src.evaluate --run RUN [--split test] [--data.path new.csv] [--out metrics.json]."""

from typing import Any, cast

from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console

from src.cli.entrypoint import main, remark
from src.cli.runs import open_run, output_file
from src.data import Split
from src.errors import UserError
from src.files.atomic import write_atomically
from src.monitoring import results_table
from src.run.run import as_json


def add_arguments(parser: LightningArgumentParser) -> None:
    """Adds what only this verb knows."""
    parser.add_argument(
        "--split",
        type=str,
        default="test",
        help="train, val or test; new rows are evaluated whole.",
    )
    parser.add_argument(
        "--out", type=str | None, default=None, help="A .json file for the metrics."
    )
    parser.add_argument(
        "--overwrite", type=bool, default=False, help="Replace the file that --out names."
    )


def evaluate(args: list[str]) -> dict[str, float]:
    """Prints a table of tasks x metrics, the same on any number of devices, and returns {metric: value}."""
    checkpoint, cli = open_run(args, add_arguments)
    split = cli.config["split"]
    if split not in ("train", "val", "test"):
        raise UserError(f"--split is '{split}'; it must be train, val or test")
    out = output_file(cli.config["out"], [".json"], cli) if cli.config["out"] else None

    data = cli.datamodule
    data.test_split = cast(Split, split)
    described = data.describe(
        data.test_split
    )  # also reads the rows, so that a mistake in them comes before any work
    trainer = cli.trainer
    trainer.test(cli.model, data, ckpt_path=checkpoint, verbose=False)
    metrics: dict[str, Any] = {
        key.replace("test/", f"{split}/", 1): float(value)
        for key, value in trainer.callback_metrics.items()
    }

    for line in data.remarks:
        remark(line)
    if trainer.is_global_zero:
        print(described, flush=True)
        Console().print(results_table(cli.model.tasks, metrics, split), crop=False)
        if out:
            write_atomically(out, lambda file: file.write(as_json(metrics)))
    return metrics


if __name__ == "__main__":
    main(evaluate)
