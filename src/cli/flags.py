"""Flags: a command line as pairs of keys and values, and each pair put into the settings."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any

import yaml

from src.cli.aliases import ALIASES
from src.cli.hints import Hints, elements, is_choice
from src.cli.layers import OF_A_CLASS, ConfigError, merge, write_out_classes
from src.files.yaml12 import load_as_written
from src.tasks import Task

Flags = list[tuple[str, str | None]]
# flags that may stand alone, besides those whose type is seen to be true or false
WITHOUT_VALUE = dict.fromkeys(
    ("trainer.fast_dev_run", "plan", "no_test", "overwrite", "allow_missing", "raw"), "true"
)


@dataclass(frozen=True)
class Flag:
    """A flag that one command alone knows.

    Attributes:
        name: Its name, without the dashes.
        type: What its value is, for the parser.
        default: Its value where nobody states one.
        help: What it is for.
        required: Whether it must be stated.
    """

    name: str
    type: object
    default: object
    help: str
    required: bool = False


class Words(str):
    """Several words behind one flag, as in ``--key a b``: the text of a list of them.

    Attributes:
        words: The words.
    """

    words: tuple[str, ...]

    def __new__(cls, words: Sequence[str]) -> "Words":
        """Writes the words as a list in YAML."""
        # numbers and plain words stay as they are, anything else is quoted
        quoted = [w if re.fullmatch(r"[\w./+-]+", w) else json.dumps(w) for w in words]
        text = super().__new__(cls, f"[{', '.join(quoted)}]")
        text.words = tuple(words)
        return text


def split_flags(args: Sequence[str], several: bool = True) -> Flags:
    """Splits a command line into (key, value) pairs, aliases written out.

    A flag that stands alone has the value None, and one with several words has :class:`Words`.

    Args:
        args: The words of the command line.
        several: Whether several words may stand behind a flag; the caller then refuses them where
            the flag is no list, see :func:`refuse_words`.

    Raises:
        ConfigError: A word belongs to no flag.
    """
    pairs: Flags = []
    # torchrun takes --run and --logs for its own flags unless -- stands before them
    rest = list(args[1:] if args[:1] == ["--"] else args)
    while rest:
        word = rest.pop(0)
        if word in ("-h", "-c"):
            word = {"-h": "--help", "-c": "--config"}[word]
        if word.startswith("-c="):
            word = word.replace("-c=", "--config=", 1)
        if not word.startswith("--"):
            raise ConfigError(say_stray(word))

        key, equals, value = word[2:].partition("=")
        first, dot, inner = key.partition(".")
        key = ALIASES.get(first, first) + dot + inner
        if equals and not value:
            raise ConfigError(f"--{key} needs a value")
        if equals:
            pairs.append((key, value))
        else:
            values: list[str] = []
            while rest and not is_flag(rest[0]) and (several or not values):
                values.append(rest.pop(0))
            if len(values) > 1:
                pairs.append((key, Words(values)))
            else:
                pairs.append((key, values[0] if values else WITHOUT_VALUE.get(key)))
    return pairs


def spell_flag(key: str, value: str | None) -> list[str]:
    """Returns the words of a command line that say what :func:`split_flags` has read from it."""
    if value is None:
        return [f"--{key}"]
    if isinstance(value, Words):
        return [f"--{key}", *value.words]
    # a value that begins with a dash would pass for a flag of its own
    return [f"--{key}={value}"] if value.startswith("-") else [f"--{key}", value]


def is_flag(word: str) -> bool:
    """Returns whether a word begins a flag."""
    return word.startswith(("--", "-c=")) or word in ("-h", "-c")


def say_stray(word: str) -> str:
    """Says that a word is no value of a flag."""
    return f"'{word}' belongs to no flag; flags are written --key value"


def refuse_words(value: str | None, hints: Hints) -> None:
    """Refuses several words behind a flag whose value is no list.

    Args:
        value: The value of the flag.
        hints: The types that it may have.

    Raises:
        ConfigError: There are several, and one is expected.
    """
    if isinstance(value, Words) and not any(elements(hint) for hint in hints):
        raise ConfigError(say_stray(value.words[1]))


def read_value(key: str, value: str | None, hints: Hints) -> Any:
    """Returns what a flag says, as YAML where its type is not plain text.

    Args:
        key: The key that messages name.
        value: The text behind the key; None where the flag stands alone.
        hints: The types that the setting may have; none where nobody knows.

    Raises:
        ConfigError: A value is missing.
    """
    if value is None:
        if hints and not (bool in hints and set(hints) <= {bool, int, NoneType}):
            raise ConfigError(f"--{key} needs a value")
        return True
    try:
        content = load_as_written(value)
    except yaml.YAMLError as error:
        if "data.tasks." in key:  # settings of a task have no type that could say what is wrong
            problem = getattr(error, "problem", error)
            raise ConfigError(f"--{key} {value}: not valid YAML: {problem}") from None
        return value

    if isinstance(content, str):
        return value  # with its quotes, which YAML would take away
    # a text may hold a colon, or begin with a bracket
    is_text = value[:1] not in ("[", "{") or set(hints) <= {str, NoneType}
    if isinstance(content, dict | list) and str in hints and is_text:
        return value
    return write_out_classes(content, key, "of flags")


def put(tree: Any, names: Sequence[str], value: Any, hints: Hints) -> Any:
    """Returns settings in which a value stands under a key.

    Args:
        tree: The settings; a flag below a list means the last entry.
        names: The parts of the key; a + behind the last one appends to a list.
        value: The value.
        hints: The types that the value may have.
    """
    if not names:
        if not is_choice(hints):
            # one word is a list of one, as several words are a list of several
            holds_words = any(str in elements(hint) for hint in hints)
            alone = isinstance(value, str) and str not in hints and holds_words
            return [value] if alone else value
        # the only one of several
        if elements(hints[0]) and isinstance(value, str | dict):
            return [value]
        return choose(tree, value, hints)
    if isinstance(tree, list) and tree:
        return [*tree[:-1], put(tree[-1], names, value, hints)]
    if isinstance(tree, str):
        tree = {"class_path": tree}  # `sharing: MMoE`, then a flag of its settings
    if not isinstance(tree, dict):
        tree = {}

    name, *rest = names
    if "class_path" in tree and name not in OF_A_CLASS:
        inner = put(tree.get("init_args") or {}, names, value, hints)
        return tree | {"init_args": inner}
    if name.endswith("+"):
        name = name.removesuffix("+")
        before = tree.get(name) or []
        entries = before if isinstance(before, list) else [before]
        return tree | {name: [*entries, *(value if isinstance(value, list) else [value])]}
    return tree | {name: put(tree.get(name), rest, value, hints)}


def choose(before: Any, value: Any, hints: Hints) -> Any:
    """Returns the choice of a class over an earlier one, whose settings stay if it is the same."""
    if isinstance(value, str) and Task in hints:
        value = {"class_path": value, "init_args": {}}
    # settings alone, and then their class
    if isinstance(before, dict) and "class_path" not in before:
        if isinstance(value, str):
            return {"class_path": value, "init_args": before}
        if isinstance(value, dict) and "class_path" in value:
            return value | {"init_args": merge(before, value.get("init_args") or {})}
    return merge(before, value)
