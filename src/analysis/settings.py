"""Settings of a study's rows: flags of ``src.train`` by their keys, as a YAML file writes them."""

import json
from pathlib import Path
from typing import Any, cast

from src.errors import UserError

SECTIONS = ("data", "model", "trainer", "watch", "budget", "finetune", "init_from")
# keys of a run that the study sets itself, and the key of the study that says them
OF_THE_STUDY = {
    "seed_everything": "seeds",
    "seed": "seeds",
    "data.fold": "folds",
    "data.folds": "folds",
    "name": "name",
    "logs": "--logs",
}
# keys that would keep a trial from being one
OF_ONE_CALL = (
    *("resume", "no_test", "plan", "trust", "config", "print_config", "reference"),
    *("trainer.fast_dev_run", "fast_dev_run"),
)

Settings = dict[str, Any]  # {dotted flag: value}


def flatten_settings(tree: object, path: Path, place: str) -> Settings:
    """Returns settings as {flag: value}; sections may stand as mappings of their keys.

    Args:
        tree: The settings.
        path: The file of the study; files that settings name are relative to it.
        place: The key of the settings in it.

    Raises:
        UserError: They are no mapping, or hold what the study itself decides.
    """
    where = f"study {path}: {place}"
    if not isinstance(tree, dict):
        raise UserError(f"{where} is {shorten(tree)}, where a mapping of keys to values belongs")
    flat: Settings = {}
    for key, value in tree.items():
        if key in SECTIONS and isinstance(value, dict) and "class_path" not in value:
            flat |= {f"{key}.{name}": item for name, item in value.items()}
        else:
            flat[key] = value
    refuse_own_keys(flat, f"{where}: ")
    return {key: resolve_paths(value, path.parent) for key, value in flat.items()}


def refuse_own_keys(settings: Settings, where: str) -> None:
    """Refuses settings that a study itself decides, and ones that would keep a trial from running.

    Args:
        settings: Flags of train.
        where: Words that come before the key in a message.

    Raises:
        UserError: There is one.
    """
    for key in settings:
        if key in OF_THE_STUDY:
            raise UserError(f"{where}{key} is the study's own: see {OF_THE_STUDY[key]}")
        if key in OF_ONE_CALL:
            raise UserError(f"{where}{key} belongs to one call of train, not to a study")


def resolve_paths(value: Any, folder: Path) -> Any:
    """Returns a value in which files are named as seen from here, not from the study's file."""
    if isinstance(value, str) and value.startswith(("./", "../")):
        return shorten_path(folder / value)
    if isinstance(value, str) and value.endswith((".yaml", ".yml")):
        return shorten_path(folder / value)
    return value


def shorten_path(path: Path) -> str:
    """Returns a path as seen from the working directory, where it lies below it."""
    whole = path.resolve()
    here = Path.cwd()
    return str(whole.relative_to(here) if whole.is_relative_to(here) else whole)


def to_flags(settings: Settings) -> list[str]:
    """Returns settings as words of a command line."""
    words = []
    for key, value in settings.items():
        words += [f"--{key}", spell(value)]
    return words


def spell(value: object) -> str:
    """Returns a value as one would type it behind a flag."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    text = getattr(value, "text", None)  # a number as it was written
    if text is not None:
        return cast(str, text)
    return json.dumps(value)


def read_count(value: object, key: str, where: str, least: int) -> int:
    """Returns a whole number.

    Raises:
        UserError: It is none, or too small.
    """
    # true and false are written numbers, too
    if not isinstance(value, int) or not str(getattr(value, "text", value)).isdigit():
        raise UserError(f"{where}: {key} is {shorten(value)}; it must be a whole number")
    if value < least:
        raise UserError(f"{where}: {key} is {value}; it must be at least {least}")
    return int(value)


def read_grid(grid: object, path: Path, place: str) -> dict[str, list[Any]]:
    """Returns {flag: values}.

    Raises:
        UserError: It is no mapping of keys to lists that hold something.
    """
    if not isinstance(grid, dict) or not grid:
        raise UserError(
            f"study {path}: {place} is {shorten(grid)}, where keys with lists belong, such as "
            "{lr: [0.001, 0.003]}"
        )
    flat = flatten_settings(grid, path, place)
    for key, values in flat.items():
        if not isinstance(values, list) or not values:
            raise UserError(
                f"study {path}: {place}.{key} is {shorten(values)}, where a list of values belongs"
            )
    return flat


def shorten(value: object) -> str:
    """Returns a value for a message."""
    text = spell(value) if value is not None else "null"
    text = text if len(text) <= 40 else f"{text[:40]}..."
    return f"'{text}'" if isinstance(value, str) else text
