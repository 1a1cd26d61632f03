"""The command line of ``python -m src.affinity``: its own flags, and those of the training."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import get_args

from src.cli.flags import Flag, Flags
from src.cli.layers import ConfigError
from src.cli.network_costs import Unit
from src.errors import UserError

OWN = (
    Flag("run", str, None, "Run folder: train with its configuration; without, as train would."),
    Flag("every", int, 10, "Optimizer steps from one measurement to the next."),
    Flag("seeds", int, None, "Train with seeds 0 to N - 1, and take intervals over them."),
    Flag("networks", int, None, "Most networks of the partition; without, any number."),
    Flag("budget", float, None, "In place of --networks: 2.5 times what one network takes."),
    Flag("budget_unit", str, "parameters", "What --budget counts: parameters, or time of a batch."),
    Flag("out", str, None, "A .json file in place of affinity.json in the new run's folder."),
    Flag("overwrite", bool, False, "Replace the file that --out names."),
)


@dataclass(frozen=True)
class Call:
    """A command line of affinity.

    Attributes:
        words: The flags of the training.
        run: The run folder whose configuration is under them; None for the defaults.
        every: Steps from one measurement to the next; None where nobody has stated it.
        seeds: The number of seeds; None for one training.
        networks: The largest number of networks; None for any.
        budget: What all networks may take, where one takes 1; None where it is not limited.
        unit: What the budget counts.
        out: Where results go; None for the folder of the run.
    """

    words: list[str]
    run: str | None
    every: int | None
    seeds: int | None
    networks: int | None
    budget: float | None
    unit: Unit
    out: Path | None


def read_call(pairs: Flags) -> Call:
    """Reads the command line; all flags but the command's own are of the training.

    Raises:
        UserError: A flag has a value that it cannot have, or two do not go together.
    """
    own = {flag.name for flag in OWN}
    given: dict[str, str | None] = {}
    words: list[str] = []
    for key, value in pairs:
        # --budget with a file or settings is that of the steps of a training
        if key in own and not (key == "budget" and not is_number(value)):
            given[key] = value
        else:
            words += [f"--{key}"] if value is None else [f"--{key}", value]
    for key, value in given.items():
        if value is None and key != "overwrite":
            raise ConfigError(f"--{key} needs a value")
    for key, value in pairs:
        if key == "reference" or (key == "no_test" and value not in (None, "true")):
            raise ConfigError(
                f"--{key} cannot go with affinity, which has no test: python -m src.train tests"
            )
    check_combination(given, {key for key, _ in pairs})

    unit = given.get("budget_unit") or "parameters"
    if unit not in get_args(Unit):
        raise ConfigError(f"--budget_unit is '{unit}'; it must be parameters or time")
    budget = given.get("budget")
    return Call(
        words=words,
        run=given.get("run"),
        every=read_number(given, "every", 1),
        seeds=read_number(given, "seeds", 2),
        networks=read_number(given, "networks", 1),
        budget=None if budget is None else float(budget),
        unit="time" if unit == "time" else "parameters",
        out=read_out(given),
    )


def check_combination(given: Mapping[str, str | None], keys: set[str]) -> None:
    """Looks for flags that do not go together.

    Raises:
        ConfigError: There are some.
    """
    if "networks" in given and "budget" in given:
        raise ConfigError("--networks and --budget both limit the partition: name one of them")
    if "budget_unit" in given and "budget" not in given:
        raise ConfigError("--budget_unit says what --budget counts, and there is no --budget")
    if "resume" in keys:
        for key in ("run", "every", "seeds"):
            if key in given:
                raise ConfigError(
                    f"--{key} cannot go with --resume: the training goes on as it began"
                )
    if "seeds" in given:
        for key in ("seed_everything", "trainer.fast_dev_run", "plan"):
            if key in keys:
                raise ConfigError(f"--{key} cannot go with --seeds, which trains several times")


def is_number(text: str | None) -> bool:
    """Returns whether a text is a finite number."""
    try:
        return text is not None and isfinite(float(text))
    except ValueError:
        return False


def read_number(given: Mapping[str, str | None], key: str, least: int) -> int | None:
    """Returns the value of a flag that is a whole number; None where it is not given.

    Raises:
        ConfigError: It is none, or too small.
    """
    text = given.get(key)
    if text is None:
        return None
    if not text.isdigit() or int(text) < least:
        why = "; an interval takes two" if key == "seeds" else ""
        raise ConfigError(f"--{key} is '{text}'; it must be a whole number from {least}{why}")
    return int(text)


def read_out(given: Mapping[str, str | None]) -> Path | None:
    """Returns where results go, looked at before any work is done.

    Raises:
        UserError: There is no such folder, or something is there already.
    """
    text = given.get("out")
    if text is None:
        return None
    out = Path(text)
    if out.suffix != ".json":
        raise UserError(f"--out {text}: unknown kind of file; the name must end in .json")
    if not out.parent.is_dir():
        raise UserError(f"--out {text}: there is no folder {out.parent}")
    if out.is_dir():
        raise UserError(f"--out {text}: this is a folder; name a file")
    may_replace = "overwrite" in given and given["overwrite"] in (None, "true")
    for path in (out, out.with_suffix(".png")):
        if path.exists() and not may_replace:
            raise UserError(
                f"--out {text}: {path} is there; choose another name, or add --overwrite"
            )
    return out
