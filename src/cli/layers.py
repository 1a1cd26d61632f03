"""The command line as the parser gets it: the base and all files merged into one, then the flags."""

import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.strategies import Strategy

from src.cli.config import (
    ConfigError,
    classes,
    flags,
    keys,
    merge,
    parents_first,
    read,
    task_settings,
    written_out,
)
from src.cli.entrypoint import remark
from src.cli.help import Help
from src.cli.messages import CHOICES, Parser, called, choices, ours, path_of
from src.cli.texts import Hints, at, settled
from src.data import MultiTaskDataModule
from src.files.yaml12 import load_as_written
from src.models import MultiTaskModel
from src.monitoring import Budget, Watch

SECTIONS = ("data", "model", "trainer", "watch", "budget")  # of a config file, each a mapping
TYPES: dict[str, Hints] = {  # of the topmost keys
    "data": (MultiTaskDataModule,),
    "model": (MultiTaskModel,),
    "trainer": (L.Trainer,),
    "watch": (Watch,),
    "budget": (Budget,),
    "seed_everything": (int,),
    **dict.fromkeys(("name", "logs", "run", "resume", "checkpoint", "out", "split"), (str,)),
}
ENTRIES = {"sources": "data", "tasks": "task"}  # mappings whose entries are choices of a class
KINDS = CHOICES | {"task": CHOICES["tasks"]}
Flags = list[tuple[str, str | None]]


def layered(args: list[str], base: dict[str, Any]) -> list[str]:
    """Merges the base and all --config files into one, and puts the flags behind it.

    Parents come before their settings, and what is text to a setting is text as it was written.
    """
    merged, rest = gathered(flags(args), base)
    words = [
        f"--{key}" if value is None else f"--{key}={value}" for key, value in typed(rest, merged)
    ]
    merged = {key: settled(value, TYPES.get(key, ())) for key, value in merged.items()}
    return ["--config", as_json(merged), *words]


def help_asked(
    args: list[str], base: dict[str, Any], extra: Callable[[Any], None] | None, trains: bool
) -> str | None:
    """Returns the help that a command line asks for, if it does; what else stands there says of which classes.

    Args:
        args: The command line after the verb.
        base: The layer under all others.
        extra: Adds the verb's own flags to a parser.
        trains: Whether the verb trains.
    """
    pairs = flags(args)
    asked = [(key, value) for key, value in pairs if key == "help" or key.endswith(".help")]
    if not asked:
        return None
    merged, rest = gathered([pair for pair in pairs if pair not in asked], base)
    helper = Help(TYPES, with_flags(merged, rest), extra, trains)
    return "\n\n".join(helper.answer(key, value) for key, value in asked)


def gathered(pairs: Flags, base: dict[str, Any]) -> tuple[dict[str, Any], Flags]:
    """Returns the base with all --config files merged into it, and the other flags."""
    merged: Any = base
    rest: Flags = []
    notes: set[str] = set()
    Parser.origins = {}
    for key, value in pairs:
        names_a_file = key in SECTIONS and str(value).endswith((".yaml", ".yml"))
        if not names_a_file and key != "config":
            rest.append(checked_flag(key, value, notes))
            continue
        if value is None:
            raise ConfigError("--config needs a file")
        content = {key: read(Path(value))} if names_a_file else read(Path(value))
        layer = checked_layer(written_out(content, value), value)
        Parser.origins |= dict.fromkeys(keys(layer), value)
        merged = merge(merged, layer)
    rest = parents_first(rest)
    for key, value in [pair for pair in rest if f"{pair[0]}.".startswith("trainer.strategy.")]:
        rest.remove((key, value))
        # into the files' layer: the parser would take a word for the class, and drop its settings
        setting = load_as_written(value) if value is not None else None
        merged = merge(merged, written_out({key: setting}, "of flags"))
    merged = by_path(merged, notes=notes)
    for note in sorted(notes):
        remark(note)
    name_strategy(merged["trainer"])
    Parser.origins |= dict.fromkeys((key for key, _ in rest), "")
    Parser.stated = frozenset(keys(base))
    chosen = {str(value).rpartition(".")[2]: key for key, value in rest}
    Parser.chosen = dict(classes(merged)) | chosen
    return merged, rest


def with_flags(merged: Any, rest: Flags) -> Any:
    """Returns all settings with those of flags among them, for a look at what was chosen."""
    for key, value in rest:
        if value is not None:
            merged = merge(merged, written_out({key: value}, "of flags"))
    return merged


def checked_flag(key: str, value: str | None, notes: set[str]) -> tuple[str, str | None]:
    """Returns a flag with classes by their path, and refuses what no parser could explain."""
    if key in SECTIONS and key != "data":
        hint = f"; did you mean --model.encoder {value}?" if key == "model" else ""
        raise ConfigError(f"--{key} {value or ''} names no .yaml file{hint}")
    if key == "trainer.strategy" and value is None:
        raise ConfigError(f"--strategy needs a name: {', '.join(choices('strategy'))} or auto")
    about_a_task = key.startswith("data.tasks.") and key.count(".") == 2
    value = by_path(value, "task" if about_a_task else key.rpartition(".")[2], notes)
    return key, value


def checked_layer(layer: dict[str, Any], path: str) -> dict[str, Any]:
    """Refuses a file whose sections are no mappings of keys to values."""
    for section in SECTIONS:
        kinds: Any = (dict, str) if section == "data" else dict
        if not isinstance(layer.get(section, {}), kinds):
            raise ConfigError(
                f"config {path}: {section} is '{layer[section]}', where a mapping of keys to values is expected"
            )
    return layer


def name_strategy(trainer: dict[str, Any]) -> None:
    """Brings the choice of a strategy into the form that the parser takes."""
    strategy = trainer.get("strategy")
    if isinstance(strategy, str) and "." in strategy:
        trainer["strategy"] = {"class_path": strategy}
        return
    if not isinstance(strategy, dict):
        return
    if set(strategy) == {"class_path"} and "." not in strategy["class_path"]:
        trainer["strategy"] = strategy[
            "class_path"
        ]  # auto, or Lightning's own, over a file's class
    elif strategy.get("class_path", "auto") == "auto":
        setting = next(iter(strategy.get("init_args", strategy)))
        kinds = [k for k in ours(Strategy) if setting in inspect.signature(k).parameters]
        names = [called(kind)[0] for kind in kinds]
        hint = f"is a setting of {', '.join(names)}: add --strategy {names[0]}" if names else ""
        raise ConfigError(f"strategy.{setting} {hint or 'is a setting of no strategy'}")


def typed(rest: Flags, merged: Any) -> Flags:
    """Returns the flags with their values as JSON where YAML would read them otherwise than meant."""
    about_tasks = [pair for pair in rest if pair[0].startswith("data.tasks.")]
    others = [pair for pair in rest if pair not in about_tasks]
    tree = with_flags(merged, others)
    result = [(key, flag_value(value, at(key.rstrip("+"), TYPES, tree))) for key, value in others]
    if about_tasks:
        tasks = settled(task_settings(about_tasks, merged), at("data.tasks", TYPES, tree))
        result.append(("data.tasks", as_json(tasks)))
    return result


def flag_value(value: str | None, hints: Hints) -> str | None:
    """Returns a flag's value as the parser will read it as it is meant."""
    if value is None:
        return "true" if bool in hints and set(hints) <= {bool, int, NoneType} else None
    if value[:1] not in ("[", "{") or (set(hints) <= {str, NoneType} and hints):
        return value
    try:
        return as_json(settled(load_as_written(value), hints))
    except yaml.YAMLError:  # the parser says where
        return value


def as_json(content: Any) -> str:
    """Returns content as JSON, a form of YAML in which all text is quoted."""
    return json.dumps(content, default=str, ensure_ascii=False)


def by_path(tree: Any, key: str = "", notes: set[str] | None = None) -> Any:
    """Returns nested settings in which our classes go by their path.

    So a class of the same name elsewhere makes none ambiguous.

    Args:
        tree: The settings, or the name of a class.
        key: What it is the value of.
        notes: Is told where several of our classes have one name.
    """
    if isinstance(tree, dict):
        below = {"class_path": key}
        if key in ENTRIES:
            below = dict.fromkeys(tree, ENTRIES[key])
        return {
            name: by_path(value, below.get(str(name), str(name)), notes)
            for name, value in tree.items()
        }
    if key not in KINDS or not isinstance(tree, str) or "." in tree:
        return tree
    found = list(dict.fromkeys(kind for kind in ours(KINDS[key]) if tree in called(kind)))
    found.sort(key=lambda kind: (not is_exported(kind), path_of(kind)))
    if len(found) > 1 and notes is not None:
        first, *others = map(path_of, found)
        notes.add(f"{tree} is {first}; for the other of this name write {' or '.join(others)}")
    if key == "task" and len(found) < 2:  # which kinds there are, the data knows
        return tree
    return path_of(found[0]) if found else tree


def is_exported(kind: type) -> bool:
    """Returns whether a class's package offers it by its name, as it does the classes that came with it."""
    package = sys.modules.get(kind.__module__.rpartition(".")[0])
    return getattr(package, kind.__name__, None) is kind
