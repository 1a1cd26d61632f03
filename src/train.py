"""Trains a model: python -m src.train [--config FILE] [--devices N] [--name NAME] [--resume RUN] [--any.key value]."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    LearningRateFinder,
    ProgressBar,
    WeightAveraging,
)
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console

from src.checkpoint import SafeCheckpointIO, load_checkpoint
from src.cli.app import CLI
from src.cli.config import ConfigError, flags
from src.cli.entrypoint import main
from src.cli.runs import add_trust, settings_of, trusted, value_of
from src.errors import UserError
from src.launch.job import is_restart, name_job
from src.monitoring import (
    Board,
    Interrupted,
    LearningRate,
    NoProfiler,
    Selection,
    log_results,
    results_table,
    say,
    which_weights,
    why_ended,
)
from src.planning.plan_table import format_plan, make_table
from src.run.run import Run

RATE = "model.optimizer.lr"


class StartedAgain(Exception):
    """SLURM or torchrun has started this job again, and it has begun a run already."""

    def __init__(self, run: Run) -> None:
        super().__init__(str(run.path))
        self.run = run


class Training:
    """One run from the command line to its results.

    Args:
        args: The command line after the verb.
        begun: The run that goes on where ``args`` names none; it need not have come as far as a
            checkpoint.
    """

    def __init__(self, args: list[str], begun: Run | None = None) -> None:
        folder = value_of("resume", args)
        self.resumed = Run.open(folder) if folder is not None else begun
        if folder is not None and self.resumed:
            refuse_other_run(flags(args))
            self.resumed.checkpoint("last")
        self.asks_for_rate = any(key == RATE for key, _ in flags(args))
        self.run: Run | None = None
        packages = None if begun else trusted(args)
        if packages and folder is None:
            raise ConfigError(
                "--trust goes with --resume: a new run's own configuration is trusted"
            )
        base = settings_of(self.resumed, packages, training=flags(args)) if self.resumed else None
        try:
            self.cli = CLI(
                args,
                base=base,
                extra=self.add_arguments,
                trainer_settings=self.trainer_settings,
                parsed=self.claim if self.resumed else self.look_back,
                trains=True,
            )
        except BaseException:
            if self.resumed:
                self.resumed.lock.release()
            elif self.run:
                self.run.discard()
            raise

    @staticmethod
    def add_arguments(parser: LightningArgumentParser) -> None:
        """Adds what only this verb knows."""
        parser.add_argument(
            "--resume",
            type=str,
            default=None,
            help="Run folder to continue in place, with its own config.",
        )
        parser.add_argument(
            "--no_test",
            type=bool,
            default=False,
            help="Leave the test out, as in tuning; evaluate tests later.",
        )
        parser.add_argument(
            "--plan",
            type=bool,
            default=False,
            help="Say what a run on such devices, here or not, would be.",
        )
        add_trust(parser)

    def claim(self, cli: CLI) -> None:
        """Takes the folder of a resumed run before anything is read for it, so that no other process goes on in it at once."""
        if self.resumed and not cli.only_plans:
            self.resumed.lock.take(name_job(), is_restart())
            self.resumed.check_results()

    @staticmethod
    def look_back(cli: CLI) -> None:
        """Looks for the run of an earlier attempt of this job.

        Raises:
            StartedAgain: There is one.
        """
        name = name_job()
        if (
            name is None
            or not is_restart()
            or cli.config["trainer"]["fast_dev_run"]
            or cli.only_plans
        ):
            return
        begun = Run.of_job(cli.config["logs"], group_of(cli), name)
        if begun is not None:
            raise StartedAgain(begun)

    def trainer_settings(self, cli: CLI) -> dict[str, Any]:
        """Makes the run folder, the logger and the watchers."""
        settings, watch = cli.config_init["trainer"], cli.config_init["watch"]
        if self.resumed:
            refuse_too_short(self.resumed, settings)
            if cli.config["model"]["scheduler"] is None and not self.asks_for_rate:
                refuse_standstill(self.resumed)
        if watch.patience is not None and settings["limit_val_batches"] == 0:
            raise UserError(
                "watch.patience waits for a better validation score, but trainer.limit_val_batches is 0"
            )
        refuse_tuners(cli.given("callbacks"))
        name = cli.config["name"]
        if name is not None and (
            not name.strip() or Path(name).is_absolute() or ".." in Path(name).parts
        ):
            raise UserError(
                f"--name {name}: a name groups runs below --logs; it is no path of another place"
            )
        if not settings["fast_dev_run"]:
            self.run = self.resumed or Run.create(cli.config["logs"], group_of(cli))
        checkpoints = (
            self.run.last.parent
            if self.run and settings["enable_checkpointing"] is not False
            else None
        )
        theirs = any(isinstance(callback, ProgressBar) for callback in cli.given("callbacks"))
        bar = (
            sys.stderr.isatty()
            if settings["enable_progress_bar"] is None
            else settings["enable_progress_bar"]
        )
        rate = LearningRate(rate_of(cli), self.resumed is not None and self.asks_for_rate)
        callbacks = watch.callbacks(checkpoints, cli.yaml, bar and not theirs, rate)
        added: dict[str, Any] = {
            "callbacks": callbacks,
            "plugins": [SafeCheckpointIO()],
            "enable_progress_bar": bar or theirs,
        }
        if settings["profiler"] is None:
            added["profiler"] = NoProfiler()
        if self.run:
            added["default_root_dir"] = str(self.run.path)
            if settings["logger"] is not False:
                others = [] if settings["logger"] in (None, True) else cli.given("logger")
                added["logger"] = [Board(self.run.path), *others]
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
        data = cli.datamodule
        try:
            if self.resumed and data.is_new:
                raise UserError(
                    f"{data.files()[0]}: is not the file that the run began with; it cannot go on with other rows"
                )
            data.check_files()
            schema, fingerprint = data.schema(), data.fingerprint()
        except BaseException:
            # nothing has been written: a fresh run leaves no folder, and one that goes on is as it
            # was
            if self.resumed:
                run.lock.release()
            else:
                run.discard()
            raise
        run.begin(
            cli.yaml,
            cli.config["seed_everything"],
            resumed=self.resumed is not None,
            job=name_job(),
            data=fingerprint,
        )
        if schema is not None and not (self.resumed and run.schema.is_file()):
            run.write(run.schema, schema)
        try:
            say(
                "\n".join(
                    [*data.notes(), *cli.model.notes(), *self.notes(), f"run folder {run.path}"]
                )
            )
            self.show_plan()
            self.fit()
        except Interrupted as stop:
            run.end("interrupted")
            say(f"{stop}; continue with: python -m src.train --resume {run.path}")
            sys.exit(130 if cli.trainer.is_global_zero else 0)
        except BaseException as error:
            if stopped_by_hand(error):
                run.end("interrupted")
                say(
                    "stopped at once"
                    + (
                        f"; continue with: python -m src.train --resume {run.path}"
                        if run.last.exists()
                        else ""
                    )
                )
                sys.exit(130 if cli.trainer.is_global_zero else 0)
            run.fail(error)
            raise
        run.end(
            "finished",
            epochs=cli.trainer.current_epoch,
            steps=cli.trainer.global_step,
            ended=self.why_ended(),
        )

    def notes(self) -> list[str]:
        """What a person should know of the weights that count, a line each."""
        trainer = self.cli.trainer
        lines = [
            f"{type(callback).__name__}: the averaged weights count, in validation, best.ckpt, the test and predictions"
            for callback in averaging(trainer)
        ]
        if self.run and self.cli.config_init["trainer"]["enable_checkpointing"] is False:
            lines.append(
                "trainer.enable_checkpointing false: the last weights are tested, not the best, and are gone when the run ends; it "
                "cannot be resumed, evaluated or used to predict"
            )
        return lines

    @rank_zero_only
    def show_plan(self) -> None:
        """Says what runs where: a table of several devices, a line of one."""
        plan = self.cli.plan()
        if plan.devices.count > 1 or self.cli.only_plans:
            Console().print(make_table(plan))
        else:
            say(format_plan(plan))

    def fit(self) -> None:
        """Trains, and tests once the weights that count: of the best validation, or the last where there is none."""
        cli, trainer, run = self.cli, self.cli.trainer, self.run
        before = steps_of(run) if run and self.resumed else None
        trainer.fit(
            cli.model, cli.datamodule, ckpt_path=run.last if run and before is not None else None
        )
        # the first rank says what is there: its clock has named the folder
        best, last, done_before = trainer.strategy.broadcast(self.left_behind(before))
        if run and done_before:
            say(
                f"nothing was left to train ({self.why_ended()}), and the results are there: metrics.json stays as it is, and "
                f"nothing is tested again; train on with higher limits, or test with python -m src.evaluate --run {run.path}"
            )
            return
        if cli.config["no_test"]:
            self.report(best, None, [])
            return
        with without(trainer, averaging(trainer)):
            trainer.test(cli.model, cli.datamodule, ckpt_path=best or last, verbose=False)
        lines = cli.model.summary()  # of the weights that were tested
        test = {
            key: float(value)
            for key, value in trainer.callback_metrics.items()
            if key.startswith("test/")
        }
        self.report(best, test, lines)

    def left_behind(self, before: int | None) -> tuple[str | None, str | None, bool]:
        """Looks at what the training has left in the run folder.

        Args:
            before: Optimizer steps that a resumed run had taken.

        Returns:
            The best checkpoint, the last one, and whether a resumed run has trained no further than
            when its results were taken.
        """
        run = self.run
        if run is None:
            return None, None, False
        steps = steps_of(run)
        if run.has_lost_best():
            raise UserError(
                f"{run.best} is gone, which held the weights of the best validation: nothing is tested in their place"
            )
        best = str(run.best) if run.best.exists() else None
        last = str(run.last) if steps == self.cli.trainer.global_step else None
        results = run.read_results()
        wanted = "validation" if self.cli.config["no_test"] else "test"
        return (
            best,
            last,
            before is not None and steps == before and bool(results and results.get(wanted)),
        )

    @rank_zero_only
    def report(self, best: str | None, test: dict[str, float] | None, lines: list[str]) -> None:
        """Prints validation and test side by side, and writes them down.

        Args:
            best: The best checkpoint.
            test: Metrics of the test; None where it is left out.
            lines: What the test has shown besides.
        """
        trainer, run, tasks = self.cli.trainer, self.run, self.cli.model.tasks
        kept: dict[str, Any] = {"metrics": {}, "global_step": trainer.global_step}
        if best:
            kept = load_checkpoint(best, mmap=True, whole=False)
        epochs = {}
        if run:
            log_results(trainer, tasks, kept["metrics"], test or {}, step=kept["global_step"])
            # last of all: where it stands nothing is tested again
            run.write(
                run.metrics,
                {"validation": kept["metrics"]} | ({} if test is None else {"test": test}),
            )
            selection = self.selection()
            ended = f"training ended after epoch {trainer.current_epoch} (step {trainer.global_step}): {self.why_ended()}"
            lines = [ended, *which_weights(trainer, selection, best is not None), *lines]
            if best:
                epochs = {
                    name: at["epoch"] for name, at in selection["best"].items() if name in tasks
                }
            say("\n".join(lines))
        shown = kept["metrics"] | (test or {})
        stages = [stage for stage in ("val", "test") if f"{stage}/score" in shown]
        if stages:  # neither with --trainer.limit_val_batches 0 and --trainer.limit_test_batches 0
            Console().print(results_table(tasks, shown, *stages, epochs=epochs), crop=False)

    def selection(self) -> dict[str, Any]:
        """The state of the selection: of the last checkpoint, since another process may have trained."""
        if self.run and self.run.last.exists():
            callbacks = load_checkpoint(self.run.last, mmap=True, whole=False)["callbacks"]
            if Selection.state_key in callbacks:
                return callbacks[Selection.state_key]
        callbacks = self.cli.trainer.callbacks  # type: ignore[attr-defined]
        return next(c for c in callbacks if isinstance(c, Selection)).state_dict()

    def why_ended(self) -> str:
        """What ended the training."""
        return why_ended(
            self.cli.trainer, self.cli.config_init["watch"].patience, self.selection()["waited"]
        )


def group_of(cli: CLI) -> str:
    """Below which name a run's folder lies: --name, or the data's."""
    return cli.config["name"] or cli.config["data"]["class_path"].rpartition(".")[2].lower()


def refuse_too_short(run: Run, settings: Any) -> None:
    """Looks at the limits of a resumed run, before anything is written.

    Raises:
        UserError: The run is longer already, or is to be resumed in a mode that keeps nothing.
    """
    if settings["fast_dev_run"]:
        raise UserError(
            "--fast_dev_run cannot go with --resume: it keeps nothing, and the run would not go on"
        )
    if not run.last.exists():  # an earlier attempt has not come as far
        return
    checkpoint = load_checkpoint(run.last, mmap=True)
    epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    for key, done, word in (
        ("max_epochs", epochs, "epochs"),
        ("max_steps", checkpoint["global_step"], "steps"),
    ):
        if settings[key] is not None and -1 < settings[key] < done:
            raise UserError(
                f"trainer.{key} is {settings[key]}, but the run has trained {done} {word} already: ask for more"
            )


def refuse_standstill(run: Run) -> None:
    """Looks at the rate at which a run would go on without a schedule, before anything is written.

    Raises:
        UserError: It is 0.
    """
    if not run.last.exists():
        return
    groups = load_checkpoint(run.last, mmap=True, whole=False)["optimizer_states"][0][
        "param_groups"
    ]
    if not any(float(group["lr"]) for group in groups):
        raise UserError(
            "the learning rate had come down to 0, and without a schedule it stays there: add --lr RATE"
        )


def stopped_by_hand(error: BaseException | None) -> bool:
    """Whether a Ctrl-C is behind an error: Lightning makes it an exit, torch.save a RuntimeError."""
    return error is not None and (
        isinstance(error, KeyboardInterrupt | SystemExit) or stopped_by_hand(error.__context__)
    )


def refuse_other_run(pairs: list[tuple[str, str | None]]) -> None:
    """Looks at the flags of a resumed run.

    Raises:
        ConfigError: One of them would make it another run.
    """
    for key, value in pairs:
        if key == RATE or (key == "model.scheduler" and value in ("null", "~")):
            continue
        if key in ("data.path", "data.val_path", "data.test_path", "data.root"):
            continue  # where the files of the run lie now: their content must be the same
        if key.split(".")[0] in ("data", "model", "seed_everything", "config", "name", "logs"):
            but = (
                "; of the model --lr RATE and --model.scheduler null alone can change"
                if key.startswith("model.")
                else ""
            )
            raise ConfigError(
                f"--{key} cannot go with --resume: a resumed run keeps its own; start a new run instead{but}"
            )


def refuse_tuners(callbacks: list[Any]) -> None:
    """Looks for callbacks that would change a setting which is not theirs.

    Raises:
        UserError: There is one.
    """
    for callback in callbacks:
        if isinstance(callback, LearningRateFinder):
            raise UserError(
                "trainer.callbacks LearningRateFinder sets a model's lr, but here the optimizer has it: compare short runs, "
                "such as --lr 0.001 --max_epochs 3 --no_test --name rates"
            )
        if isinstance(callback, BatchSizeFinder):
            raise UserError(
                "trainer.callbacks BatchSizeFinder would change data.batch_size, on which the results depend: set --batch_size, "
                "and --trainer.accumulate_grad_batches where memory is short"
            )


def rate_of(cli: CLI) -> float | None:
    """The optimizer's learning rate in the configuration."""
    rate = (cli.config["model"]["optimizer"].get("init_args") or {}).get("lr")
    return float(rate) if isinstance(rate, int | float) else None


def steps_of(run: Run) -> int | None:
    """Optimizer steps of the last checkpoint; None where there is none."""
    return (
        load_checkpoint(run.last, mmap=True, whole=False)["global_step"]
        if run.last.exists()
        else None
    )


def averaging(trainer: L.Trainer) -> list[WeightAveraging]:
    """The callbacks that average weights over steps."""
    return [callback for callback in trainer.callbacks if isinstance(callback, WeightAveraging)]  # type: ignore[attr-defined]


@contextmanager
def without(trainer: Any, callbacks: list[Any]) -> Iterator[None]:
    """Leaves callbacks out: those that average weights would put the raw ones of a checkpoint into the place of its averages."""
    everyone = trainer.callbacks
    trainer.callbacks = [callback for callback in everyone if callback not in callbacks]
    try:
        yield
    finally:
        trainer.callbacks = everyone


def train(args: list[str]) -> None:
    """Trains, tests the best checkpoint once, prints a table, and leaves a run folder."""
    try:
        training = Training(args)
    # as --resume would: with the run's own configuration, whatever the files say by now
    except StartedAgain as again:
        training = Training([], begun=again.run)
    training.start()


if __name__ == "__main__":
    main(train)
