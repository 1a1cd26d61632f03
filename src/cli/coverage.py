"""Sets and intervals beside predictions: --coverage of predict."""

from typing import Any

from torch import Tensor

from src.cli.auditing.calibration_rows import name_groups
from src.cli.calibrated import read_own_calibration
from src.cli.flags import Flag
from src.cli.members import Member
from src.cli.terminal import remark
from src.data import MultiTaskDataModule, Split
from src.errors import UserError
from src.models import MultiTaskModel
from src.tasks import BinaryClassification, Classification, MultilabelClassification, Regression
from src.tasks.calibration.conformal import SETS, Conformal, Method, count_rows_needed
from src.tasks.calibration.record import Calibration

COVERAGE = (
    Flag(
        "coverage",
        float | None,
        None,
        "Add sets of classes, <task>.set, and intervals, <task>.low and <task>.high, that hold the "
        "label with this probability, such as 0.9; the run must be calibrated.",
    ),
    Flag(
        "sets",
        str,
        "lac",
        "How --coverage makes sets: lac, the smallest, some of them empty; or aps, larger where "
        "the network doubts, and never empty.",
    ),
)
BETWEEN = "|"  # of words in a set


def read_coverage(members: list[Member]) -> Calibration | None:
    """Returns the calibration that --coverage needs; None where the flag is not given.

    Raises:
        UserError: The flags are wrong, or the run has no conformity scores.
    """
    cli = members[0].cli
    coverage = cli.config["coverage"]
    if coverage is None:
        return None
    if not 0 < coverage < 1:
        raise UserError(f"--coverage is {coverage:g}; it must be between 0 and 1, such as 0.9")
    if cli.config["sets"] not in SETS:
        raise UserError(f"--sets is '{cli.config['sets']}'; it must be lac or aps")
    if len(members) > 1:
        raise UserError("--coverage takes one run: each has conformity scores of its own outputs")
    if cli.config["uncalibrated"]:
        raise UserError("--coverage needs calibrated outputs: leave out --uncalibrated")
    if cli.config["preference"] is not None:
        raise UserError("--coverage is of the run's own preference: leave out --preference")
    run = members[0].run
    found = read_own_calibration(run, members[0].checkpoint, cli.model)
    if found is None or not found.conformal:
        raise UserError(
            f"--coverage: run {run.path} has no conformity scores of these weights: python -m "
            f"src.audit --run {run.path} --only '[calibration]' --calibrate makes them"
        )
    return found


class Coverage:
    """Sets and intervals of a run's predictions.

    Args:
        calibration: The run's calibration.
        model: The model, in whose calibrated outputs they are.
        data: The data.
        coverage: The probability with which they hold the label.
        method: lac or aps, of sets.
    """

    def __init__(
        self,
        calibration: Calibration,
        model: MultiTaskModel,
        data: MultiTaskDataModule,
        coverage: float,
        method: Method,
    ) -> None:
        self.calibration = calibration
        self.model = model
        self.data = data
        self.coverage = coverage
        self.method = method

    def make_columns(self, rows: list[int], outputs: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Returns {task: {suffix of the column's name: values}}, and says what is missing.

        Args:
            rows: The numbers of the rows.
            outputs: {task: calibrated outputs (N, O) of these rows}.
        """
        split = self.data.predict_split
        groups = self._read_groups(split, rows)
        found: dict[str, dict[str, Any]] = {}
        for name in self.model.tasks:
            conformal = self.calibration.conformal.get(name)
            if conformal is None:
                remark(f"--coverage: {name} has no sets or intervals, which the audit explains")
                continue
            self._tell_few(name, conformal, groups)
            if conformal.makes_sets:
                chosen = conformal.sets(outputs[name], self.coverage, self.method, groups)
                self._tell_empty(name, chosen)
                found[name] = name_sets(conformal, chosen.tolist())
            else:
                ends = conformal.interval(outputs[name], self.coverage, groups)
                found[name] = name_ends(conformal, ends.unbind(1))
        return found

    def _read_groups(self, split: Split, rows: list[int]) -> list[str] | None:
        columns = self.calibration.groups
        if not columns:
            return None
        words = name_groups(self.data, split, columns)
        return [words[row] for row in rows]

    def _tell_empty(self, name: str, chosen: Tensor) -> None:
        """Says how many sets are empty, as they must be where a task is right more often."""
        empty = int((~chosen.any(-1)).sum())
        if empty:
            remark(
                f"--coverage {self.coverage:g}: {empty} of {chosen[..., 0].numel()} sets of {name} "
                "are empty, since it is right more often than that: ask for more, or --sets aps"
            )

    def _tell_few(self, name: str, conformal: Conformal, groups: list[str] | None) -> None:
        """Says which rows have sets of all classes, or intervals without ends, and why."""
        needed = count_rows_needed(self.coverage)
        whole = "sets of all classes" if conformal.makes_sets else "intervals without ends"
        if groups is None:
            rows = conformal.count_rows()
            if rows < needed:
                remark(
                    f"--coverage {self.coverage:g} needs {needed} validation rows, and {name} has "
                    f"{rows}: it has {whole}"
                )
            return
        for group in dict.fromkeys(groups):
            rows = conformal.count_rows(group)
            if rows < needed:
                remark(
                    f"--coverage {self.coverage:g} needs {needed} validation rows, and {name} has "
                    f"{rows} of the group {group}: its {groups.count(group)} rows have {whole}"
                )


def name_sets(conformal: Conformal, chosen: list[list[Any]]) -> dict[str, list[str]]:
    """Returns columns of sets, their words joined; one column for each of several labels."""
    task = conformal.task
    if isinstance(task, MultilabelClassification):
        columns: dict[str, list[str]] = {}
        for k, label in enumerate(task.labels):
            columns[f"set_{label}"] = [join_words(("0", "1"), row[k]) for row in chosen]
        return columns
    assert isinstance(task, BinaryClassification | Classification)
    words = [str(label) for label in task.classes]
    return {"set": [join_words(words, row) for row in chosen]}


def join_words(words: list[str] | tuple[str, ...], chosen: list[bool]) -> str:
    """Returns the words that are chosen in one text."""
    return BETWEEN.join(word for word, is_in in zip(words, chosen, strict=True) if is_in)


def name_ends(conformal: Conformal, ends: Any) -> dict[str, list[float]]:
    """Returns columns of the ends of intervals, two for each output of a vector."""
    task = conformal.task
    names = task.names if isinstance(task, Regression) else ()
    columns: dict[str, list[float]] = {}
    for name, (low, high) in zip(names or ("",), (e.unbind(-1) for e in ends), strict=True):
        suffix = f"_{name}" if name else ""
        columns[f"low{suffix}"] = low.tolist()
        columns[f"high{suffix}"] = high.tolist()
    return columns
