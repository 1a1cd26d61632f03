"""A task learnt from few examples by several methods: the work of ``python -m src.adapt``."""

import copy
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, equal, inference_mode, zeros

from src.analysis.display import format_seconds
from src.analysis.few_shot import Fit, choose_method, compare_methods
from src.analysis.statistics import check_packages
from src.batch import Batch
from src.cli.adapt_call import FROZEN, OWN, Call, read_call
from src.cli.adapt_fits import Fits
from src.cli.adapt_learner import Learner
from src.cli.adapt_report import make_record, show_scores
from src.cli.adapt_run import leave_run
from src.cli.adapt_source import (
    describe_methods,
    find_inner_loop,
    find_methods,
    find_new_task,
    read_base,
    refuse_other_inputs,
)
from src.cli.app import CLI
from src.cli.checks import refuse_place
from src.cli.flags import split_flags
from src.cli.help import asks_for_help
from src.cli.layers import ConfigError
from src.cli.runs import add_trainer_settings, find_value
from src.cli.terminal import remark
from src.cli.training import is_stopped_by_hand, name_group
from src.cli.trial_keys import make_hash
from src.data.examples import (
    check_shots,
    draw_examples,
    find_groups,
    find_labelled,
    read_targets,
)
from src.errors import UserError
from src.files.yaml12 import load
from src.models import MultiTaskModel
from src.monitoring import say
from src.run import Run
from src.tasks.dependence import find_parent

VERSION = 1  # of the methods: fits of another one are made anew
EXAMPLE_ROWS = 64  # made-up rows that features are compared on
FITS = "fits"  # the folder of fits that are kept, beside run folders
# sections and settings that no number of a fit depends on
NOT_OF_A_FIT = ("name", "logs", "watch", "budget", "init_from", "trainer")


class AdaptCLI(CLI):
    """Builds data, model and trainer, and keeps a model that is not built yet."""

    def after_instantiate_classes(self) -> None:
        """Keeps the model before anything is built of it."""
        self.template = copy.deepcopy(self.model)
        super().after_instantiate_classes()


def adapt_run(args: list[str]) -> None:
    """Learns a task that a run never saw from few examples, and leaves the best as a run folder.

    Args:
        args: The command line after the command.

    Raises:
        UserError: A setting is wrong, or the data do not suit the run.
    """
    if any(asks_for_help(key) for key, _ in split_flags(args)):
        CLI(args, own=OWN, trains=True)
    call = read_call(args)
    check_packages()
    Adaptation(call, args).run()


class Adaptation:
    """One task, several methods, numbers of examples, and draws of them.

    Args:
        call: The command line.
        args: The same as words.

    Raises:
        UserError: A setting is wrong, or the data do not suit the run.

    Attributes:
        methods: The methods that suit the network.
        lines: What a person should know of them, a line each.
        old_tasks: The tasks of the run that the data have, too, with their heads.
    """

    def __init__(self, call: Call, args: list[str]) -> None:
        self.call = call
        base = read_base(call, args)
        self.cli = AdaptCLI(
            call.words, base=base, trainer_settings=add_trainer_settings, starts=True
        )
        cli = self.cli
        if find_value("name", call.words) is None:
            cli.config["name"] = f"{name_group(cli)}-adapt"
        refuse_place(cli.config["name"])
        if cli.devices.count > 1:
            raise ConfigError(
                f"--devices {cli.devices.count}: adapt runs in one process on one device; to use "
                "more, run it several times with other --methods"
            )
        assert cli.start is not None
        self.source = cli.start.source
        self.name = find_new_task(cli, self.source, call.task)
        self.task = cli.datamodule.tasks[self.name]
        if find_parent(self.task) is not None:
            raise UserError(
                f"task '{self.name}' learns a product with another task by entire_space, and "
                "cannot be learnt alone: use where in its place"
            )
        refuse_other_inputs(cli, self.source)
        self.learner = Learner(cli, cli.template, self.name, call.steps, call.tests)
        self._read_rows()
        self._compare()
        self.fits = Fits(Path(cli.config["logs"]) / FITS / self.hash())

    def _read_rows(self) -> None:
        """Reads the labels of the training rows, and looks at those of validation.

        Raises:
            UserError: There are too few.
        """
        rows = self.learner.rows("train")
        targets = read_targets(rows, self.name, self.cli.datamodule.eval_batch_size)
        self.labelled = find_labelled(targets)
        names, self.groups = find_groups(self.task, targets)
        check_shots(self.name, self.call.shots, self.labelled, names, self.groups)
        self.learner.groups = self.groups
        if self.call.method is None:
            batch_size = self.cli.datamodule.eval_batch_size
            judges = read_targets(self.learner.rows("val"), self.name, batch_size)
            if not find_labelled(judges).any():
                raise UserError(
                    f"no validation row has a label of '{self.name}', which the method of the run "
                    "folder is chosen by: name one with --method"
                )

    def _compare(self) -> None:
        """Compares the run with the network: which methods suit, and what of the run is kept.

        Raises:
            UserError: The network takes nothing of the run, or a method does not suit it.
        """
        learner = self.learner
        network = learner.frozen
        assert self.cli.start is not None
        reports = self.cli.start.reports
        features = self._features(network)
        if equal(features, self._features(learner.build(0, starts=False))):
            kind = type(network.sharing).__name__
            raise UserError(
                f"run {self.source.path}: {kind} has nothing that {self.name} could start from: "
                "adapt runs of architectures that share, such as HardSharing"
            )
        # with another seed they differ where some weight on the way is no weight of the run
        is_whole = equal(features, self._features(learner.build(1, starts=True)))
        self.methods, self.lines = find_methods(
            self.call, self.name, None if is_whole else reports, learner.can_probe
        )
        head = network.heads[self.name]
        learner.inner = find_inner_loop(Run(self.call.run), self.source, head)
        kept = [r.part.removeprefix("heads.") for r in reports if r.status == "kept"]
        self.old_tasks = [name for name in self.cli.datamodule.tasks if name in kept]
        self._refuse_loss()
        self.lines += describe_methods(self.methods, learner.inner, self.call.steps)
        if any(getattr(self.task, field) is not None for field in self.task.scale_fields):
            self.lines.append(
                f"the scale of {self.name} is that of all {int(self.labelled.sum())} labels of the "
                "training rows, for all methods alike"
            )

    @inference_mode()
    def _features(self, network: MultiTaskModel) -> Tensor:
        """Returns the features of the task for some made-up rows."""
        home = next(network.parameters()).device
        inputs = network.input_shape.example(rows=EXAMPLE_ROWS)
        moved = Batch(inputs, {}, zeros(EXAMPLE_ROWS)).to(home).inputs
        return network.eval().sharing(moved)[self.name].cpu()

    def hash(self) -> str:
        """Returns a hash of all that the numbers of a fit depend on."""
        settings = load(self.cli.yaml)
        for key in NOT_OF_A_FIT:
            settings.pop(key, None)
        trainer = self.learner.trainer_settings()
        trainer.pop("profiler")
        return make_hash(
            {
                "version": VERSION,
                "settings": settings,
                "trainer": trainer,
                "data": self.cli.datamodule.fingerprint(),
                "source": self.source.record.get("sha256"),
                "task": [self.name, self.task.describe()],
                "tests": self.call.tests,
            }
        )

    # -- the work ----------------------------------------------------------------------------------
    def draw(self, draw: int, shots: int) -> Tensor:
        """Returns the training rows (k,) of a draw; those of a smaller k are among them."""
        return draw_examples(self.labelled, self.groups, shots, self.learner.seed, draw)

    def list_places(self) -> Iterator[tuple[int, int, str]]:
        """Yields draw, k and method of each fit, one draw after the other."""
        for draw in range(self.call.draws):
            for shots in self.call.shots:
                for method in self.methods:
                    yield draw, shots, method

    def run(self) -> None:
        """Learns and measures what is not done yet, shows the scores, and leaves the best run."""
        call = self.call
        data = self.cli.datamodule
        for line in data.remarks:
            remark(line)
        assert self.cli.start is not None
        Console().print(self.cli.start.tabulate())
        say("\n".join(self.lines))

        fits = self.learn_all()
        stage = "test" if call.tests else "val"
        found = compare_methods(fits, self.name, self.task.describe_score(), self.methods, stage)
        pool = int(self.labelled.sum())
        show_scores(found, call.draws, pool)
        chosen = self.choose(fits)
        record = make_record(self, fits, found, pool, chosen)
        leave_run(self, found, record, chosen)

    def learn_all(self) -> list[Fit]:
        """Returns all fits: the ones that are kept, and the others, made now."""
        places = list(self.list_places())
        fits: list[Fit] = []
        made = 0
        began = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        console = Console(stderr=True)
        bar = Progress(
            *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
        )
        try:
            with bar:
                line = bar.add_task("fits", total=len(places))
                for draw, shots, method in places:
                    bar.update(line, description=f"draw {draw + 1}, {shots} examples, {method}")
                    fit = self.fits.find(method, shots, draw)
                    if fit is None:
                        fit = self.learner.fit(method, self.draw(draw, shots), draw)
                        self.fits.keep(fit)
                        made += 1
                    fits.append(fit)
                    bar.advance(line)
        except BaseException as error:
            if not is_stopped_by_hand(error):
                raise
            again = shlex.join(["python", "-m", "src.adapt", *sys.argv[1:]])
            print(
                f"stopped after {len(fits)} of {len(places)} fits, which are kept; continue with: "
                f"{again}",
                file=sys.stderr,
                flush=True,
            )
            sys.exit(130)
        took = format_seconds(time.monotonic() - began)
        earlier = len(places) - made
        say(f"{made} fits in {took}" + (f"; {earlier} were there already" if earlier else ""))
        return fits

    # -- the run folder ----------------------------------------------------------------------------
    def _refuse_loss(self) -> None:
        """Refuses a run folder in which tasks of the run would be lost.

        Raises:
            UserError: The method that was asked for changes the encoder, and the data have such
                tasks.
        """
        method = self.call.method
        if self.old_tasks and method is not None and method not in FROZEN:
            raise UserError(
                f"--method {method} changes the encoder that {', '.join(self.old_tasks)} read: "
                f"choose {', '.join(FROZEN)}, or data that have {self.name} alone"
            )

    @property
    def further_tasks(self) -> list[str]:
        """The other tasks of the data, which nobody has trained."""
        known = (*self.old_tasks, self.name)
        return [name for name in self.cli.datamodule.tasks if name not in known]

    def choose(self, fits: list[Fit]) -> str | None:
        """Returns the method whose result becomes the run folder; None where there can be none."""
        if self.further_tasks:
            names = ", ".join(self.further_tasks)
            say(f"no run folder holds a network: nobody has trained further tasks, {names}")
            return None
        if self.call.method is not None:
            return self.call.method
        methods = self.methods
        if self.old_tasks:
            # a task of the run lives on where its encoder stays as it is
            methods = [name for name in methods if name in FROZEN]
        if not methods:
            say(f"no run folder holds a network: no method would keep {', '.join(self.old_tasks)}")
            return None
        return choose_method(fits, methods, self.call.shots[-1])
