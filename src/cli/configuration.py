"""All settings of a command: the base, the files over it, and the flags over those."""

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.strategies import Strategy

from src.cli.classes import choices, find_ours, names_of
from src.cli.defaults import state_settings
from src.cli.flags import Flag, Flags, put, read_value, refuse_words
from src.cli.hints import Hints, hints_at, members, settings_of
from src.cli.init_from import InitFrom
from src.cli.layers import ConfigError, list_keys, merge, read, write_out
from src.cli.settings import list_settings
from src.cli.short_names import write_paths
from src.cli.texts import settle
from src.data import MultiTaskDataModule
from src.models import MultiTaskModel
from src.models.transfer.finetune import Finetune
from src.monitoring import Budget, Watch

# of a config file, each a mapping
SECTIONS = ("data", "model", "trainer", "watch", "budget", "finetune", "init_from")
TYPES: dict[str, Hints] = {  # of the topmost keys
    "data": (MultiTaskDataModule,),
    "model": (MultiTaskModel,),
    "trainer": (L.Trainer,),
    "watch": (Watch,),
    "budget": (Budget,),
    "finetune": (Finetune,),
    "init_from": (InitFrom,),
    "seed_everything": (int,),
    **dict.fromkeys(("name", "logs", "run", "resume", "checkpoint", "out", "split"), (str,)),
}


@dataclass
class Configuration:
    """All settings of a command, merged.

    Attributes:
        tree: The settings; classes go by their paths where those are known.
        origins: The file that a key came from, "" for a flag, by the key as a person types it.
        stated: The keys that the base states.
        own: The flags that the command alone knows.
        notes: What a person should know of names that stand for several classes.
    """

    tree: dict[str, Any]
    origins: dict[str, str] = field(default_factory=dict)
    stated: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()
    notes: set[str] = field(default_factory=set)

    @property
    def json(self) -> str:
        """The settings as JSON, a form of YAML in which all text is quoted."""
        return json.dumps(self.tree, default=str, ensure_ascii=False)


def merge_all(pairs: Flags, base: dict[str, Any], own: Sequence[Flag] = ()) -> Configuration:
    """Merges the base, the files that flags name, and the other flags.

    Args:
        pairs: The flags.
        base: The layer under all others.
        own: The flags that the command alone knows.

    Raises:
        ConfigError: A file cannot be read, or a flag cannot be meant as it stands.
    """
    result = Configuration(base, stated=frozenset(list_keys(base)))
    result.own = frozenset(flag.name for flag in own)
    of_own = {flag.name: members(flag.type) for flag in own}
    flags: Flags = []
    for key, value in pairs:
        if key == "config":
            refuse_words(value, (str,))
        names_a_file = key in SECTIONS and str(value).endswith((".yaml", ".yml"))
        if not names_a_file and key != "config":
            flags.append((key, value))
            continue
        if value is None:
            raise ConfigError("--config needs a file")
        content = {key: read(Path(value))} if names_a_file else read(Path(value))
        layer = write_sections(write_out(content, value))
        check_sections(layer, value)
        result.origins |= dict.fromkeys(list_keys(layer), value)
        result.tree = merge(result.tree, layer)

    # a class is chosen before its settings are given, whatever the order on the command line
    for key, value in sorted(flags, key=lambda pair: pair[0].count(".")):
        check_flag(key, value)
        hints = hints_at(key.removesuffix("+"), TYPES, result.tree)
        known = hints or of_own.get(key, ())
        refuse_words(value, known)
        content = write_sections({key: read_value(key, value, hints)})[key]
        result.tree = put(result.tree, key.split("."), content, known)
        result.origins[key] = ""

    # classes first: their signatures say what is text
    tree = {}
    for section, content in result.tree.items():
        hints = TYPES.get(section, ())
        tree[section] = settle(write_paths(content, hints, result.notes), hints)
    tree["model"] = state_settings(tree["model"], list_settings(MultiTaskModel), set())
    tree["trainer"] = write_strategy(tree["trainer"])
    adapters = (tree.get("finetune") or {}).get("lora")
    if adapters is not None and not isinstance(adapters, dict):
        raise ConfigError(
            f"finetune.lora is '{adapters}'; it takes settings, such as {{rank: 8}}, or null"
        )
    result.tree = tree
    return result


def check_flag(key: str, value: str | None) -> None:
    """Refuses flags that the parser could not explain.

    Raises:
        ConfigError: It is one of these.
    """
    if key in SECTIONS and key != "data" and find_first_setting(key) is None:
        hint = f"; did you mean --model.encoder {value}?" if key == "model" else ""
        raise ConfigError(f"--{key} {value or ''} names no .yaml file{hint}")
    if key == "trainer.strategy" and value is None:
        raise ConfigError(f"--strategy needs a name: {', '.join(choices('strategy'))} or auto")
    if key.startswith("data.tasks.") and value is None:
        raise ConfigError(f"--{key} needs a value")


def write_sections(layer: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings in which text in the place of a section is the section's first setting."""
    result = dict(layer)
    for section, content in layer.items():
        first = find_first_setting(section)
        if first is not None and (content is None or isinstance(content, str)):
            result[section] = {first: content}
    return result


def find_first_setting(section: str) -> str | None:
    """Returns the setting that text in the place of a section stands for.

    It is the first one of the section's class, where that is text; None where it is not, or where
    the section is none.
    """
    hints = TYPES.get(section, ()) if section in SECTIONS else ()
    for kind in hints:
        if isinstance(kind, type) and is_dataclass(kind):
            name = fields(kind)[0].name
            return name if str in settings_of(kind)[name] else None
    return None


def check_sections(layer: dict[str, Any], path: str) -> None:
    """Refuses a file whose sections are no mappings of keys to values.

    Raises:
        ConfigError: One of them is none.
    """
    for section in SECTIONS:
        content = layer.get(section, {})
        if not isinstance(content, dict) and not (section == "data" and isinstance(content, str)):
            raise ConfigError(
                f"config {path}: {section} is '{content}', where a mapping of keys to values is "
                "expected"
            )


def write_strategy(trainer: dict[str, Any]) -> dict[str, Any]:
    """Returns the Trainer's settings with the strategy in the form that the parser takes.

    Raises:
        ConfigError: There are settings of a strategy, but none is chosen.
    """
    strategy = trainer.get("strategy")
    if isinstance(strategy, str) and "." in strategy:
        return trainer | {"strategy": {"class_path": strategy}}
    if not isinstance(strategy, dict):
        return trainer
    path = strategy.get("class_path", "auto")
    if set(strategy) == {"class_path"} and "." not in path:
        return trainer | {"strategy": path}  # auto, or Lightning's own, over a file's class
    if path == "auto":
        setting = next(iter(strategy.get("init_args", strategy)))
        kinds = [k for k in find_ours(Strategy) if setting in inspect.signature(k).parameters]
        names = [names_of(kind)[0] for kind in kinds]
        hint = "is a setting of no strategy"
        if names:
            hint = f"is a setting of {', '.join(names)}: add --strategy {names[0]}"
        raise ConfigError(f"strategy.{setting} {hint}")
    return trainer
