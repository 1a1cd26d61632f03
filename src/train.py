"""Trains a model: python -m src.train [--config FILE] [--devices N] [--name NAME] [--resume RUN] [--any.key value]."""

import sys
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console

from src.cli import CLI, main, value_of
from src.config import ConfigError, flags
from src.monitoring import Board, Interrupted, NoProfiler, log_results, results_table
from src.run import Run, SafeCheckpointIO, load_checkpoint


class Training:
    """One run from the command line to its results."""

    def __init__(self, args: list[str]) -> None:
        folder = value_of("resume", args)
        self.resumed = Run.open(folder) if folder is not None else None
        if self.resumed:
            for key, _ in flags(args):
                if key.split(".")[0] in ("data", "model", "seed_everything", "config", "name", "logs"):
                    raise ConfigError(f"--{key} cannot go with --resume: a resumed run keeps its own; start a new run instead")
            self.resumed.checkpoint("last")
        self.run: Run | None = None
        base = self.resumed.read_config() if self.resumed else None
        try:
            self.cli = CLI(args, base=base, extra=self.add_arguments, trainer_settings=self.trainer_settings)
        except BaseException:
            if self.run and not self.resumed:
                self.run.discard()
            raise

    @staticmethod
    def add_arguments(parser: LightningArgumentParser) -> None:
        """Adds what only this verb knows."""
        parser.add_argument("--resume", type=str, default=None, help="Run folder to continue in place, with its own config.")

    def trainer_settings(self, cli: CLI) -> dict[str, Any]:
        """Makes the run folder, the logger and the watchers."""
        settings, watch = cli.config_init["trainer"], cli.config_init["watch"]
        if self.resumed:
            refuse_too_short(self.resumed, settings)
        if watch.patience is not None and settings["limit_val_batches"] == 0:
            raise ValueError("watch.patience waits for a better validation score, but trainer.limit_val_batches is 0")
        name = cli.config["name"]
        if name is not None and (not name.strip() or Path(name).is_absolute() or ".." in Path(name).parts):
            raise ValueError(f"--name {name}: a name groups runs below --logs; it is no path of another place")
        if not settings["fast_dev_run"]:
            self.run = self.resumed or Run.create(cli.config["logs"], name or type(cli.datamodule).__name__.lower())
        checkpoints = self.run.last.parent if self.run and settings["enable_checkpointing"] is not False else None
        theirs = any(isinstance(callback, ProgressBar) for callback in cli.given("callbacks"))
        bar = sys.stderr.isatty() if settings["enable_progress_bar"] is None else settings["enable_progress_bar"]
        callbacks = watch.callbacks(checkpoints, cli.yaml, bar and not theirs)
        added: dict[str, Any] = {"callbacks": callbacks, "plugins": [SafeCheckpointIO()], "enable_progress_bar": bar or theirs}
        if settings["profiler"] is None:
            added["profiler"] = NoProfiler()
        if self.run:
            added["default_root_dir"] = str(self.run.path)
            if settings["logger"] in (None, True):
                added["logger"] = Board(self.run.path)
        return added

    def start(self) -> None:
        """Trains and tests, and leaves a record of how it ended."""
        cli, run = self.cli, self.run
        if run is None:  # a debug run leaves nothing
            self.fit()
            return
        run.begin(cli.yaml, cli.config["seed_everything"], resumed=self.resumed is not None)
        schema = cli.datamodule.schema()
        if schema is not None:
            run.write(run.schema, schema)
        try:
            say("\n".join([*cli.datamodule.notes(), *cli.model.notes(), f"run folder {run.path}"]))
            self.fit()
        except Interrupted as stop:
            run.end("interrupted")
            say(f"{stop}; continue with: python -m src.train --resume {run.path}")
            sys.exit(130 if cli.trainer.is_global_zero else 0)
        except BaseException as error:
            if stopped_by_hand(error):
                run.end("interrupted")
                say("stopped at once" + (f"; continue with: python -m src.train --resume {run.path}" if run.last.is_file() else ""))
                sys.exit(130 if cli.trainer.is_global_zero else 0)
            run.end("failed", error=" ".join(str(error).split()) or type(error).__name__)
            raise
        run.end("finished", epochs=cli.trainer.current_epoch, steps=cli.trainer.global_step)

    def fit(self) -> None:
        """Trains, and tests the best checkpoint once."""
        cli, trainer, run = self.cli, self.cli.trainer, self.run
        trainer.fit(cli.model, cli.datamodule, ckpt_path=run.last if run and self.resumed else None)
        # without validation there is no best, and the last weights count; the first rank says, whose clock has named the folder
        best = trainer.strategy.broadcast(str(run.best) if run and run.best.is_file() else None)
        trainer.test(cli.model, cli.datamodule, ckpt_path=best, verbose=False)
        if not trainer.is_global_zero:
            return
        test = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("test/")}
        if run:
            kept: dict[str, Any] = load_checkpoint(best, mmap=True) if best else {"metrics": {}, "global_step": trainer.global_step}
            run.write(run.metrics, {"validation": kept["metrics"], "test": test})
            log_results(trainer, cli.model.tasks, kept["metrics"], test, step=kept["global_step"])
        if lines := cli.model.lines():  # of the weights that were tested
            say("\n".join(lines))
        if test:  # none with --trainer.limit_test_batches 0
            Console().print(results_table(cli.model.tasks, test, "test"))


def refuse_too_short(run: Run, settings: Any) -> None:
    """Looks at the limits of a resumed run, before anything is written.

    Raises:
        ValueError: The run is longer already, or is to be resumed in a mode that keeps nothing.
    """
    if settings["fast_dev_run"]:
        raise ValueError("--fast_dev_run cannot go with --resume: it keeps nothing, and the run would not go on")
    checkpoint = load_checkpoint(run.last, mmap=True)
    epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    for key, done, word in (("max_epochs", epochs, "epochs"), ("max_steps", checkpoint["global_step"], "steps")):
        if settings[key] is not None and -1 < settings[key] < done:
            raise ValueError(f"trainer.{key} is {settings[key]}, but the run has trained {done} {word} already: ask for more")


def stopped_by_hand(error: BaseException | None) -> bool:
    """Whether a Ctrl-C is behind an error: Lightning makes it an exit, torch.save a RuntimeError."""
    return error is not None and (isinstance(error, KeyboardInterrupt | SystemExit) or stopped_by_hand(error.__context__))


@rank_zero_only
def say(message: str) -> None:
    """Tells the person at the terminal, once."""
    print(message, flush=True)


def train(args: list[str]) -> None:
    """Trains, tests the best checkpoint once, prints a table, and leaves a run folder."""
    Training(args).start()


if __name__ == "__main__":
    main(train)
