"""Evaluates a run's best checkpoint: python -m src.evaluate --run RUN [--split test] [--devices N] [--out metrics.json]."""

import json
from typing import Any, cast

from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console

from src.cli import open_run, output_file
from src.data import Split
from src.monitoring import results_table
from src.verb import main


def add_arguments(parser: LightningArgumentParser) -> None:
    """Adds what only this verb knows."""
    parser.add_argument("--split", type=str, default="test", help="train, val or test.")
    parser.add_argument("--out", type=str | None, default=None, help="A .json file for the metrics.")


def evaluate(args: list[str]) -> dict[str, float]:
    """Prints a table of tasks x metrics, the same on any number of devices, and returns {metric: value}."""
    checkpoint, cli = open_run(args, add_arguments)
    split = cli.config["split"]
    if split not in ("train", "val", "test"):
        raise ValueError(f"--split is '{split}'; it must be train, val or test")
    out = output_file(cli.config["out"], [".json"]) if cli.config["out"] else None
    cli.datamodule.test_split = cast(Split, split)
    trainer = cli.trainer
    trainer.test(cli.model, cli.datamodule, ckpt_path=checkpoint, verbose=False)
    metrics: dict[str, Any] = {
        key.replace("test/", f"{split}/", 1): float(value) for key, value in trainer.callback_metrics.items()
    }
    if trainer.is_global_zero:
        Console().print(results_table(cli.model.tasks, metrics, split))
        if out:
            out.write_text(json.dumps(metrics, indent=2) + "\n")
    return metrics


if __name__ == "__main__":
    main(evaluate)
