"""The command line of a sweep, and the space that it names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from src.analysis.optuna_tuner import check_sampler
from src.analysis.settings import SECTIONS, shorten
from src.analysis.space import Space, read_space
from src.cli.aliases import ALIASES
from src.cli.flags import Flag, Flags, spell_flag
from src.cli.layers import ConfigError
from src.cli.places import PLACES, read_number
from src.errors import UserError
from src.files.yaml12 import load, read_as_written

ROOT = "logs/studies"
OWN = (
    Flag("sweep", str, None, "The space: a file, or '{lr: {low: 0.0001, high: 0.01, log: true}}'."),
    Flag("trials", int, 20, "Settings to try [20]; more of them in a second call go on."),
    Flag("sampler", str, "tpe", "Who proposes settings: tpe, random or qmc [tpe]."),
    Flag("objectives", list[str], None, "Tasks, in place of val/score: '[income, hours]'."),
    Flag("prune_after", int, 5, "Validations until the median can end a trial [5]; null: never."),
    *PLACES,
)
# keys that would keep a trial from being one
OF_ONE_CALL = ("resume", "no_test", "plan", "trust", "trainer.fast_dev_run", "reference")
NOT_TUNED = {
    **dict.fromkeys(OF_ONE_CALL, "it belongs to one call of train"),
    "name": "it changes no result",
    "logs": "it changes no result",
    "config": "name the keys of the file instead",
    "seed_everything": "the best seed of a few is luck, and no setting",
}


@dataclass(frozen=True)
class Call:
    """A command line of sweep.

    Attributes:
        words: What all trials share.
        space: The space.
        root: The folder of all sweeps and studies.
        name: The name of the sweep's folder; None where nobody has named it.
        trials: Settings to try.
        sampler: Who proposes them.
        objectives: Tasks whose scores are searched for; empty for val/score.
        prune_after: Validations until a trial can be stopped early; None stops none.
        parallel: Trials side by side.
        executor: Where trials run: local, slurm or ray.
        cluster: Settings of a cluster, as YAML.
    """

    words: list[str]
    space: Space
    root: Path
    name: str | None
    trials: int
    sampler: str
    objectives: list[str]
    prune_after: int | None
    parallel: int
    executor: str
    cluster: str | None


def read_call(pairs: Flags) -> Call:
    """Reads the command line; all flags but the command's own are of each trial.

    Raises:
        UserError: The space is missing or wrong, or a flag has a value that it cannot have.
    """
    own = {flag.name for flag in OWN} | {"logs", "name"}
    given = {key: value for key, value in pairs if key in own}
    words = []
    for key, value in pairs:
        if key in OF_ONE_CALL:
            raise ConfigError(f"--{key} cannot go with a sweep: it belongs to one call of train")
        if key not in own:
            words += spell_flag(key, value)
    for key, value in given.items():
        if value is None:
            raise ConfigError(f"--{key} needs a value")

    sampler = given.get("sampler") or "tpe"
    check_sampler(sampler)
    objectives = read_objectives(given.get("objectives"))
    prune_after = None
    if given.get("prune_after", "5") not in ("null", "~"):
        prune_after = read_number(given, "prune_after", 5)
    if len(objectives) > 1:
        if prune_after is not None and "prune_after" in given:
            raise ConfigError(
                "--prune_after cannot go with several --objectives: Optuna stops trials early by "
                "one score alone"
            )
        prune_after = None
    return Call(
        words=words,
        space=read_file(given.get("sweep")),
        root=Path(given.get("logs") or ROOT),
        name=given.get("name"),
        trials=read_number(given, "trials", 20),
        sampler=sampler,
        objectives=objectives,
        prune_after=prune_after,
        parallel=read_number(given, "parallel", 1),
        executor=given.get("executor") or "local",
        cluster=given.get("cluster"),
    )


def read_objectives(text: str | None) -> list[str]:
    """Returns the tasks whose scores are searched for; none for the score of all.

    Raises:
        ConfigError: It is no list of names, or has one twice.
    """
    if text is None:
        return []
    try:
        content = load(text)
    except yaml.YAMLError:
        content = None
    names = [content] if isinstance(content, str) else content
    if not isinstance(names, list) or not names or not all(isinstance(one, str) for one in names):
        raise ConfigError(
            f"--objectives is '{text}'; it must name tasks, such as '[income, hours]'"
        )
    for number, one in enumerate(names):
        if one in names[:number]:
            raise ConfigError(f"--objectives names '{one}' twice")
    return [] if names == ["val/score"] else names


# -- the space -------------------------------------------------------------------------------------
def read_file(text: str | None) -> Space:
    """Reads the space of --sweep: a file, or the space itself.

    Raises:
        UserError: It cannot be read, or names a key that cannot be tuned.
    """
    if text is None:
        raise ConfigError(
            "--sweep is missing: a file of settings and their values, or the settings themselves, "
            "such as '{lr: {low: 0.0001, high: 0.01, log: true}}'"
        )
    is_space = text.lstrip().startswith("{")
    where = "--sweep" if is_space else f"--sweep {text}"
    content = read_as_written(text if is_space else Path(text), where)
    if not isinstance(content, dict):
        raise ConfigError(
            f"{where} is {shorten(content)}, where settings with their values belong, such as "
            "{lr: {low: 0.0001, high: 0.01, log: true}}"
        )
    return read_space(flatten(content, where), where)


def flatten(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns {flag: values}; sections may stand as mappings of their keys.

    Raises:
        UserError: A key cannot be tuned, or two keys are the same setting.
    """
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if key in SECTIONS and isinstance(value, dict):
            flat |= {f"{key}.{inner}": item for inner, item in value.items()}
        else:
            flat[key] = value
    written: dict[str, str] = {}
    for key in flat:
        first, dot, rest = key.partition(".")
        whole = ALIASES.get(first, first) + dot + rest
        if whole in NOT_TUNED:
            raise UserError(f"{where}: {key} cannot be tuned: {NOT_TUNED[whole]}")
        if whole in written:
            raise UserError(f"{where}: {written[whole]} and {key} are the same setting")
        written[whole] = key
    return flat
