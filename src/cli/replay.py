"""Puts the data of an earlier run beside those of a new one, so that old tasks stay."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.cli.configuration import TYPES
from src.cli.short_names import write_paths
from src.cli.texts import settle
from src.cli.trust import Trust
from src.errors import UserError
from src.run import Run

OLD = "old"
NEW = "new"
# settings that hold for all sources, and are stated once
TOGETHER = ("eval_batch_size", "num_workers")


def place_replay(tree: dict[str, Any]) -> None:
    """Puts the data of the run that init_from names beside the new ones, where it says so.

    Args:
        tree: The settings of a new run, which are changed.

    Raises:
        UserError: The source is no run folder, whose data nobody knows, or see ``add_old_data``.
    """
    section = tree.get("init_from") or {}
    share = section.get("replay")
    source = section.get("source")
    if share is None or not isinstance(source, str):
        return
    if not isinstance(share, int | float) or isinstance(share, bool):
        raise UserError(f"init_from.replay is '{share}'; it must be a number from 0 to below 1")
    if not Path(source).is_dir():
        raise UserError(
            f"init_from.replay reads the data of the source: {source} is no run folder, name one"
        )
    run = Run.open(source)
    settings = run.read_config()
    # it names classes, which are about to be built
    Trust(run.path).check(settings)
    data = tree["data"]
    choice = {"class_path": data} if isinstance(data, str) else data
    # the run's settings are text yet
    hints = TYPES["data"]
    old = settle(write_paths(settings["data"], hints, set()), hints)
    tree["data"] = add_old_data(choice, old, float(share))


def add_old_data(data: Mapping[str, Any], old: Mapping[str, Any], share: float) -> dict[str, Any]:
    """Returns the settings of Sources that serve old rows in a share of the steps.

    Args:
        data: The choice of the new data: class_path and init_args.
        old: The choice of the data of the earlier run, which may be Sources itself.
        share: The share of the steps that have old rows; 0 only validates and tests on them.

    Raises:
        UserError: The share is not from 0 to below 1, or the new data are Sources.
    """
    if not 0 <= share < 1:
        raise UserError(f"init_from.replay is {share}; a share of the steps is from 0 to below 1")
    if is_sources(data):
        raise UserError(
            "init_from.replay puts the source's data beside the new ones, which are Sources "
            "already: add the old data to data.sources, and state data.shares"
        )
    new_settings = dict(data.get("init_args") or {})
    together = {key: new_settings.pop(key) for key in TOGETHER if key in new_settings}

    earlier: dict[str, Any] = {OLD: old}
    if is_sources(old):
        earlier = dict((old.get("init_args") or {}).get("sources") or {})
    sources = {}
    for name, choice in earlier.items():
        settings = dict(choice.get("init_args") or {})
        for key in (*TOGETHER, "seed", "schema_path"):
            settings.pop(key, None)
        # a step has as many rows, wherever they are from
        if "batch_size" in new_settings:
            settings["batch_size"] = new_settings["batch_size"]
        sources[name] = {"class_path": choice["class_path"], "init_args": settings}

    name = find_free_name(NEW, sources)
    for key in ("seed", "schema_path"):
        new_settings.pop(key, None)
    sources[name] = {"class_path": data["class_path"], "init_args": new_settings}
    settings = {"sources": sources, "sampler": "shares", "shares": {name: 1 - share}, **together}
    return {"class_path": "src.data.sources.Sources", "init_args": settings}


def is_sources(data: Mapping[str, Any]) -> bool:
    """Returns whether a choice of data is Sources."""
    return str(data["class_path"]).rpartition(".")[2] == "Sources"


def find_free_name(name: str, taken: Mapping[str, Any]) -> str:
    """Returns the name, with a number behind it if it is taken."""
    if name not in taken:
        return name
    number = 2
    while f"{name}{number}" in taken:
        number += 1
    return f"{name}{number}"
