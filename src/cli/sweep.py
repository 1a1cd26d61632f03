"""A search for the settings that suit one configuration: the work of ``python -m src.sweep``."""

import shlex
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from src.analysis.display import StudyDisplay, format_seconds
from src.analysis.optuna_tuner import OptunaTuner
from src.analysis.scheduler import Scheduler, Stopped
from src.analysis.settings import Settings, to_flags
from src.analysis.space import describe_space, list_corners
from src.analysis.sweep_run import NAME, SweepRecord, SweepRun, Try, read_sweep
from src.analysis.trials import TRIALS, Work
from src.cli.app import CLI
from src.cli.flags import split_flags
from src.cli.help import asks_for_help
from src.cli.places import choose_executor
from src.cli.sweep_call import OWN, Call, read_call
from src.cli.trial_keys import TrialKeys, make_hash, read_monitors
from src.errors import UserError, suggest_or_list
from src.run.lock import Lock

MOST_SHOWN = 10  # of the candidates of one objective
NOT_COMPARED = ("name", "logs")


def sweep(args: list[str]) -> None:
    """Tries settings on validation rows, and prints the best of them.

    Args:
        args: The command line after the command.

    Raises:
        UserError: A setting is wrong, another process runs the sweep, or every trial has failed.
    """
    pairs = split_flags(args, several=False)
    if any(asks_for_help(key) for key, _ in pairs):
        CLI(args, own=OWN, trains=True)
    Sweep(read_call(pairs)).run()


class Sweep:
    """A sweep, its settings checked before anything trains.

    Args:
        call: The command line.

    Raises:
        UserError: A setting is wrong.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        self.root = call.root
        self.keys = TrialKeys(call.words)
        base = self.keys.check([])
        self.monitors = read_monitors(base.model.tasks)
        for task in call.objectives:
            if task not in self.monitors:
                hint = suggest_or_list(task, self.monitors)
                raise UserError(f"--objectives names '{task}', which is no task; {hint}")
        for settings in list_corners(call.space):
            try:
                self.keys.check(to_flags(settings))
            except UserError as error:
                raise UserError(f"--sweep: {error}") from None

        tree = self.keys.resolve([])
        self.seed: int = tree["seed_everything"]
        self.base_hash = make_hash({**tree, **dict.fromkeys(NOT_COMPARED)})
        data = tree["data"]["class_path"].rpartition(".")[2].lower()
        self.folder = self.root / (call.name or f"sweep-{data}")

    def make_trial(self, settings: Settings) -> Work:
        """Returns the trial of settings.

        Raises:
            UserError: They do not go together.
        """
        words = to_flags(settings)
        key = self.keys.make_key("src.train", words, self.seed, None)
        label = " ".join(f"{flag.rpartition('.')[2]}={word}" for flag, word in pair(words))
        return Work(key, "src.train", (*self.call.words, *words), False, label)

    def run(self) -> None:
        """Runs what is not done yet, and prints the best.

        Raises:
            UserError: The folder is of another sweep, or another process runs it.
        """
        call = self.call
        self.refuse_other_folder()
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(self.folder, "sweep")
        lock.take()
        try:
            tuner = OptunaTuner(
                call.space,
                call.trials,
                self.folder / "search.log",
                call.sampler,
                self.seed,
                ahead=call.parallel,
                objectives=max(1, len(call.objectives)),
                prune_after=call.prune_after,
                replays=False,
            )
            run = SweepRun(
                tuner,
                self.make_trial,
                self.make_record(),
                self.root,
                self.folder,
                call.objectives,
                self.monitors,
            )
            executor = choose_executor(
                call.executor, call.parallel, self.folder / "jobs", call.cluster
            )
            run.save()
            with StudyDisplay(self.root, run.count, executor.slots) as display:
                try:
                    Scheduler(self.root, executor, run, display).run()
                except Stopped:
                    ended, known = run.count()
                    print(
                        f"stopped after {ended} of {known} trials, which are kept; continue with: "
                        f"{name_command()}",
                        file=sys.stderr,
                        flush=True,
                    )
                    sys.exit(130)
            self.show(run.record)
        finally:
            lock.release()

    def make_record(self) -> SweepRecord:
        """Returns the record, with the candidates of earlier sessions."""
        earlier = read_sweep(self.folder)
        objectives = [f"val/{task}/{self.monitors[task][0]}" for task in self.call.objectives]
        return {
            "name": self.folder.name,
            "command": name_command(),
            "base": self.call.words,
            "base_hash": self.base_hash,
            "space": describe_space(self.call.space),
            "sampler": self.call.sampler,
            "objectives": objectives or ["val/score"],
            "best": [],
            "tries": earlier["tries"] if earlier else [],
        }

    def refuse_other_folder(self) -> None:
        """Looks at what the folder of the sweep holds already.

        Raises:
            UserError: It is of another base, or of no sweep.
        """
        if not self.folder.is_dir():
            return
        earlier = read_sweep(self.folder)
        others = [path for path in self.folder.iterdir() if path.suffix != ".lock"]
        if earlier is None and others:
            raise UserError(
                f"{self.folder} is there already and holds no {NAME}: choose another --name"
            )
        if earlier and earlier["base_hash"] != self.base_hash:
            raise UserError(
                f"{self.folder} is of a sweep of another configuration, which was made of "
                f"'{shlex.join(earlier['base'])}': choose another --name, or remove that folder"
            )

    # -- the end -----------------------------------------------------------------------------------
    def show(self, record: SweepRecord) -> None:
        """Prints the best candidates, and how to go on with them.

        Raises:
            UserError: Every trial has failed.
        """
        tries = record["tries"]
        best = [tries[number] for number in record["best"]]
        if not best:
            reason = next((one["error"] for one in tries if one["error"]), "none has a score")
            raise UserError(f"every trial of {self.folder} has failed, the first one by: {reason}")
        one_objective = len(record["objectives"]) == 1
        shown = best
        if one_objective:
            finished = [one for one in tries if one["state"] == "finished"]
            shown = sorted(finished, key=lambda one: -one["scores"][0])[:MOST_SHOWN]
        console = Console()
        console.print(summarize(record, self.folder), highlight=False, soft_wrap=True)
        console.print(tabulate(shown, self.name_scores(), self.root))

        words = ["python", "-m", "src.train", *self.call.words]
        if len(best) == 1:
            words += to_flags(dict(best[0]["settings"]))
            lines = [
                f"train with the best: {shlex.join(words)}",
                f"or test its run: python -m src.evaluate --run {self.name_run(best[0])}",
            ]
        else:
            lines = [
                "none of these is worse than another in every objective: choose one by its "
                "validation scores, and test it once: python -m src.evaluate --run RUN"
            ]
        console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)

    def name_scores(self) -> list[str]:
        """Returns the headings of the scores."""
        if not self.call.objectives:
            return ["val/score"]
        headings = []
        for task in self.call.objectives:
            metric, sign = self.monitors[task]
            # higher is better in every column
            headings.append(f"{task} {metric}" if sign > 0 else f"-{task} {metric}")
        return headings

    def name_run(self, one: Try) -> Path:
        """Returns the run folder of a candidate."""
        return self.root / (one["run"] or "")


def summarize(record: SweepRecord, folder: Path) -> str:
    """Returns in a line how the candidates have ended."""
    words = []
    for state in ("finished", "pruned", "failed"):
        number = sum(one["state"] == state for one in record["tries"])
        if number or state == "finished":
            words.append(f"{number} {state}")
    return (
        f"{len(record['tries'])} settings tried on validation rows ({', '.join(words)}): {folder}"
    )


def tabulate(shown: list[Try], headings: list[str], root: Path) -> Table:
    """Returns a table of candidates: their scores, settings, times and run folders."""
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    flags = list(shown[0]["settings"])
    for flag in flags:
        table.add_column(flag, overflow="fold")
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("run", overflow="fold")
    for one in shown:
        scores = [f"{score:.4f}" for score in one["scores"]]
        seconds = "" if one["seconds"] is None else format_seconds(one["seconds"])
        run = one["run"] or ""
        if run and not (root / run).is_dir():
            run = f"{run} (gone)"
        run = run.removeprefix(f"{TRIALS}/")
        table.add_row(*scores, *(one["settings"][flag] for flag in flags), seconds, run)
    return table


def pair(words: list[str]) -> list[tuple[str, str]]:
    """Returns flags with their values."""
    return [
        (flag.removeprefix("--"), word) for flag, word in zip(words[::2], words[1::2], strict=True)
    ]


def name_command() -> str:
    """Returns the command line of this process."""
    return shlex.join(["python", "-m", "src.sweep", *sys.argv[1:]])
