"""Sentences that a report says of its numbers: how they were made, tuned, averaged and tested."""

import pandas as pd

from src.analysis.record import StudyRecord
from src.analysis.scores import Scores
from src.analysis.statistics import FEWEST

BEST = "Bold is the best mean of a column, significantly better or not."
COUNTS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}


def describe_methods(
    scores: Scores, record: StudyRecord, tuned: pd.DataFrame, cost_unit: str | None
) -> list[str]:
    """Returns how the numbers of a study were made, one sentence or two on each matter."""
    return [
        describe_tuning(record, tuned),
        describe_intervals(scores, record),
        describe_delta(scores),
        describe_tests(scores),
        "Rank is the mean rank over tasks, by their monitors, and replicates; 1 is the best, and "
        "references are not ranked.",
        describe_costs(cost_unit),
    ]


def describe_tuning(record: StudyRecord, tuned: pd.DataFrame) -> str:
    """Says what was tuned, how often, on what, and when test rows were read."""
    tested = "Test rows were read once, from the chosen checkpoints."
    tuning = record["tuning"]
    budget = 0 if tuning is None else tuning["trials"]
    more = []
    for name, tried in tuned.groupby("row", sort=False)["tried"].max().items():
        if tried != budget:
            more.append(f"{name} tried {tried}")
    if tuning is None:
        others = f" but weights: {', '.join(more)}, chosen on validation rows" if more else ""
        return f"Nothing was tuned{others}. {tested}"

    keys = ", ".join(f"{key} {format_choices(values)}" for key, values in tuning["space"].items())
    others = f" ({', '.join(more)})" if more else ""
    each = "row" if record["folds"] is None else "row and fold"
    return (
        f"Tuned: {keys or 'nothing'}; {tuning['method']}, {tuning['trials']} candidates for each "
        f"{each}{others}, chosen by {tuning['by']} on validation rows. {tested}"
    )


def format_choices(values: object) -> str:
    """Returns the choices of a setting in words."""
    if isinstance(values, dict):
        ends = f"from {values.get('low')} to {values.get('high')}"
        return f"{ends}, on a log scale" if values.get("log") else ends
    return f"in {{{', '.join(map(str, values))}}}" if isinstance(values, list) else str(values)


def describe_intervals(scores: Scores, record: StudyRecord) -> str:
    """Says what intervals are over, or why there are none."""
    seeds = len(record["seeds"])
    if scores.has_folds:
        each = "" if seeds == 1 else f", each the mean of {count(seeds, 'seed')}"
        return (
            f"Mean ± half of a 95 % interval over {record['folds']} folds{each}: Student's t with "
            f"the variance (1/n + n_test/n_train) s², n_test/n_train = {scores.overlap:.3g}, "
            "since training rows of folds overlap (Nadeau and Bengio 2003)."
        )
    if seeds < 2:
        return "One seed gives no intervals and no tests: state more, such as seeds: 5."
    return (
        f"Mean ± half of a 95 % interval over {count(seeds, 'seed')} (Student's t). All replicates "
        "have one split of the data: intervals say how far seeds move a number, not how far other "
        "rows would."
    )


def count(number: int, word: str) -> str:
    """Returns a number with its noun."""
    return f"{COUNTS.get(number, number)} {word}{'' if number == 1 else 's'}"


def describe_delta(scores: Scores) -> str:
    """Says what delta is, and its sign."""
    if scores.single is None:
        return "There is no delta: the study has no single-task row."
    return (
        f"Δ is the improvement over {scores.rows[scores.single]} in percent of its mean, paired by "
        "replicate; higher is better, whatever the sign of the metric. Δ metrics is the mean over "
        "all metrics, Δ tasks that over tasks of the mean over a task's metrics."
    )


def describe_tests(scores: Scores) -> str:
    """Says what was tested, against which row, and how."""
    if scores.baseline is None:
        return "Nothing was tested: the study has no baseline row."
    kind = "corrected resampled t test" if scores.has_folds else "paired t test"
    quantity = "Δ tasks" if scores.single is not None else "the mean improvement over tasks"
    return (
        f"Each row but references was tested against {scores.rows[scores.baseline]} on {quantity} "
        f"({kind} over replicates, two-sided, Holm's correction over rows, level 5 %): † better, "
        f"‡ worse. Fewer than {FEWEST} pairs are not tested."
    )


def describe_costs(unit: str | None) -> str:
    """Says what a cost is relative to."""
    relative = "" if unit is None else f"; relative to {unit}"
    return (
        "Cost: wall-clock seconds and optimizer steps of a replicate, all its trials together"
        f"{relative}. Trials that ran side by side have slowed one another."
    )
