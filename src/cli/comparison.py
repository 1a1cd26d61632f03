"""A study from its file to its report: the work of ``python -m src.compare``."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.console import Console

from src.analysis.design import Maker
from src.analysis.display import StudyDisplay
from src.analysis.record import NAME, StudyRecord, TaskRecord, Tuning
from src.analysis.references import find_method
from src.analysis.scheduler import Scheduler, Stopped
from src.analysis.settings import Settings, shorten_path, spell, to_flags
from src.analysis.statistics import check_packages
from src.analysis.study import TuningPlan, Variant
from src.analysis.study_plan import estimate, tabulate, walk
from src.analysis.study_run import StudyRun
from src.analysis.trials import Outcome, Work
from src.analysis.tuning import GridTuner, Tuner
from src.cli.app import CLI
from src.cli.flags import split_flags
from src.cli.help import asks_for_help
from src.cli.pace import measure_pace
from src.cli.places import choose_executor
from src.cli.study_call import OWN, Call, read_call
from src.cli.trial_keys import TrialKeys, make_hash, read_monitors, refuse_missing_folds
from src.errors import UserError
from src.files.atomic import write_atomically
from src.files.yaml12 import dump, load
from src.run.lock import Lock
from src.tasks import Task


def compare(args: list[str]) -> None:
    """Runs a study, and writes its report.

    Args:
        args: The command line after the command.

    Raises:
        UserError: The study has a mistake, or another process runs it.
    """
    pairs = split_flags(args, several=False)
    if any(asks_for_help(key) for key, _ in pairs):
        CLI(args, own=OWN, trains=True)
    call = read_call(pairs)
    comparison = Comparison(call)
    if call.plans:
        comparison.show_plan()
        return
    comparison.run()


class Comparison:
    """A study, its configurations resolved and checked, before anything trains.

    Args:
        call: The command line.

    Raises:
        UserError: A row has a setting that is wrong.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        self.study = call.study
        self.root = call.root
        self.folder = call.root / call.study.name
        study = call.study
        files = [word for name in study.base for word in ("--config", name)]
        self.base_words = [*files, *to_flags(study.settings)]
        self.keys = TrialKeys(self.base_words)

        # a package that the end needs is missed before the first trial
        check_packages()
        for variant in study.variants:
            if variant.reference:
                find_method(variant.reference, "reference:")

        base = self.keys.check([])
        refuse_missing_folds(base.datamodule, study.folds)
        self.devices = base.devices.count
        self.tasks: dict[str, Task] = base.model.tasks
        self.monitors = read_monitors(self.tasks)
        self.base_hash = make_hash(self.keys.resolve([]) | {"name": None, "logs": None})
        for variant in study.variants:
            self.check(variant)
        self.space = self.read_space()

    def check(self, variant: Variant) -> None:
        """Builds what a row would train.

        Raises:
            UserError: It cannot be built; the row is named.
        """
        try:
            tasks = self.keys.check(to_flags(variant.settings)).model.tasks
        except UserError as error:
            raise UserError(f"{self.call.path}: row '{variant.name}': {error}") from None
        if list(tasks) != list(self.tasks):
            raise UserError(
                f"{self.call.path}: row '{variant.name}' has the tasks {', '.join(tasks)}, and "
                f"the base {', '.join(self.tasks)}: rows of a study have the same"
            )

    def read_space(self) -> dict[str, Any]:
        """Returns the space of a sampler, checked; empty for a grid and where nothing is tuned.

        Raises:
            UserError: A range or the sampler is wrong.
        """
        plan = self.study.tuning
        if plan is None or plan.method == "grid":
            return {}
        from src.analysis.optuna_tuner import check_sampler
        from src.analysis.space import read_space

        check_sampler(plan.method)
        return read_space(plan.space)

    # -- trials ------------------------------------------------------------------------------------
    def make_maker(self, only_plans: bool) -> Maker:
        """Returns what makes trials.

        Args:
            only_plans: Whether samplers are to propose one candidate that stands for all.
        """

        def make_tuner(row: str, fold: int | None) -> Tuner:
            plan = self.study.tuning
            assert plan is not None
            if plan.method == "grid":
                return GridTuner(plan.space)
            if only_plans:
                return GridTuner(self.list_first_values(plan))
            return self.make_sampler(plan, row, fold)

        return Maker(self.make_trial, self.make_ensemble, make_tuner, self.monitors)

    def make_sampler(self, plan: TuningPlan, row: str, fold: int | None) -> Tuner:
        """Returns a sampler, which goes on where an interrupted study has left it."""
        from src.analysis.optuna_tuner import OptunaTuner

        name = make_hash([row, fold, plan.space, plan.method])
        storage = self.folder / "tuning" / f"{name}.log"
        storage.parent.mkdir(parents=True, exist_ok=True)
        return OptunaTuner(self.space, plan.trials, storage, sampler=plan.method, seed=0)

    def list_first_values(self, plan: TuningPlan) -> dict[str, list[object]]:
        """Returns one candidate of a space: first choices, and the lower ends of ranges."""
        first: dict[str, list[object]] = {}
        for key, value in plan.space.items():
            first[key] = [value["low"] if isinstance(value, dict) else value[0]]
        return first

    def make_trial(
        self,
        variant: Variant,
        settings: Settings,
        seed: int,
        fold: int | None,
        tests: bool,
        label: str,
    ) -> Work:
        """Returns a trial.

        Raises:
            UserError: Its settings are wrong; the row is named.
        """
        words = to_flags(variant.settings | settings)
        module = "src.reference" if variant.reference else "src.train"
        try:
            key = self.keys.make_key(module, words, seed, fold, variant.reference)
        except UserError as error:
            raise UserError(f"{self.call.path}: row '{variant.name}': {error}") from None
        flags = [*self.base_words, *words]
        if variant.reference:
            flags += ["--method", variant.reference]
        if fold is not None:
            flags += ["--data.folds", str(self.study.folds), "--data.fold", str(fold)]
        flags += ["--seed_everything", str(seed)]
        return Work(key, module, tuple(flags), tests, label)

    def make_ensemble(self, members: Mapping[str, Outcome], label: str) -> Work:
        """Returns the trial that averages the predictions of others."""
        runs = ",".join(str(outcome.run) for outcome in members.values())
        key = make_hash(["ensemble", sorted(members)])
        return Work(key, "src.ensemble", ("--run", runs), True, label)

    # -- the plan ----------------------------------------------------------------------------------
    def walk(self) -> tuple[StudyRun, Any]:
        """Walks through the study, and checks the settings of each trial on the way."""
        run = StudyRun(self.study, self.make_maker(True), self.make_record(), self.root)
        further = 0
        plan = self.study.tuning
        if plan is not None and plan.method != "grid":
            tuned = [row for row in run.record["rows"] if row["role"] != "reference"]
            further = (plan.trials - 1) * len(tuned) * (self.study.folds or 1)
        return run, walk(run, self.root, self.monitors, further)

    def show_plan(self) -> None:
        """Prints the rows, the number of trials, and the time that they take."""
        run, trials = self.walk()
        console = Console()
        console.print(tabulate(self.study, run))
        done = trials.total - len(trials.left) - trials.further
        lines = [f"{trials.total} trials, {done} of them done already, in {self.root}"]
        if trials.left:
            print("measures a few seconds of the base ...", file=sys.stderr, flush=True)
            pace = measure_pace(self.base_words)
            time = estimate(trials, pace, len(self.tasks), self.call.parallel)
            lines.append(
                f"about {time} at most with --parallel {self.call.parallel} on this machine: a "
                f"trial of the base takes {pace.trial:.0f} s ({pace.start:.0f} s to start and end, "
                f"{pace.steps:,} steps of {1000 * pace.step:.1f} ms) unless it stops early"
            )
        console.print("\n".join(lines), highlight=False)

    # -- the run -----------------------------------------------------------------------------------
    def run(self) -> None:
        """Runs what is not done yet, and writes the report.

        Raises:
            UserError: The folder is of another study, or another process runs it.
        """
        _, planned = self.walk()
        self.refuse_other_study()
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(self.folder, "study")
        lock.take()
        try:
            self.write_file()
            executor = choose_executor(
                self.call.executor,
                self.call.parallel,
                self.folder / "jobs",
                self.call.cluster,
                self.devices,
            )
            run = StudyRun(
                self.study, self.make_maker(False), self.make_record(), self.root, self.folder
            )
            run.expected = planned.total
            run.save()
            with StudyDisplay(self.root, run.count, executor.slots) as display:
                try:
                    Scheduler(self.root, executor, run, display).run()
                except Stopped:
                    self.say_stopped(run)
                    sys.exit(130)
                finally:
                    run.save()
            run.end()
            self.report()
        finally:
            lock.release()

    def say_stopped(self, run: StudyRun) -> None:
        """Says how to go on with a study that was interrupted."""
        ended, known = run.count()
        again = shlex.join(["python", "-m", "src.compare", *sys.argv[1:]])
        print(
            f"stopped after {ended} of {known} trials, which are kept; continue with: {again}",
            file=sys.stderr,
            flush=True,
        )

    def report(self) -> None:
        """Makes the report of what has ended, and prints its table."""
        from src.cli.report import print_report

        print_report(self.folder)

    def make_record(self) -> StudyRecord:
        """Returns a record without rows."""
        tasks: dict[str, TaskRecord] = {}
        for name, task in self.tasks.items():
            signs = {}
            for metric in task.all_metric_names:
                signs[metric] = -1 if task.prefers_less(metric) else 1
            tasks[name] = {"monitor": task.monitor, "metrics": signs}
        plan = self.study.tuning
        tuning: Tuning | None = None
        if plan is not None:
            tuning = {
                "method": plan.method,
                "space": make_plain(plan.space),
                "trials": plan.trials,
                "by": "val/score",
            }
        return {
            "name": self.study.name,
            "command": shlex.join(["python", "-m", "src.compare", *sys.argv[1:]]),
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "finished": False,
            "tasks": tasks,
            "seeds": list(self.study.seeds),
            "folds": self.study.folds,
            "tuning": tuning,
            "baseline": self.study.baseline,
            "single_task": self.study.single_task,
            "rows": [],
            "trials": {},
        }

    # -- the folder --------------------------------------------------------------------------------
    def refuse_other_study(self) -> None:
        """Looks at what the folder of the study holds already.

        Raises:
            UserError: It is a study of another base, or no study.
        """
        if not self.folder.is_dir() or not any(self.folder.iterdir()):
            return
        path = self.folder / "study.yaml"
        if not path.is_file():
            raise UserError(
                f"{self.folder} is there already and is no study: choose another --name"
            )
        known = load(path.read_text()) or {}
        if known.get("base_hash") != self.base_hash:
            raise UserError(
                f"{self.folder} is of another study: its base is "
                f"{' '.join(known.get('base_words') or []) or 'configs/train.yaml'}, or has other "
                "values by now: choose another --name, or remove that folder"
            )

    def write_file(self) -> None:
        """Writes the study as it was given, with every default."""
        study = self.study
        content = {
            "name": study.name,
            "file": shorten_path(self.call.path),
            "base_words": self.base_words,
            "base_hash": self.base_hash,
            "rows": {variant.name: make_plain(variant.settings) for variant in study.variants},
            "seeds": list(study.seeds),
            "folds": study.folds,
            "tuning": None if study.tuning is None else make_plain(asdict(study.tuning)),
            "weights": study.weights,
            "record": NAME,
        }
        text = dump(content)
        write_atomically(self.folder / "study.yaml", lambda file: file.write(text.encode()))


def make_plain(value: Any) -> Any:
    """Returns nested values without the memory of how numbers were written."""
    if isinstance(value, dict):
        return {key: make_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [make_plain(item) for item in value]
    return load(spell(value)) if hasattr(value, "text") else value
