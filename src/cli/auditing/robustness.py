"""The audit of a run's robustness: scores against the severity of corruptions, and attacks."""

from collections.abc import Iterator, Sequence
from functools import partial
from math import isfinite

import torch
from rich.console import Console
from rich.table import Table

from src.analysis.importance import summarise_drops
from src.analysis.robustness.attack import attack_inputs, find_attackable, import_attacks
from src.analysis.robustness.chart import ATTACK, draw_ladder
from src.analysis.robustness.corruptions import CORRUPTIONS, Corruption, Tokens
from src.analysis.robustness.ladder import Rung
from src.analysis.robustness.parts import Inputs, Part
from src.batch import Batch
from src.cli.auditing.call import AuditCall
from src.cli.auditing.robustness_parts import describe_parts, learn_parts
from src.cli.flags import Flag
from src.cli.loaded_run import LoadedRun, split_inputs
from src.cli.own_data import find_label_problem, load_limited, open_own_data
from src.cli.progress_bar import show_progress
from src.cli.selection_rows import draw_samples
from src.cli.selection_scores import Scores
from src.cli.terminal import remark
from src.errors import UserError, suggest_or_list
from src.files.atomic import write_atomically
from src.files.typed import to_json

SEVERITIES = tuple(range(6))
MOST_ROWS = 2000
LEARNT_FROM = 5000  # training rows that spreads and categories are taken from
ROBUSTNESS = (
    Flag("corruptions", list[str] | None, None, f"Of {', '.join(CORRUPTIONS)}: all that suit."),
    Flag("severities", list[int], list(SEVERITIES), "Severities of corruptions, from 0 to 5."),
    Flag(
        "attacks",
        list[float],
        [0.05, 0.1, 0.25],
        "Bounds of attacks, in standard deviations; [] for none.",
    ),
    Flag(
        "rows",
        int | None,
        None,
        "Most rows, evenly spread; 2,000 that are corrupted and 5,000 that shift compares.",
    ),
    Flag("repeats", int, 20, "Draws of the rows for intervals."),
)
NOTE = (
    "each cell: the score with half of its 95 % bootstrap interval over rows; severity 0 is the "
    "rows as they are"
)


def audit_robustness(call: AuditCall) -> None:
    """Measures how the score of each task falls with corrupted and attacked inputs."""
    settings = RobustnessSettings(call)
    if call.run.model.meta is not None:
        remark("robustness reads single rows, and this run learns from episodes: it is left out")
        return
    problem = find_label_problem(call.run, call.split)
    if problem is not None:
        remark(f"robustness needs labels, and is left out: {problem}")
        return
    measured = Measuring(call, settings)
    try:
        measured.climb()
        measured.attack()
    finally:
        # what is measured stays where a person interrupts the rest
        for line in measured.notes:
            remark(line)
        show_ladder(call, measured.rungs, measured)
        write_ladder(call, measured.rungs, measured)


class RobustnessSettings:
    """The settings of the audit, once they are found to be right.

    Args:
        call: The call.

    Raises:
        UserError: One is wrong.
    """

    def __init__(self, call: AuditCall) -> None:
        config = call.config
        self.names: list[str] | None = config["corruptions"]
        for name in self.names or ():
            if name not in CORRUPTIONS:
                raise UserError(
                    f"--corruptions names '{name}'; {suggest_or_list(name, CORRUPTIONS)}"
                )
        for severity in config["severities"]:
            if severity not in SEVERITIES:
                raise UserError(f"--severities holds {severity}; they go from 0 to 5")
        self.severities = sorted({0, *config["severities"]})
        for bound in config["attacks"]:
            if not (isfinite(bound) and bound > 0):
                raise UserError(f"--attacks holds {bound}; a bound is a number above 0")
        self.bounds: list[float] = sorted(set(config["attacks"]))
        self.repeats: int = config["repeats"]
        if self.repeats < 2:
            raise UserError(f"--repeats is {self.repeats}; an interval needs at least 2")
        self.rows: int | None = config["rows"]
        if self.rows is not None and self.rows < 1:
            raise UserError(f"--rows is {self.rows}; it must be at least 1")


class Measuring:
    """Scores a run on corrupted rows.

    Args:
        call: The call.
        settings: Its settings.

    Attributes:
        notes: What does not apply, a sentence each.
        rows: The rows.
        rungs: What is measured so far.
    """

    def __init__(self, call: AuditCall, settings: RobustnessSettings) -> None:
        self.run: LoadedRun = call.run
        self.settings = settings
        self.seed: int = call.config["seed_everything"]
        self.notes: list[str] = []
        self.rungs: list[Rung] = []
        self.rows: Batch = load_limited(call.run.data, call.split, settings.rows, MOST_ROWS)
        own = open_own_data(call.run.member, "robustness")
        training = load_limited(own, "train", None, LEARNT_FROM)
        self.parts: list[Part] = learn_parts(describe_parts(call.run.data), training.inputs)
        self.samples = draw_samples(self.seed, len(self.rows), settings.repeats)
        self.clean = self._score(self.rows.inputs)

    def climb(self) -> None:
        """Measures the score of each task at each severity of each corruption that suits."""
        chosen = self._choose()
        above = [severity for severity in self.settings.severities if severity]
        with show_progress("corruptions", len(chosen) * len(above)) as advance:
            for corruption in chosen:
                for severity in self.settings.severities:
                    if not severity:
                        self._compare(corruption.name, 0, 0.0, self.clean)
                        continue
                    changed = corruption.corrupt(
                        self.parts, self.rows.inputs, self.rows.ids, severity, self.seed
                    )
                    amount = corruption.amounts[severity - 1]
                    self._compare(corruption.name, severity, amount, self._score(changed))
                    advance()

    def attack(self) -> None:
        """Measures the score of each task under attacks on its own loss."""
        bounds = self.settings.bounds
        if not bounds:
            return
        if not find_attackable(self.parts):
            self.notes.append("attacks move numbers and pixels, and the inputs have none")
            return
        try:
            import_attacks()
        except UserError as error:
            self.notes.append(f"{error}; the rest is there without them")
            return
        with show_progress("attacks", len(bounds) * len(self.run.tasks)) as advance:
            for task in self.run.tasks:
                self._compare(ATTACK, 0, 0.0, self.clean, task)
                for place, bound in enumerate(bounds, 1):
                    other = self._score(self._attack_task(task, bound), task)
                    self._compare(ATTACK, place, bound, other, task)
                    advance()

    def _choose(self) -> list[Corruption]:
        """Returns the corruptions that suit the inputs; notes why others do not."""
        chosen: list[Corruption] = []
        by_token = self._labels_tokens()
        kinds = {part.kind for part in self.parts}
        if "graph" in kinds:
            self.notes.append(
                "graphs are left as they are: no corruption here is one of nodes or edges"
            )
        for name, kind in CORRUPTIONS.items():
            corruption = Tokens(by_token) if kind is Tokens else kind()
            if self.settings.names is not None and name not in self.settings.names:
                continue
            if any(corruption.suits(part) for part in self.parts):
                chosen.append(corruption)
            elif self.settings.names is not None:
                self.notes.append(
                    f"{name} corrupts {corruption.reads}, and the inputs have none: it is left out"
                )
        return chosen

    def _labels_tokens(self) -> bool:
        """Returns whether the tokens of a sample have labels of their own."""
        tasks = self.run.tasks
        return any(
            self.rows.targets[name].ndim > 1 + task.event_dims for name, task in tasks.items()
        )

    def _score(self, changed: Inputs, task: str | None = None) -> Scores:
        """Scores changed rows, whole and on draws of them; of all tasks or of one."""
        tasks = self.run.tasks if task is None else {task: self.run.tasks[task]}
        return Scores(self.run.predict, tasks, self.rows, self.samples, iter([changed]))

    def _compare(
        self, name: str, severity: int, amount: float, other: Scores, only: str | None = None
    ) -> None:
        """Adds the rungs of a severity for each task, or for one."""
        for task in self.run.tasks if only is None else (only,):
            score, low, high = summarise_drops(other.whole[task], other.resampled[task])
            pairs = zip(self.clean.resampled[task], other.resampled[task], strict=True)
            falls = [a - b for a, b in pairs]
            fall, least, most = summarise_drops([self.clean.whole[task][0] - score], falls)
            rung = Rung(task, name, severity, amount, score, low, high, fall, least, most)
            self.rungs.append(rung)

    def _attack_task(self, name: str, radius: float) -> Inputs:
        """Returns the rows, attacked for a task by the weights that count for it."""
        model = self.run.use_weights_of(name)
        targets = self.rows.targets[name].split(self.run.batch_size)
        attack = partial(attack_inputs, model, name, self.run.tasks[name], self.parts)
        found = []
        batches = split_inputs(self.rows.inputs, self.run.batch_size)
        for inputs, labels in zip(batches, targets, strict=True):
            found.append(attack(inputs, labels, radius))
        return join_inputs(found)


def join_inputs(batches: Sequence[Inputs]) -> Inputs:
    """Returns the inputs of several batches as one."""
    first = batches[0]
    if isinstance(first, torch.Tensor):
        return torch.cat([batch for batch in batches if isinstance(batch, torch.Tensor)])
    dicts = [batch for batch in batches if isinstance(batch, dict)]
    return {key: torch.cat([batch[key] for batch in dicts]) for key in first}


def show_ladder(call: AuditCall, rungs: Sequence[Rung], measured: Measuring) -> None:
    """Prints a table for each task: a row for each corruption, a column for each severity."""
    console = Console()
    if rungs:
        print(f"robustness on {len(measured.rows)} rows", flush=True)
    for name, task in call.run.tasks.items():
        of_task = [rung for rung in rungs if rung.task == name]
        for title, own in split_attacks(of_task):
            print(f"{name}: {task.describe_score()} {title}", flush=True)
            table = Table(box=None)
            table.add_column("", no_wrap=True)
            for rung in own[0]:
                heading = rung.amount if rung.corruption == ATTACK else rung.severity
                table.add_column(f"{heading:g}", justify="right")
            for line in own:
                cells = [f"{r.score:.3f} ±{(r.high - r.low) / 2:.3f}" for r in line]
                table.add_row(line[0].corruption, *cells)
            console.print(table, crop=False)
    if rungs:
        print(NOTE, flush=True)
    kinds = {rung.corruption for rung in rungs}
    for name, corruption in CORRUPTIONS.items():
        if name in kinds:
            amounts = ", ".join(f"{amount:g}" for amount in corruption.amounts)
            print(f"{name}: {corruption.meaning}: {amounts}", flush=True)


def split_attacks(rungs: Sequence[Rung]) -> Iterator[tuple[str, list[list[Rung]]]]:
    """Yields the rungs of a task line by line, of corruptions and then of attacks."""
    names = list(dict.fromkeys(rung.corruption for rung in rungs))
    lines = {name: [rung for rung in rungs if rung.corruption == name] for name in names}
    ladder = [line for name, line in lines.items() if name != ATTACK]
    if ladder:
        yield "by severity", ladder
    if ATTACK in lines:
        yield "under the worst change of numbers within a bound, in stds", [lines[ATTACK]]


def write_ladder(call: AuditCall, rungs: Sequence[Rung], measured: Measuring) -> None:
    """Writes the ladder as numbers and as a picture."""
    tasks = call.run.tasks
    words = {name: task.describe_score() for name, task in tasks.items()}
    content = {
        "split": call.split,
        "rows": len(measured.rows),
        "repeats": measured.settings.repeats,
        "seed": measured.seed,
        "scores": words,
        "notes": measured.notes,
        "ladder": [vars(rung) for rung in rungs],
    }
    path = call.folder / "robustness.json"
    write_atomically(path, lambda file: file.write(to_json(content)))
    if rungs:
        figure = draw_ladder(rungs, words)
        picture = call.folder / "robustness.png"
        write_atomically(picture, lambda file: figure.savefig(file, format="png", dpi=150))
