"""Trains a model: python -m src.train [--config FILE] [--devices N] [--name NAME] [--resume RUN] [--any.key value]."""

import sys
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console

from src.checkpoint import SafeCheckpointIO, load_checkpoint
from src.cli import CLI, value_of
from src.config import ConfigError, flags
from src.monitoring import Board, Interrupted, NoProfiler, log_results, results_table
from src.parallel import job, started_again
from src.run import Run
from src.verb import main


class StartedAgain(Exception):
    """SLURM or torchrun has started this job again, and it has begun a run already."""

    def __init__(self, run: Run) -> None:
        super().__init__(str(run.path))
        self.run = run


class Training:
    """One run from the command line to its results.

    Args:
        args: The command line after the verb.
        begun: The run that goes on where ``args`` names none; it need not have come as far as a checkpoint.
    """

    def __init__(self, args: list[str], begun: Run | None = None) -> None:
        folder = value_of("resume", args)
        self.resumed = Run.open(folder) if folder is not None else begun
        if folder is not None and self.resumed:
            for key, _ in flags(args):
                if key.split(".")[0] in ("data", "model", "seed_everything", "config", "name", "logs"):
                    raise ConfigError(f"--{key} cannot go with --resume: a resumed run keeps its own; start a new run instead")
            self.resumed.checkpoint("last")
        self.run: Run | None = None
        base = self.resumed.read_config() if self.resumed else None
        try:
            self.cli = CLI(
                args,
                base=base,
                extra=self.add_arguments,
                trainer_settings=self.trainer_settings,
                parsed=None if self.resumed else self.look_back,
                trains=True,
            )
        except BaseException:
            if self.run and not self.resumed:
                self.run.discard()
            raise

    @staticmethod
    def add_arguments(parser: LightningArgumentParser) -> None:
        """Adds what only this verb knows."""
        parser.add_argument("--resume", type=str, default=None, help="Run folder to continue in place, with its own config.")
        parser.add_argument("--plan", type=bool, default=False, help="Say what a run on such devices, here or not, would be.")

    @staticmethod
    def look_back(cli: CLI) -> None:
        """Looks for the run of an earlier attempt of this job.

        Raises:
            StartedAgain: There is one.
        """
        name = job()
        if name is None or not started_again() or cli.config["trainer"]["fast_dev_run"] or cli.only_plans:
            return
        begun = Run.of_job(cli.config["logs"], group_of(cli), name)
        if begun is not None:
            raise StartedAgain(begun)

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
            self.run = self.resumed or Run.create(cli.config["logs"], group_of(cli))
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
        """Trains and tests, and leaves a record of how it ended; or only says what it would do."""
        cli, run = self.cli, self.run
        if cli.only_plans:
            self.show_plan()
            return
        if run is None:  # a debug run leaves nothing
            self.fit()
            return
        run.begin(cli.yaml, cli.config["seed_everything"], resumed=self.resumed is not None, job=job())
        schema = cli.datamodule.schema()
        if schema is not None:
            run.write(run.schema, schema)
        try:
            say("\n".join([*cli.datamodule.notes(), *cli.model.notes(), f"run folder {run.path}"]))
            self.show_plan()
            self.fit()
        except Interrupted as stop:
            run.end("interrupted")
            say(f"{stop}; continue with: python -m src.train --resume {run.path}")
            sys.exit(130 if cli.trainer.is_global_zero else 0)
        except BaseException as error:
            if stopped_by_hand(error):
                run.end("interrupted")
                say("stopped at once" + (f"; continue with: python -m src.train --resume {run.path}" if run.last.exists() else ""))
                sys.exit(130 if cli.trainer.is_global_zero else 0)
            run.end("failed", error=" ".join(str(error).split()) or type(error).__name__)
            raise
        run.end("finished", epochs=cli.trainer.current_epoch, steps=cli.trainer.global_step)

    @rank_zero_only
    def show_plan(self) -> None:
        """Says what runs where: a table of several devices, a line of one."""
        plan = self.cli.plan()
        if plan.devices.count > 1 or self.cli.only_plans:
            Console().print(plan.table())
        else:
            say(plan.line())

    def fit(self) -> None:
        """Trains, and tests the best checkpoint once."""
        cli, trainer, run = self.cli, self.cli.trainer, self.run
        trainer.fit(cli.model, cli.datamodule, ckpt_path=run.last if run and self.resumed and run.last.exists() else None)
        # without validation there is no best, and the last weights count; the first rank says, whose clock has named the folder
        best = trainer.strategy.broadcast(str(run.best) if run and run.best.exists() else None)
        trainer.test(cli.model, cli.datamodule, ckpt_path=best, verbose=False)
        lines = cli.model.lines()  # of the weights that were tested
        if not trainer.is_global_zero:
            return
        test = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("test/")}
        if run:
            kept: dict[str, Any] = load_checkpoint(best, mmap=True) if best else {"metrics": {}, "global_step": trainer.global_step}
            run.write(run.metrics, {"validation": kept["metrics"], "test": test})
            log_results(trainer, cli.model.tasks, kept["metrics"], test, step=kept["global_step"])
        if lines:
            say("\n".join(lines))
        if test:  # none with --trainer.limit_test_batches 0
            Console().print(results_table(cli.model.tasks, test, "test"))


def group_of(cli: CLI) -> str:
    """Below which name a run's folder lies: --name, or the data's."""
    return cli.config["name"] or cli.config["data"]["class_path"].rpartition(".")[2].lower()


def refuse_too_short(run: Run, settings: Any) -> None:
    """Looks at the limits of a resumed run, before anything is written.

    Raises:
        ValueError: The run is longer already, or is to be resumed in a mode that keeps nothing.
    """
    if settings["fast_dev_run"]:
        raise ValueError("--fast_dev_run cannot go with --resume: it keeps nothing, and the run would not go on")
    if not run.last.exists():  # an earlier attempt has not come as far
        return
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
    try:
        training = Training(args)
    except StartedAgain as again:  # as --resume would: with the run's own configuration, whatever the files say by now
        training = Training([], begun=again.run)
    training.start()


if __name__ == "__main__":
    main(train)
