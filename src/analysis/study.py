"""A study as its file describes it: a base, variants, baselines, seeds, folds and tuning.

::

    name: digits-balancing          # its folder; the file's name where it has none
    base: ../experiment/digits.yaml # configuration files under all rows, beside this file
    settings: {budget.steps: 500}   # flags over the base
    variants:
      UPGrad: {model.balancer: UPGrad}
      MMoE: {model.sharing: MMoE, grid: {model.sharing.experts: [2, 4]}}  # two rows
      five PLE: {model.sharing: PLE, ensemble: 5}
      boosting: {reference: boosting}
    baselines: default              # or a list of their names, [] for none
    seeds: 5                        # or a list
    folds: 5                        # of tables
    tuning: {grid: {lr: [0.0003, 0.001, 0.003]}}
    weights: 8                      # vectors that the row of tuned weights tries

Keys of settings are flags of ``src.train``, with or without sections (``model: {balancer: UPGrad}``
is ``model.balancer: UPGrad``).
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from src.analysis.settings import (
    Settings,
    flatten_settings,
    read_count,
    read_grid,
    shorten,
    shorten_path,
    spell,
)
from src.errors import UserError, suggest_or_list
from src.files.yaml12 import read_as_written

KEYS = (
    *("name", "base", "settings", "variants", "baselines", "seeds", "folds", "tuning", "weights"),
    "intervals",
)
REFERENCES = ("constant", "linear", "boosting")

SINGLE_TASK = "single-task"
PLAIN = "StaticWeights"
TUNED_WEIGHTS = "tuned weights"
STATIC = {"model.balancer": "StaticWeights"}
# there is no delta without them: single-task networks, plain and tuned sums of the losses, and the
# two that any method must beat
BASELINES: dict[str, dict[str, str]] = {
    SINGLE_TASK: {"model.sharing": "Separate", **STATIC},
    PLAIN: STATIC,
    TUNED_WEIGHTS: STATIC,
    "AutoScale": {"model.balancer": "AutoScale"},
    "LogSum": {"model.balancer": "LogSum"},
    "RandomWeights": {"model.balancer": "RandomWeights"},
}


@dataclass(frozen=True)
class Variant:
    """One row of a study.

    Attributes:
        name: Its name.
        settings: Flags over the base.
        role: A method, a baseline, or a reference that is no network.
        reference: The kind of reference; "" for a network.
        ensemble: Members whose predictions are averaged; 1 for a single network.
        by_task: Whether each task has the setting that suits it best, as networks have that share
            nothing.
        tries_weights: Whether fixed weights of the tasks are tuned, too.
    """

    name: str
    settings: Settings = field(default_factory=dict)
    role: Literal["method", "baseline", "reference"] = "method"
    reference: str = ""
    ensemble: int = 1
    by_task: bool = False
    tries_weights: bool = False


@dataclass(frozen=True)
class TuningPlan:
    """How each row is tuned: all settings of a grid, or as many as ``trials`` from a space.

    Attributes:
        method: grid, or the name of a sampler.
        space: {flag: values of a grid, or bounds for a sampler}.
        trials: Candidates of each row.
    """

    method: str
    space: dict[str, Any]
    trials: int


@dataclass(frozen=True)
class Study:
    """A study, checked as far as its file alone can be.

    Attributes:
        name: The name of its folder.
        base: Configuration files, each over the one before.
        settings: Flags over the base, in all rows.
        variants: The rows, baselines first.
        seeds: Seeds of the replicates.
        folds: Folds of the data; None for the one split that they have.
        tuning: How rows are tuned; None where they are not.
        weights: Vectors of fixed weights that the row of tuned weights tries.
    """

    name: str
    base: list[str]
    settings: Settings
    variants: list[Variant]
    seeds: list[int]
    folds: int | None = None
    tuning: TuningPlan | None = None
    weights: int = 8

    @property
    def baseline(self) -> str | None:
        """The row that the others are tested against: tuned weights, or plain ones without."""
        names = [variant.name for variant in self.variants]
        return next((name for name in (TUNED_WEIGHTS, PLAIN) if name in names), None)

    @property
    def single_task(self) -> str | None:
        """The row that deltas refer to."""
        names = [variant.name for variant in self.variants]
        return SINGLE_TASK if SINGLE_TASK in names else None


def read_file(path: Path) -> dict[str, Any]:
    """Reads the file of a study.

    Raises:
        UserError: It cannot be read, or is no mapping of the keys that a study has.
    """
    content = read_as_written(path, f"study {path}")
    if not isinstance(content, dict):
        raise UserError(f"study {path}: a mapping of keys to values is expected: {', '.join(KEYS)}")
    for key in content:
        if key not in KEYS:
            raise UserError(f"study {path}: {key} is no key: {suggest_or_list(key, KEYS)}")
    return content


def parse_study(content: Mapping[str, Any], path: Path, extra: Settings) -> Study:
    """Builds a study from the content of its file.

    Args:
        content: The content.
        path: The file, which paths are relative to.
        extra: Flags of the command line, over all settings of the file.

    Raises:
        UserError: A value is not what its key expects.
    """
    where = f"study {path}"
    base = content.get("base") or []
    files = [base] if isinstance(base, str) else base
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise UserError(f"{where}: base is {shorten(base)}, where a file or a list of them belongs")

    settings = flatten_settings(content.get("settings") or {}, path, "settings") | extra
    variants = list(read_baselines(content.get("baselines", "default"), where))
    variants += read_variants(content.get("variants") or {}, path)
    refuse_doubles(variants, where)
    if not variants:
        raise UserError(f"{where}: it has neither variants nor baselines: there is nothing to run")

    weights = read_count(content.get("weights", 8), "weights", where, least=1)
    seeds = read_seeds(content.get("seeds", 5), where)
    folds = content.get("folds")
    if folds is not None:
        folds = read_count(folds, "folds", where, least=2)
    intervals = content.get("intervals", True)
    if not isinstance(intervals, bool | int) or intervals not in (0, 1):
        raise UserError(f"{where}: intervals is {shorten(intervals)}; it must be true or false")
    if intervals and len(seeds) == 1 and folds is None:
        raise UserError(
            f"{where}: one seed gives no interval and no test: use seeds: 2 or more, or say "
            "intervals: false"
        )
    return Study(
        name=read_name(content.get("name", path.stem), where),
        base=[shorten_path(path.parent / name) for name in files],
        settings=settings,
        variants=variants,
        seeds=seeds,
        folds=folds,
        tuning=read_tuning(content.get("tuning"), path),
        weights=weights,
    )


# -- one key each ----------------------------------------------------------------------------------
def read_name(name: object, where: str) -> str:
    """Returns the name of a study, which a folder can have.

    Raises:
        UserError: It is none.
    """
    if not isinstance(name, str) or not name.strip() or "/" in name or name.startswith("."):
        raise UserError(f"{where}: name is {shorten(name)}; it must be the name of a folder")
    if name == "trials":
        raise UserError(f"{where}: name is 'trials', the folder of all trials: choose another")
    return name


def read_seeds(value: object, where: str) -> list[int]:
    """Returns the seeds: of a number n those from 0 to n - 1, or the ones of a list.

    Raises:
        UserError: There is none, or one is no seed.
    """
    if not isinstance(value, list):
        return list(range(read_count(value, "seeds", where, least=1)))
    seeds = [read_count(seed, "seeds", where, least=0) for seed in value]
    if not seeds:
        raise UserError(f"{where}: seeds is an empty list; a study has at least one")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{where}: seeds has {find_double(seeds)} twice; each replicate is another")
    return seeds


def read_baselines(value: object, where: str) -> Iterator[Variant]:
    """Yields the baselines by their names; the default is all of them.

    Raises:
        UserError: A name is no baseline.
    """
    names = list(BASELINES) if value in ("default", None) else value
    if not isinstance(names, list):
        raise UserError(
            f"{where}: baselines is {shorten(value)}; it must be default or a list of names: "
            f"{', '.join(BASELINES)}"
        )
    for name in names:
        if name not in BASELINES:
            hint = suggest_or_list(str(name), BASELINES)
            raise UserError(f"{where}: baselines names '{name}', which is none: {hint}")
        yield Variant(
            name,
            dict(BASELINES[name]),
            role="baseline",
            by_task=name == SINGLE_TASK,
            tries_weights=name == TUNED_WEIGHTS,
        )


def read_variants(value: object, path: Path) -> Iterator[Variant]:
    """Yields the variants; one with a grid is a row for each of its combinations.

    Raises:
        UserError: One of them is no mapping, or a key of it has no sense.
    """
    where = f"study {path}"
    if not isinstance(value, dict):
        raise UserError(f"{where}: variants is {shorten(value)}, where names with settings belong")
    for name, content in value.items():
        place = f"variants.{name}"
        if not isinstance(content, dict):
            raise UserError(
                f"{where}: {place} is {shorten(content)}, where settings belong, such as "
                "{model.balancer: PCGrad}"
            )
        rest = {key: item for key, item in content.items() if key not in ("grid", "ensemble")}
        reference = str(rest.pop("reference", ""))
        if reference and reference not in REFERENCES:
            hint = suggest_or_list(reference, REFERENCES)
            raise UserError(f"{where}: {place}.reference is '{reference}': {hint}")
        members = read_count(content.get("ensemble", 1), f"{place}.ensemble", where, least=1)
        if reference and members > 1:
            raise UserError(f"{where}: {place}: a reference has no seeds, and so no ensemble")

        settings = flatten_settings(rest, path, place)
        for words, chosen in expand_grid(content.get("grid"), path, place):
            yield Variant(
                f"{name} {words}".strip(),
                settings | chosen,
                role="reference" if reference else "method",
                reference=reference,
                ensemble=members,
                by_task=(settings | chosen).get("model.sharing") == "Separate",
            )


def expand_grid(grid: object, path: Path, place: str) -> Iterator[tuple[str, Settings]]:
    """Yields each combination of a grid, with words that tell it from the others.

    Without a grid there is one combination, of nothing.

    Raises:
        UserError: It is no mapping of keys to lists.
    """
    if grid is None:
        yield "", {}
        return
    space = read_grid(grid, path, f"{place}.grid")
    for values in itertools.product(*space.values()):
        chosen = dict(zip(space, values, strict=True))
        words = [f"{key.rpartition('.')[2]}={spell(value)}" for key, value in chosen.items()]
        yield " ".join(words), chosen


def read_tuning(value: object, path: Path) -> TuningPlan | None:
    """Returns how rows are tuned.

    Raises:
        UserError: It is neither a grid nor a space with a number of trials.
    """
    where = f"study {path}"
    if value is None:
        return None
    known = ("grid", "sampler", "space", "trials")
    if not isinstance(value, dict) or not value.keys() & {"grid", "space"}:
        raise UserError(
            f"{where}: tuning is {shorten(value)}; it must have a grid, such as {{grid: {{lr: "
            "[0.001, 0.003]}}, or a space and a number of trials"
        )
    for key in value:
        if key not in known:
            raise UserError(f"{where}: tuning.{key} is no key: {suggest_or_list(key, known)}")
    if "grid" in value:
        others = [key for key in value if key != "grid"]
        if others:
            raise UserError(f"{where}: tuning.{others[0]} cannot go with tuning.grid")
        grid = read_grid(value["grid"], path, "tuning.grid")
        size = 1
        for values in grid.values():
            size *= len(values)
        return TuningPlan("grid", dict(grid), size)
    trials = read_count(value.get("trials", 0), "tuning.trials", where, least=1)
    space = flatten_settings(value["space"], path, "tuning.space")
    return TuningPlan(str(value.get("sampler", "tpe")), space, trials)


def refuse_doubles(variants: Sequence[Variant], where: str) -> None:
    """Refuses two rows of one name.

    Raises:
        UserError: There are two.
    """
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise UserError(
            f"{where}: two rows are named '{find_double(names)}': rename the variant, or leave the "
            "baseline out (baselines: [...])"
        )


def find_double(values: Sequence[Any]) -> Any:
    """Returns the first value that is there twice."""
    return next(value for number, value in enumerate(values) if value in values[:number])
