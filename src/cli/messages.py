"""Mistakes in one line: the key as typed, what is wrong, what would be right, and the file.

jsonargparse says what is wrong in English, for a reader of its own help. This file alone reads its
sentences; tests/cli/test_messages.py provokes each of them with the version that is installed.
"""

import inspect
import re
from dataclasses import dataclass
from pathlib import Path

from jsonargparse import ArgumentError

from src.cli.aliases import ALIASES
from src.cli.classes import choices, hint_at, hint_at_optional
from src.cli.configuration import TYPES, Configuration
from src.cli.hints import hints_at, import_class, kinds_of, value_at
from src.cli.settings import NOT_TO_BE_SET, count_given, list_settings
from src.errors import SOURCES, in_one_line, suggest

# sentences of jsonargparse
KEY = re.compile(r'Parser key "([\w.\-]+)"[^:]*: (.*)')
OF_CLASS = re.compile(r"Problem with given class_path '([\w.]+)': (.*)")
CLASS_PATH = re.compile(r"class_path(?:'?: |=)'([^']*)'")
UNKNOWN = re.compile(r"[Oo]ption '([\w.\-]+)' is not accepted")
UNKNOWN_IN_GROUP = re.compile(r"Group '(\w+)' does not accept option '([\w.\-]+)'")
REQUIRED = re.compile(r"arguments are required: ([\w.\-]+)")
NO_SUBCLASS = re.compile(r"Expected '(\S+)' to be a subclass of <class '(\w+)'>")
UNION = re.compile(
    r"Errors: - (.*?) Given value type: .*? Given value: (.*?)"
    r"(?= - Expected | Given value type: |$)"
)
NO_PATH = re.compile(r"(?:Expected a dot import path string|Unexpected import path format): (\S+)")
NO_MODULE = re.compile(r"No module named '\S+'|has no attribute '\S+'")
TYPE = re.compile(r"Expected an? (?:<class '(?:\w+\.)*(\w+)'>|typing.Literal\[(.*)\])")
GOT = ". Got value: "
NOISE = re.compile(
    r"- Expected a path but .*? either not accessible or invalid - "
    r"|Type .*? expects a function or a callable class: "
)


def explain(error: ArgumentError, settings: Configuration) -> str:
    """Returns what is wrong in a line.

    Args:
        error: What jsonargparse has raised. A parser of its own reads the settings of each class
            that is chosen, and its error is behind that of the parser of all.
        settings: All settings, with the files that they came from.
    """
    keys = []
    path = ""
    *outer, text = read_chain(error)
    for around in outer:
        if found := KEY.match(around):
            keys.append(found[1])
        if found := OF_CLASS.search(around):
            path = found[1]
    # of a type with several members only the first one's error is in the chain, but each has its
    # sentence in the text
    key = KEY.match(text)
    found = OF_CLASS.search(text)
    if key and found and not NO_MODULE.match(found[2]):
        keys.append(key[1])
        path = found[1]
        text = found[2]
    above = find_entry(".".join(keys), path, text, settings)
    return Mistake(above, path, settings).say(text)


def find_entry(above: str, path: str, text: str, settings: Configuration) -> str:
    """Returns the key of a class, with its entry where a mapping holds several classes.

    jsonargparse names the mapping alone: ``data.sources``, and not ``data.sources.b``.

    Args:
        above: The key that a class was chosen by.
        path: The path of the class.
        text: What is wrong within the class.
        settings: All settings.
    """
    entries = value_at(above, settings.tree) if above else None
    wrong = KEY.search(text) or UNKNOWN.search(text)
    if wrong is None or not isinstance(entries, dict) or "class_path" in entries:
        return above
    _, _, value = text.rpartition(GOT)
    for name, entry in entries.items():
        given = (entry.get("init_args") or {}) if isinstance(entry, dict) else {}
        if wrong[1] not in given or entry.get("class_path") != path:
            continue
        # several entries may have the key: the value tells which one is meant
        if GOT not in text or str(given[wrong[1]]) == value:
            return f"{above}.{name}"
    return above


def read_chain(error: BaseException) -> list[str]:
    """Returns the messages of the parsers' errors, the innermost last, each once."""
    texts = []
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, ArgumentError):
            texts.append(in_one_line(link))
        link = link.__cause__ or link.__context__
    return list(dict.fromkeys(texts))


@dataclass
class Mistake:
    """A mistake in the settings of a class, or of the whole command.

    Attributes:
        above: The key that the class was chosen by; "" for the whole command.
        path: The path of the class as the message has it; "" where it has none.
        settings: All settings.
    """

    above: str
    path: str
    settings: Configuration

    def say(self, text: str) -> str:
        """Returns the line for a sentence of the parser that has met the mistake."""
        if found := UNKNOWN_IN_GROUP.search(text):
            return self.say_unknown(f"{found[1]}.{found[2]}")
        if found := REQUIRED.search(text):
            if inspect.isroutine(self.find_owner()):
                return f"{self.above}: a function is named, and a class is expected"
            return f"{self.typed(found[1])} is missing; it has no default{self.say_example()}"
        if found := KEY.search(text):
            key = self.typed(found[1])
            return f"{key}: {self.say_wrong(key, found[2])}{self.say_origin(found[1])}"
        if found := UNKNOWN.search(text):
            return self.say_unknown(found[1])
        return text

    def say_example(self) -> str:
        """Returns the file of ours that shows how a class of data is set up, where there is one."""
        name = getattr(self.find_owner(), "__name__", "").lower()
        path = Path("configs", "data", f"{name}.yaml")
        return f"; {path} shows one: --data {path}" if (SOURCES.parent / path).is_file() else ""

    def say_wrong(self, key: str, text: str) -> str:
        """Returns what is wrong with a value; of several types, what would be right by each."""
        text = NOISE.sub("", text)
        if found := NO_SUBCLASS.search(text):
            return f"{found[1]} is no {found[2]}; known are {', '.join(choices(key))}"
        union = UNION.search(text)
        if union is None:
            # what a type around this one says of the same value
            text = re.split(r" - Expected | Given value type: ", text)[0]
        given = union[2] if union else text.rpartition(GOT.removeprefix(". "))[2]
        parts = union[1].split(" - ") if union else [text]
        says = [part.partition(GOT)[0] for part in parts if "NoneType" not in part]

        name = NO_PATH.search(" ".join(says))
        module = NO_MODULE.search(text)
        if (name or module) and "'float'" not in text:
            reason = f" ({module[0]})" if module else ""
            path = CLASS_PATH.search(given)
            word = name[1] if name else path[1] if path else given
            return self.say_unknown_class(key, word, reason)
        matches = [match for part in says if (match := TYPE.fullmatch(part))]
        types = [match[1] or match[2].replace(", ", " or ") for match in matches]
        if not types:
            return "; ".join(says)[:300]
        quotes = ""
        if re.search(r"\bNone\b", given):
            quotes = "; a text that reads null stands in quotes: '\"null\"'"
        return f"expected {' or '.join(types)}, got '{given}'{quotes}"

    def say_unknown_class(self, key: str, name: str, reason: str) -> str:
        """Returns which classes there are."""
        if name.lower() in ("none", "nothing", "no"):
            return f"unknown class '{name}'; for none, write null"
        if key == "data" and name.lower().endswith((".csv", ".tsv", ".parquet", ".gz")):
            return f"'{name}' is a file, not a class; write --data Table --data.path {name}"
        names = choices(key)
        hint = hint_at(name, [*names, "any class path"]) if names else "give a class path"
        hint += hint_at_optional(key)
        return f"unknown class '{name}'{reason}; {hint}"

    def say_unknown(self, key: str) -> str:
        """Returns the known key that looks most like this one; of a class, all its settings."""
        owner = self.find_owner()
        hint = self.hint_at_key(key) if owner is None else self.hint_at_setting(key, owner)
        return f"unknown key '{self.typed(key)}'; {hint}{self.say_origin(key)}"

    def hint_at_setting(self, name: str, owner: type) -> str:
        """Returns the setting of a class that looks most like a name, or else all of them."""
        hints = hints_at(self.above, TYPES, self.settings.tree)
        given = max((count_given(hint) for hint in hints), default=0)
        left_out = NOT_TO_BE_SET.get(self.above, ())
        names = [setting.name for setting in list_settings(owner, given)]
        names = [known for known in names if known not in left_out]
        near = suggest(name, names, 0.7)
        if near:
            return suggest(self.typed(name), [self.typed(known) for known in names], 0.7)
        known = f"{owner.__name__} knows {', '.join(names) or 'no settings'}"
        others = list_classes_with(self.above, name)
        return f"{known}; {name} is a setting of {', '.join(others)}" if others else known

    def hint_at_key(self, key: str) -> str:
        """Returns the keys of the same last name, or else the one that looks most like a key."""
        known = self.list_keys()
        name = key.rpartition(".")[2]
        namesakes = [k for k in known if k.rpartition(".")[2] == name and k != key]
        in_section = [k for k in namesakes if k.split(".")[0] == key.split(".")[0]]
        near = (in_section or namesakes)[:3]
        if near:
            return f"did you mean {' or '.join(repr(self.typed(k)) for k in near)}?"
        return suggest(key, known, 0.7) or "--help lists the keys"

    def list_keys(self) -> list[str]:
        """Returns the keys of the whole command."""
        found = {*TYPES, *ALIASES, *self.settings.stated, *self.settings.own}
        for section in ("trainer", "model", "watch", "budget", "finetune"):
            names = [setting.name for setting in list_settings(TYPES[section][0])]
            found |= {f"{section}.{name}" for name in names}
        return sorted(found)

    def find_owner(self) -> type | None:
        """Returns the class whose settings are read; None for the whole command."""
        if not self.above:
            return None
        chosen = value_at(self.above, self.settings.tree)
        path = self.path or (chosen.get("class_path", "") if isinstance(chosen, dict) else chosen)
        kinds = import_class(str(path))
        return kinds[0] if kinds else None

    def typed(self, key: str) -> str:
        """Returns a setting's whole key, as a person types it."""
        whole = f"{self.above}.{key}" if self.above else key
        typed = re.sub(r"\.?\b(init_args|class_path)\b", "", whole)
        # these follow from it
        return "seed_everything" if typed in ("model.seed", "data.seed") else typed

    def say_origin(self, key: str) -> str:
        """Returns the file that a key came from, in brackets, where it was one."""
        path = self.settings.origins.get(self.typed(key))
        return f" (in {path})" if path else ""


def list_classes_with(key: str, setting: str) -> list[str]:
    """Returns the classes that a key may name and that have a setting of this name."""
    found = []
    for name in choices(key):
        kinds = kinds_of(hints_at(key, TYPES, {}), name)
        if kinds and any(known.name == setting for known in list_settings(kinds[0])):
            found.append(name)
    return found
