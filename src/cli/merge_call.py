"""The command line of ``python -m src.merge``: its own flags, and the words for opening runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import yaml

from src.cli.flags import Flag, Words, split_flags
from src.cli.layers import ConfigError
from src.errors import UserError
from src.files.yaml12 import load

OWN = (
    Flag("runs", list[str], None, "Run folders to merge: --runs A B C, or A,B,C."),
    Flag("method", str, None, "How: {methods}."),
    Flag("weights", list[float], None, "One weight for each run, which sum to 1: 0.5,0.3,0.2."),
    Flag("scale", float, None, "Factor on what the runs have learnt; chosen on validation rows."),
    Flag("density", float, None, "Share of changes that ties [0.2] or dare [0.5] keeps."),
    Flag("draw_seed", int, 0, "Seed of what dare drops."),
    Flag("rows", int, 512, "Training rows for fisher and regmean, or rows a step of adamerging."),
    Flag("alpha", float, 0.9, "Factor of regmean on the Gram matrices off their diagonals."),
    Flag("steps", int, 200, "Steps in which adamerging learns."),
    Flag("rate", float, 0.01, "Learning rate of adamerging."),
    Flag("heads", dict[str, int], None, "{task: number of the run, from 1, whose head counts}."),
    Flag("align", bool, False, "Bring units of runs of other starts into one order first."),
    Flag("joint", str, None, "A run that was trained on all tasks together, shown beside."),
    Flag("no_test", bool, False, "Leave the test out, as in tuning."),
)
ALONE = ("align", "no_test")  # flags that may stand alone
# flags that only some methods read
OF_METHODS = ("weights", "scale", "density", "draw_seed", "rows", "alpha", "steps", "rate")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Call:
    """A command line of merge.

    Attributes:
        runs: The run folders.
        method: The name of the method.
        weights: A weight for each run; None where none are given.
        scale: The factor on task vectors; None to choose it on validation rows.
        density: The share of a task vector that is kept; None for the method's own.
        draw_seed: Seed of what is dropped.
        rows: Rows that are looked at.
        alpha: Factor on the elements of Gram matrices off their diagonals.
        steps: Steps in which coefficients are learnt.
        rate: Their learning rate.
        heads: {task: number of the run, from 0, whose head counts}.
        align: Whether units are brought into one order.
        joint: A run on all tasks; None for none.
        tests: Whether test rows are looked at.
        logs: Where run folders go.
        name: The group of the run; None for the default.
        words: All other flags.
    """

    runs: tuple[str, ...]
    method: str
    weights: tuple[float, ...] | None
    scale: float | None
    density: float | None
    draw_seed: int
    rows: int
    alpha: float
    steps: int
    rate: float
    heads: dict[str, int]
    align: bool
    joint: str | None
    tests: bool
    logs: str
    name: str | None
    words: list[str]


def read_call(args: list[str], reads: Callable[[str], Sequence[str]]) -> Call:
    """Reads the command line.

    Args:
        args: The command line after the command.
        reads: Returns the flags that a method reads; raises for an unknown one.

    Raises:
        UserError: A flag has a value that it cannot have, or no meaning for the method.
    """
    own = {flag.name for flag in OWN} | {"logs", "name"}
    given: dict[str, str] = {}
    words: list[str] = []
    for key, value in split_flags(args):
        if key == "run":
            raise ConfigError("--run names one run: the runs to merge are --runs A B C")
        if key not in own:
            words += list_words(key, value)
            continue
        if value is None and key not in ALONE:
            raise ConfigError(f"--{key} needs a value")
        given[key] = "true" if value is None else value

    runs = read_runs(given.get("runs"))
    if "method" not in given:
        raise ConfigError("--method is missing: --method average, or another; --help lists them")
    method = given["method"]
    known = reads(method)
    for key in OF_METHODS:
        if key in given and key not in known:
            raise UserError(f"--{key} has no meaning for --method {method}: leave it out")

    weights = given.get("weights")
    heads = read_heads(given.get("heads"), len(runs))
    return Call(
        runs=runs,
        method=method,
        weights=None if weights is None else read_weights(weights),
        scale=read_number(given, "scale", None, lambda x: isfinite(x), "a finite number"),
        density=read_number(given, "density", None, is_share, "above 0 and at most 1"),
        draw_seed=read_count(given, "draw_seed", 0, 0),
        rows=read_count(given, "rows", 512, 1),
        alpha=read_number(given, "alpha", 0.9, lambda x: 0 <= x <= 1, "from 0 to 1"),
        steps=read_count(given, "steps", 200, 1),
        rate=read_number(given, "rate", 0.01, lambda x: 0 < x < 10, "above 0 and below 10"),
        heads=heads,
        align=read_truth(given, "align"),
        joint=given.get("joint"),
        tests=not read_truth(given, "no_test"),
        logs=given.get("logs", "logs"),
        name=given.get("name"),
        words=words,
    )


def list_words(key: str, value: str | None) -> list[str]:
    """Returns the words of a flag as they stood on the command line."""
    if value is None:
        return [f"--{key}"]
    return [f"--{key}", *value.words] if isinstance(value, Words) else [f"--{key}={value}"]


def list_names(text: str) -> list[str]:
    """Returns the entries of a list: several words, a list in YAML, or names between commas.

    Raises:
        ConfigError: A name between commas is missing.
    """
    if isinstance(text, Words):
        return list(text.words)
    if text.startswith("["):
        try:
            found = load(text)
        except yaml.YAMLError:
            found = None
        if isinstance(found, list):
            return [str(entry) for entry in found]
    # the name of a folder may hold a comma itself
    if Path(text).is_dir():
        return [text]
    names = [name.strip() for name in text.split(",")]
    if "" in names:
        raise ConfigError(f"'{text}': a name is missing beside a comma")
    return names


def read_runs(text: str | None) -> tuple[str, ...]:
    """Returns the run folders that are merged.

    Raises:
        UserError: There are fewer than two, or one is there twice.
    """
    if text is None:
        raise ConfigError(
            "--runs is missing: name the runs to merge, such as --runs logs/a/2026-01-31_12-00-00 "
            "logs/b/2026-01-31_12-10-00"
        )
    runs = list_names(text)
    if len(runs) < 2:
        raise UserError(f"--runs {text}: one run alone cannot be merged; name two or more")
    resolved = [Path(run).resolve() for run in runs]
    for number, run in enumerate(runs):
        if resolved[number] in resolved[:number]:
            raise UserError(f"--runs names {run} twice; --weights says how much a run counts")
    return tuple(runs)


def read_weights(text: str) -> tuple[float, ...]:
    """Returns the weights of the runs.

    Raises:
        UserError: One is no finite number.
    """
    weights = []
    for word in list_names(text):
        number = to_number(word)
        if number is None:
            raise UserError(f"--weights {text}: '{word}' is no number; write 0.5,0.3,0.2")
        weights.append(number)
    return tuple(weights)


def read_heads(text: str | None, count: int) -> dict[str, int]:
    """Returns {task: number of the run, from 0, whose head counts}.

    Raises:
        UserError: It is no such mapping, or there is no such run.
    """
    if text is None:
        return {}
    try:
        found: Any = load(text)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        raise UserError(
            f"--heads {text}: write the task and the number of its run: '{{income: 1}}'"
        )
    heads = {}
    for task, number in found.items():
        if not isinstance(number, int) or not 1 <= number <= count:
            raise UserError(
                f"--heads gives '{task}' the run {number}; runs have the numbers 1 to {count}, in "
                "the order of --runs"
            )
        heads[str(task)] = number - 1
    return heads


def read_number(
    given: dict[str, str],
    key: str,
    default: Value,
    allows: Callable[[float], bool],
    words: str,
) -> float | Value:
    """Returns the value of a flag that is a number.

    Raises:
        ConfigError: It is none, or not within its bounds.
    """
    if key not in given:
        return default
    number = to_number(given[key])
    if number is None or not allows(number):
        raise ConfigError(f"--{key} is '{given[key]}'; it must be {words}")
    return number


def read_count(given: dict[str, str], key: str, default: int, least: int) -> int:
    """Returns the value of a flag that is a whole number.

    Raises:
        ConfigError: It is none, or too small.
    """
    text = given.get(key, str(default))
    if not text.isdigit() or int(text) < least:
        raise ConfigError(f"--{key} is '{text}'; it must be a whole number from {least}")
    return int(text)


def read_truth(given: dict[str, str], key: str) -> bool:
    """Returns whether a flag is true.

    Raises:
        ConfigError: It is neither true nor false.
    """
    text = given.get(key, "false")
    if text not in ("true", "false"):
        raise ConfigError(f"--{key} is '{text}'; it must be true or false")
    return text == "true"


def to_number(text: str) -> float | None:
    """Returns the finite number that a text spells; None where it spells none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None


def is_share(x: float) -> bool:
    """Returns whether a number is above 0 and at most 1."""
    return 0 < x <= 1


def list_flags(methods: Sequence[str]) -> tuple[Flag, ...]:
    """Returns the command's own flags, for its help."""
    named = ", ".join(methods)
    return tuple(
        Flag(flag.name, flag.type, flag.default, flag.help.format(methods=named))
        if flag.name == "method"
        else flag
        for flag in OWN
    )
