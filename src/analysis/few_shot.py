"""Methods that learn a task from few examples, compared over draws of the examples.

Every method learns from the same draws, so that differences are paired. Intervals are over draws:
they say how far a score depends on which examples were drawn, on these test rows. Draws come from
one pool of rows, and overlap where k is not small beside it.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import NotRequired, TypedDict

import numpy as np
import pandas as pd

from src.analysis.statistics import LEVEL, adjust_holm, compute_p_of_mean, estimate_mean

SCRATCH = "scratch"  # the method that transfers nothing
ALIKE = "no significant difference"
TOO_FEW = "too few draws"


class Fit(TypedDict):
    """A task learnt by one method from one draw, and measured."""

    method: str
    shots: int
    draw: int
    val: dict[str, float | None]
    test: NotRequired[dict[str, float | None]]
    seconds: float
    chosen: dict[str, float]


@dataclass(frozen=True)
class FewShots:
    """The scores of all methods, as tables.

    Attributes:
        task: The task.
        score: The score in words, such as AUROC; higher is better.
        stage: The rows that were measured, "test" or "val".
        methods: The methods in the order of tables.
        shots: The numbers k of examples, ascending.
        values: method, shots, draw, stage, metric, value: every number.
        summary: method, shots, mean, low, high, n: of the score, with the ends of its 95 % interval
            over draws.
        tests: shots, method, other, difference, low, high, n, p, p_holm, verdict: each two methods
            at k, paired by draw, with Holm's correction over all pairs at that k. The difference
            is that of ``method`` to ``other``.
    """

    task: str
    score: str
    stage: str
    methods: Sequence[str]
    shots: Sequence[int]
    values: pd.DataFrame
    summary: pd.DataFrame
    tests: pd.DataFrame


COLUMNS = ["shots", "method", "other", "difference", "low", "high", "n", "p", "p_holm", "verdict"]


def compare_methods(
    fits: Sequence[Fit], task: str, score: str, methods: Sequence[str], stage: str
) -> FewShots:
    """Summarises fits.

    Args:
        fits: All fits.
        task: The task.
        score: The score in words.
        methods: The methods in the order of tables.
        stage: Which rows count, "test" or "val".
    """
    values = list_values(fits)
    scores = values[(values["metric"] == "score") & (values["stage"] == stage)]
    shots = sorted({fit["shots"] for fit in fits})
    lines = []
    for method in methods:
        for k in shots:
            sample = take_scores(scores, method, k)
            lines.append((method, k, *estimate_mean(sample.to_numpy())))
    summary = pd.DataFrame(lines, columns=["method", "shots", "mean", "low", "high", "n"])
    return FewShots(
        task=task,
        score=score,
        stage=stage,
        methods=list(methods),
        shots=shots,
        values=values,
        summary=summary,
        tests=compare_pairs(scores, methods, shots),
    )


def list_values(fits: Sequence[Fit]) -> pd.DataFrame:
    """Returns every number of all fits, a line each."""
    lines = []
    for fit in fits:
        place = (fit["method"], fit["shots"], fit["draw"])
        stages: dict[str, Mapping[str, float | None]] = {"val": fit["val"]}
        if "test" in fit:
            stages["test"] = fit["test"]
        for stage, metrics in stages.items():
            for metric, value in metrics.items():
                lines.append((*place, stage, metric, nan if value is None else value))
    frame = pd.DataFrame(lines, columns=["method", "shots", "draw", "stage", "metric", "value"])
    return frame.astype({"value": float})


def take_scores(scores: pd.DataFrame, method: str, shots: int) -> pd.Series:
    """Returns the scores of a method at k by draw."""
    chosen = scores[(scores["method"] == method) & (scores["shots"] == shots)]
    return chosen.set_index("draw")["value"].sort_index()


def pair_scores(scores: pd.DataFrame, one: str, other: str, shots: int) -> np.ndarray:
    """Returns the differences of two methods in the draws that both have learnt from."""
    difference = take_scores(scores, one, shots) - take_scores(scores, other, shots)
    return difference.dropna().to_numpy(dtype=float)


def compare_pairs(
    scores: pd.DataFrame, methods: Sequence[str], shots: Sequence[int]
) -> pd.DataFrame:
    """Compares each two methods at each k."""
    tables = []
    for k in shots:
        pairs = itertools.combinations(methods, 2)
        tables.append(judge([test_pair(scores, one, other, k) for one, other in pairs]))
    return pd.concat(tables, ignore_index=True)


def test_pair(scores: pd.DataFrame, one: str, other: str, shots: int) -> tuple[object, ...]:
    """Returns the line of a comparison of two methods, without what depends on other lines."""
    differences = pair_scores(scores, one, other, shots)
    p = compute_p_of_mean(differences)
    return (shots, one, other, *estimate_mean(differences), p)


def judge(lines: Sequence[tuple[object, ...]]) -> pd.DataFrame:
    """Returns comparisons with Holm's correction over all of them, and a verdict in words."""
    frame = pd.DataFrame(list(lines), columns=COLUMNS[:-2])
    frame["p_holm"] = adjust_holm(frame["p"].to_numpy(dtype=np.float64))
    verdicts = []
    for difference, p in zip(frame["difference"], frame["p_holm"], strict=True):
        if np.isnan(p):
            verdicts.append(TOO_FEW)
        elif p >= LEVEL:
            verdicts.append(ALIKE)
        else:
            verdicts.append("better" if difference > 0 else "worse")
    frame["verdict"] = pd.Series(verdicts, dtype=object)
    return frame


def choose_method(fits: Sequence[Fit], methods: Sequence[str], shots: int) -> str:
    """Returns the method with the best mean score on validation rows at k.

    Of equal ones the first counts; one that has diverged in some draw, and has no score, is last.
    """
    values = list_values(fits)
    scores = values[(values["metric"] == "score") & (values["stage"] == "val")]
    means = [take_scores(scores, method, shots).mean(skipna=False) for method in methods]
    known = [-np.inf if np.isnan(mean) else mean for mean in means]
    return methods[int(np.argmax(known))]


# -- in words --------------------------------------------------------------------------------------
def find_verdicts(found: FewShots, method: str, shots: int) -> dict[str, str]:
    """Returns {other method: whether this one is better at k, worse, or neither}."""
    verdicts = {}
    turned = {"better": "worse", "worse": "better"}
    for _, line in found.tests[found.tests["shots"] == shots].iterrows():
        if line["method"] == method:
            verdicts[line["other"]] = line["verdict"]
        elif line["other"] == method:
            verdicts[line["method"]] = turned.get(line["verdict"], line["verdict"])
    return verdicts


def tell_best(found: FewShots) -> list[str]:
    """Returns a line for each k: the method with the best mean, and what sets it apart."""
    lines = []
    for k in found.shots:
        means = found.summary[found.summary["shots"] == k].dropna(subset=["mean"])
        if means.empty:
            lines.append(f"{k} examples: no method has a score")
            continue
        best = means.sort_values("mean", ascending=False, kind="stable").iloc[0]
        line = f"{k} examples: {best['method']} {format_interval(best)}"
        verdicts = find_verdicts(found, str(best["method"]), k)
        for verdict, words in (
            ("better", "better than"),
            (ALIKE, "no significant difference from"),
            (TOO_FEW, "too few draws to test it against"),
        ):
            others = [other for other in found.methods if verdicts.get(other) == verdict]
            if others:
                line += f"; {words} {', '.join(others)}"
        lines.append(line)
    return lines


def tell_transfer(found: FewShots) -> list[str]:
    """Returns where methods that transfer are better or worse than training from scratch."""
    others = [method for method in found.methods if method != SCRATCH]
    if SCRATCH not in found.methods or not others:
        return []
    lines = []
    for verdict in ("better", "worse"):
        parts = []
        for method in others:
            shots = [k for k in found.shots if find_verdicts(found, method, k)[SCRATCH] == verdict]
            if shots:
                parts.append(f"{method} at {', '.join(map(str, shots))}")
        if parts:
            lines.append(f"significantly {verdict} than {SCRATCH}: {'; '.join(parts)}")
    return lines or [f"no method differs significantly from {SCRATCH}"]


def format_interval(line: "pd.Series") -> str:
    """Returns a mean with its interval, as 0.812 [0.790, 0.834]."""
    text = f"{line['mean']:.3f}"
    if np.isfinite([line["low"], line["high"]]).all():
        text += f" [{line['low']:.3f}, {line['high']:.3f}]"
    return text


def describe_intervals(draws: int, pool: int) -> str:
    """Says what the intervals are over, in a sentence.

    Args:
        draws: Draws of the examples.
        pool: Labelled rows that they come from.
    """
    if draws < 2:
        return "one draw gives no interval and no test: use --draws 10"
    return (
        f"intervals (95 %) and tests are over {draws} draws of the examples from {pool} training "
        "rows, paired by draw; they say nothing of other test rows, and draws overlap"
    )
