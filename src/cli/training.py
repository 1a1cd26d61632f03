"""One training from the command line to its results, and the record that it leaves."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import lightning as L
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import ProgressBar, WeightAveraging
from rich.console import Console

from src.checkpoint import SafeCheckpointIO
from src.cli.app import CLI
from src.cli.checks import refuse_idle_patience, refuse_place, refuse_tuners
from src.cli.finetuning import describe_finetuning, write_adapters
from src.cli.flags import Flag, split_flags
from src.cli.forgetting import keep_start, measure_before
from src.cli.layers import ConfigError
from src.cli.passes import evaluate_checkpoint
from src.cli.reference_rows import choose_methods
from src.cli.results import Results, Trained, list_references
from src.cli.resuming import (
    RATE,
    count_steps,
    refuse_other_run,
    refuse_other_selection,
    refuse_standstill,
    refuse_too_short,
)
from src.cli.runs import TRUST, find_value, read_settings, read_trusted
from src.cli.selected_inputs import report_selection
from src.errors import UserError
from src.launch.job import is_restart, name_job
from src.monitoring import Board, Interrupted, LearningRate, say
from src.overhead import NoProfiler
from src.planning.plan_table import format_plan, make_table
from src.run import Run

OWN = (
    Flag("resume", str, None, "Run folder to continue in place, with its own config."),
    Flag("no_test", bool, False, "Leave the test out, as in tuning; evaluate tests later."),
    Flag(
        "reference",
        list[str] | str | None,
        None,
        "constant, linear or boosting, or a list of them: measured beside the network.",
    ),
    Flag("ensemble", int | None, None, "Members with seeds of their own, whose mean is tested."),
    Flag("parallel", int, 1, "Members of an ensemble that train side by side."),
    Flag("plan", bool, False, "Say what a run on such devices, here or not, would be."),
    TRUST,
)


class StartedAgain(Exception):
    """SLURM or torchrun has started this job again, and it has begun a run already."""

    def __init__(self, run: Run) -> None:
        super().__init__(str(run.path))
        self.run = run


class Training:
    """One run from the command line to its results.

    Args:
        args: The command line after the command.
        begun: The run that goes on where ``args`` names none; it need not have come as far as a
            checkpoint.

    Raises:
        UserError: A setting is wrong, or the run cannot go on.
        StartedAgain: An earlier attempt of this job has begun a run.

    Attributes:
        command: The module that a run is continued with.
    """

    command = "src.train"

    def __init__(self, args: list[str], begun: Run | None = None) -> None:
        pairs = split_flags(args)
        folder = find_value("resume", args)
        self.resumed = Run.open(folder) if folder is not None else begun
        if folder is not None and self.resumed:
            refuse_other_run(pairs)
            self.resumed.checkpoint("last")
        self.asks_for_rate = any(key == RATE for key, _ in pairs)
        self.run: Run | None = None

        base = self.read_base(args, None if begun else read_trusted(args))
        try:
            self.cli = CLI(
                args,
                base=base,
                own=OWN,
                trainer_settings=self.make_trainer_settings,
                parsed=self.claim if self.resumed else self.look_back,
                trains=True,
                # an earlier attempt of the job may not have come as far as a checkpoint
                starts=self.resumed is None or not self.resumed.last.exists(),
            )
        except BaseException:
            if self.resumed:
                self.resumed.lock.release()
            elif self.run:
                self.run.discard()
            raise
        self.results = Results(self.cli, self.run)

    def read_base(self, args: list[str], packages: Sequence[str] | None) -> dict[str, Any] | None:
        """Returns the settings under the flags: those of a resumed run, or None for the defaults.

        Args:
            args: The command line after the command.
            packages: Packages that --trust names; None where all that a run names is trusted.

        Raises:
            ConfigError: A setting of the run is not trusted, or nothing is to be.
        """
        if self.resumed:
            return read_settings(self.resumed, packages, training=split_flags(args))
        if packages:
            raise ConfigError(
                "--trust goes with --resume: a new run's own configuration is trusted"
            )
        return None

    @classmethod
    def from_flags(cls, args: list[str]) -> Self:
        """Builds a training, or opens the one that an earlier attempt of this job has begun."""
        try:
            return cls(args)
        except StartedAgain as again:
            # as --resume would: with the run's own configuration, whatever the files say by now
            return cls([], begun=again.run)

    def claim(self, cli: CLI) -> None:
        """Takes the folder of a resumed run before anything is read for it.

        So no other process goes on in it at the same time.
        """
        if self.resumed and not cli.only_plans:
            self.resumed.lock.take(name_job(), is_restart())
            self.resumed.check_results()

    def look_back(self, cli: CLI) -> None:
        """Looks for the run of an earlier attempt of this job.

        Raises:
            StartedAgain: There is one.
        """
        name = name_job()
        if name is None or not is_restart():
            return
        if cli.config["trainer"]["fast_dev_run"] or cli.only_plans:
            return
        begun = Run.of_job(cli.config["logs"], name_group(cli), name)
        if begun is not None:
            raise StartedAgain(begun)

    def make_trainer_settings(self, cli: CLI) -> dict[str, Any]:
        """Makes the run folder, the logger and the watchers.

        Raises:
            UserError: Settings do not go together.
        """
        settings = cli.config_init["trainer"]
        watch = cli.config_init["watch"]
        if self.resumed:
            refuse_too_short(self.resumed, settings)
            refuse_other_selection(self.resumed, watch)
            if cli.config["model"]["scheduler"] is None and not self.asks_for_rate:
                refuse_standstill(self.resumed)
        refuse_idle_patience(watch, settings)
        choose_methods(list_references(cli), "--reference", cli.datamodule, settings)
        refuse_tuners(cli.given("callbacks"))
        refuse_place(cli.config["name"])

        checkpoints = None
        if not settings["fast_dev_run"]:
            self.run = self.resumed or Run.create(cli.config["logs"], name_group(cli))
            if settings["enable_checkpointing"] is not False:
                checkpoints = self.run.last.parent
        theirs = any(isinstance(callback, ProgressBar) for callback in cli.given("callbacks"))
        bar = settings["enable_progress_bar"]
        if bar is None:
            bar = sys.stderr.isatty()
        rate = LearningRate(read_rate(cli), self.resumed is not None and self.asks_for_rate)
        added: dict[str, Any] = {
            "callbacks": watch.callbacks(checkpoints, cli.yaml, bar and not theirs, rate),
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

    # -- the run ---------------------------------------------------------------------------------
    def start(self) -> None:
        """Trains and tests, and records how that ended; or only says what it would do."""
        if self.cli.only_plans:
            self.show_start()
            self.show_plan()
        elif self.run is None:  # a debug run leaves nothing
            self.fit()
        else:
            self.begin(self.run)
            with self.recorded(self.run):
                data = self.cli.datamodule
                lines = [*data.notes(), *self.cli.model.notes(), *self.notes()]
                say("\n".join([*lines, f"run folder {self.run.path}"]))
                self.show_start()
                self.show_plan()
                self.fit()

    def begin(self, run: Run) -> None:
        """Writes down what the run is of.

        Raises:
            UserError: The files of a resumed run have another content.
        """
        data = self.cli.datamodule
        try:
            if self.resumed and data.is_new:
                raise UserError(
                    f"{data.files()[0]}: is not the file that the run began with; it cannot go on "
                    "with other rows"
                )
            data.check_files()
            schema = data.schema()
            fingerprint = data.fingerprint()
            if fingerprint is not None and schema is None:
                # a run without schema.json has not lost it
                fingerprint["schema"] = False
        except BaseException:
            # nothing has been written: a fresh run leaves no folder, and one that goes on is as it
            # was
            if self.resumed:
                run.lock.release()
            else:
                run.discard()
            raise
        run.begin(
            self.cli.yaml,
            self.cli.config["seed_everything"],
            resumed=self.resumed is not None,
            job=name_job(),
            data=fingerprint,
            start=self.cli.start.source.record if self.cli.start is not None else None,
        )
        if schema is not None and not (self.resumed and run.schema.is_file()):
            run.write(run.schema, schema)

    @contextmanager
    def recorded(self, run: Run) -> Iterator[None]:
        """Records how the run ends: finished, interrupted, or failed."""
        trainer = self.cli.trainer
        resume = f"continue with: python -m {self.command} --resume {run.path}"
        try:
            yield
            # Ctrl-C while this reads a checkpoint is one as well
            ended = self.results.say_why_ended()
        except Interrupted as stop:
            run.end("interrupted")
            say(f"{stop}; {resume}")
            sys.exit(130 if trainer.is_global_zero else 0)
        except BaseException as error:
            if is_stopped_by_hand(error):
                run.end("interrupted")
                say(f"stopped at once; {resume}" if run.last.exists() else "stopped at once")
                sys.exit(130 if trainer.is_global_zero else 0)
            run.fail(error)
            raise
        run.end(
            "finished",
            epochs=trainer.current_epoch,
            steps=trainer.global_step,
            ended=ended,
        )

    def notes(self) -> list[str]:
        """Returns what a person should know of the weights that count, a line each."""
        count = "the averaged weights count, in validation, best.ckpt, the test and predictions"
        averaging = list_averaging(self.cli.trainer)
        lines = [f"{type(callback).__name__}: {count}" for callback in averaging]
        if self.run and self.cli.config_init["trainer"]["enable_checkpointing"] is False:
            lines.append(
                "trainer.enable_checkpointing false: the last weights are tested, not the best, "
                "and are gone when the run ends; it cannot be resumed, evaluated or used to predict"
            )
        return lines + describe_finetuning(self.cli)

    @rank_zero_only
    def show_start(self) -> None:
        """Says what became of each part of the run that this one starts from."""
        if self.cli.start is not None:
            say(f"starts from {self.cli.start.source.path}")
            Console().print(self.cli.start.tabulate())
        elif self.cli.starts and (source := self.cli.config["init_from"]["source"]) is not None:
            say(f"the encoder starts from the model of transformers in {source}, heads are fresh")

    @rank_zero_only
    def show_plan(self) -> None:
        """Says what runs where: a table of several devices, a line of one."""
        plan = self.cli.plan()
        if self.cli.only_plans and (lines := self.cli.model.freezing.describe(self.cli.model)):
            say("\n".join(lines))
        if plan.devices.count > 1 or self.cli.only_plans:
            Console().print(make_table(plan))
        else:
            say(format_plan(plan))

    def fit(self) -> None:
        """Trains, and tests once the weights that count.

        They are those of the best validation, or the last where there is none.
        """
        cli = self.cli
        trainer = cli.trainer
        run = self.run
        keep_start(cli, run)
        before = count_steps(run) if run and self.resumed else None
        start = run.last if run and before is not None else None
        trainer.fit(cli.model, cli.datamodule, ckpt_path=start)

        # the first rank says what is there: its clock has named the folder
        trained: Trained = trainer.strategy.broadcast(self.results.look(before))
        if run and trained.was_done:
            say(
                f"nothing was left to train ({self.results.say_why_ended()}), and the results are "
                "there: metrics.json stays as it is, and nothing is tested again; train on with "
                f"higher limits, or test with python -m src.evaluate --run {run.path}"
            )
            self.results.add_references()
            return
        report_selection(cli, run)
        if run:
            write_adapters(cli.model, run, trained.best or trained.last)
        tests = not cli.config["no_test"]
        at_start = measure_before(cli, run, tests) if run else None
        if not tests:
            self.results.report(trained.best, None, [], at_start)
            return

        weights = trained.best or trained.last
        with leave_out(trainer, list_averaging(trainer)):
            test = evaluate_checkpoint(cli, weights)
        lines = cli.model.summary()  # of the weights that were tested
        self.results.report(trained.best, test, lines, at_start)


def name_group(cli: CLI) -> str:
    """Returns the name that a run's folder is below: --name, or the data's."""
    return cli.config["name"] or cli.config["data"]["class_path"].rpartition(".")[2].lower()


def read_rate(cli: CLI) -> float | None:
    """Returns the optimizer's learning rate in the configuration."""
    rate = (cli.config["model"]["optimizer"].get("init_args") or {}).get("lr")
    return float(rate) if isinstance(rate, int | float) else None


def is_stopped_by_hand(error: BaseException | None) -> bool:
    """Returns whether Ctrl-C is behind an error.

    Lightning makes it an exit, and torch.save a RuntimeError.
    """
    if error is None:
        return False
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return True
    return is_stopped_by_hand(error.__context__)


def list_averaging(trainer: L.Trainer) -> list[WeightAveraging]:
    """Returns the callbacks that average weights over steps."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, WeightAveraging)]


@contextmanager
def leave_out(trainer: Any, callbacks: Sequence[L.Callback]) -> Iterator[None]:
    """Leaves callbacks out for a while.

    Callbacks that average weights would load a checkpoint's raw ones in the place of its averages.
    """
    everyone = trainer.callbacks
    trainer.callbacks = [callback for callback in everyone if callback not in callbacks]
    try:
        yield
    finally:
        trainer.callbacks = everyone
