"""Help: two pages by ``--help``, all by ``--help all``, and one key by ``--KEY.help``."""

import inspect
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from src.cli.aliases import EVERYDAY
from src.cli.classes import CHOICES, choices, hint_at, names_of, path_of
from src.cli.flags import Flag
from src.cli.hints import Hints, bases, hints_at, is_choice, kinds_of, value_at
from src.cli.layers import ConfigError
from src.cli.settings import (
    NOT_TO_BE_SET,
    Required,
    as_typed,
    count_given,
    describe,
    in_words,
    list_settings,
)

WIDTH = 110  # of a line
MEANING = 26  # the column where the meaning of a flag begins
BRIEF = 42  # the column where it begins behind a flag and its value
GENERAL = {
    "config FILE": "settings; several files are merged, and flags win over files, "
    "whatever their order",
    "name NAME": "groups runs: logs/<name>/<date-time> [the name of the data]",
    "logs FOLDER": "where run folders go [logs]",
    "print_config": "show what would run, as a file for --config",
    "help all": "everything that can be set",
    "KEY.help": "one key: --model.help, --trainer.help, --data.help Table, "
    "--data.tasks.TASK.help ...",
}


class Help:
    """Answers for help, where a command line has some.

    Args:
        types: The types of the topmost keys.
        tree: The settings as files and flags have them so far.
        own: The flags that the command alone knows.
        trains: Whether the command trains; to the others a run's model is settled.
    """

    def __init__(
        self,
        types: Mapping[str, Hints],
        tree: Mapping[str, Any],
        own: Sequence[Flag],
        trains: bool,
    ) -> None:
        self.types = types
        self.tree = tree
        self.own = own
        self.trains = trains

    def answer(self, key: str, value: str | None) -> str:
        """Returns the help of a flag: ``help``, or ``KEY.help``.

        Raises:
            ConfigError: There is no such key, or no such class.
        """
        if key != "help":
            return self.about(key.removesuffix(".help"), value)
        if value not in (None, "all"):
            raise ConfigError(f"--help {value}: write --help, --help all, or --{value}.help")
        return self.overview(everything=value == "all")

    # -- all of a command --------------------------------------------------------------------------
    def overview(self, everything: bool) -> str:
        """Returns the help of the command.

        Args:
            everything: Whether to say at length what each setting is for.
        """
        everyday = {}
        for name, alias in EVERYDAY.items():
            if self.trains or not alias.trains:
                everyday[name] = f"{alias.meaning} (--{alias.key})"
        own = {flag.name: flag.help for flag in self.own}
        blocks = [
            f"usage: python -m {name_command()} [--config FILE ...] [--KEY VALUE ...]",
            format_block("its own flags", own),
            format_block("everyday flags", everyday),
            format_block("all flags are keys of one configuration", GENERAL),
        ]

        sections: list[str] = ["data"]
        if self.trains:
            title = "classes to choose from, by name or class path"
            blocks.append(format_block(title, self.classes()))
            sections = ["model", "data", "init_from", "finetune", "budget", "watch"]
        if everything:
            sections.append("trainer")
        for section in sections:
            kind = self.kinds(section)[0]
            title = f"{section} ({kind.__name__})" if section == "data" else section
            lines = self.lines(section, kind, brief=not everything)
            blocks.append("\n".join([f"{title}:", *lines]))
        if not everything:
            blocks.append(
                "trainer: every setting of Lightning's Trainer; --trainer.help lists them"
            )
        return "\n\n".join(blocks)

    def classes(self) -> dict[str, str]:
        """Returns the classes that a key may name."""
        keys = {"data": "data", "strategy": "strategy", "tasks": "data.tasks.TASK"}
        return {keys.get(name, f"model.{name}"): ", ".join(choices(name)) for name in CHOICES}

    # -- one key -----------------------------------------------------------------------------------
    def about(self, key: str, name: str | None) -> str:
        """Returns the help of one key, or of a class that it may name.

        Raises:
            ConfigError: There is no such key, or no such class.
        """
        hints = hints_at(key, self.types, self.tree)
        if not hints and key.startswith("data.tasks."):  # of data that has tasks to be set
            self.tree = {**self.tree, "data": {"class_path": "Table"}}
            hints = hints_at(key, self.types, self.tree)
        if not hints:
            raise ConfigError(f"--{key}.help: unknown key '{key}'; --help all lists the keys")
        if not is_choice(hints):
            return self.setting(key)

        known = self.names(key)
        kinds = self.kinds(key)
        if name is not None:
            kinds = kinds_of(hints, name)[:1]
            if not kinds or not is_of(kinds[0], hints):
                raise ConfigError(
                    f"--{key}.help {name}: unknown class '{name}'; {hint_at(name, known)}"
                )
        blocks = []
        if len(kinds) > 1:
            flag = f"--{shorten(key)}.help CLASS"
            blocks.append(f"{shorten(key)}: one of {', '.join(known)}; {flag} shows one")
        for kind in kinds:
            lines = self.lines(key, kind) or ["  no settings"]
            title = f"{shorten(key)}: {kind.__name__} ({path_of(kind)})"
            blocks += [f"{title}\n\n{describe(kind)}", "\n".join(lines)]
        if len(kinds) == 1 and len(known) > 1:
            blocks.append(textwrap.fill(f"to choose from: {', '.join(known)}", WIDTH))
        return "\n\n".join(blocks)

    def setting(self, key: str) -> str:
        """Returns the help of a setting that is no class."""
        owner, _, name = key.rpartition(".")
        for kind in self.kinds(owner) if owner else []:
            for line in self.lines(owner, kind):
                if line.split()[0] == f"--{key}":
                    return line
        return format_block(name, {key: in_words(hints_at(key, self.types, self.tree))})

    def names(self, key: str) -> list[str]:
        """Returns the names of the classes that a key may name."""
        last = "tasks" if key.startswith("data.tasks.") else key.rpartition(".")[2]
        makeable = [
            kind
            for kind in kinds_of(hints_at(key, self.types, self.tree), None)
            if not inspect.isabstract(kind)
        ]
        names = choices(last) or sorted({names_of(kind)[0] for kind in makeable})
        return [name for name in names if not name.startswith("_")]

    def kinds(self, key: str) -> list[Any]:
        """Returns the class that a key has now; all of ours where none is chosen yet."""
        hints, value = hints_at(key, self.types, self.tree), value_at(key, self.tree)
        if value is None:
            value = self.default(key)
        if inspect.isclass(value):
            return [value]
        kinds = kinds_of(hints, value)
        chosen = isinstance(value, str) or (isinstance(value, dict) and "class_path" in value)
        if not kinds:  # a word that is no class, such as auto
            kinds = kinds_of(hints, None)
            chosen = False
        if chosen or len(kinds) < 2 or not inspect.isabstract(kinds[0]):
            return kinds[:1]
        return [
            kind
            for kind in kinds
            if kind.__module__.startswith("src.") and not inspect.isabstract(kind)
        ]

    def default(self, key: str) -> Any:
        """Returns what a class takes for a setting that nobody has stated."""
        owner, _, name = key.rpartition(".")
        for kind in self.kinds(owner)[:1] if owner else []:
            for setting in list_settings(kind):
                if setting.name == name and setting.default is not Required:
                    return setting.default
        return None

    def lines(self, key: str, kind: Any, brief: bool = False) -> list[str]:
        """Returns the settings of a class as one types them, with the values that they have now."""
        hints, value = hints_at(key, self.types, self.tree), value_at(key, self.tree)
        given = max((count_given(hint) for hint in hints), default=0)
        stated = (
            value.get("init_args", value)
            if isinstance(value, dict) and kind in kinds_of(hints, value)
            else {}
        )
        lines = []
        for setting in list_settings(kind, given):
            if setting.name in NOT_TO_BE_SET.get(key, ()):
                continue
            deeper = is_choice(setting.hints)
            now = stated.get(setting.name, setting.default)
            shown = "required" if now is Required else as_typed(now)
            shown = shown.rpartition(".")[2] if deeper else shown
            flag = f"{key}.{setting.name}"
            if brief:
                lines.append(format_entry(f"{flag} [{shown}]", cut_clause(setting.doc), brief=True))
                continue
            more = f"; more by --{flag}.help" if deeper else ""
            lines.append(
                format_entry(
                    flag, f"{setting.doc} ({in_words(setting.hints)}) [{shown}]{more}".strip()
                )
            )
        return lines


def asks_for_help(key: str) -> bool:
    """Returns whether a flag asks for help: --help, or --KEY.help."""
    return key == "help" or key.endswith(".help")


def is_of(kind: Any, hints: Hints) -> bool:
    """Returns whether a class is what one of these types asks for."""
    return inspect.isclass(kind) and any(
        issubclass(kind, base) for hint in hints for base in bases(hint)
    )


def name_command() -> str:
    """Returns the module that is run, such as src.train."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec and spec.name.startswith("src.") else sys.argv[0]


def format_block(title: str, entries: Mapping[str, str]) -> str:
    """Returns flags and their meanings below a title."""
    return "\n".join(
        [f"{title}:", *(format_entry(flag, meaning) for flag, meaning in entries.items())]
    )


def shorten(key: str) -> str:
    """Returns a key as one types it: the strategy goes by its short name."""
    return key.removeprefix("trainer.") if key.startswith("trainer.strategy") else key


def cut_clause(text: str) -> str:
    """Returns the beginning of a sentence, up to where it goes into detail."""
    for mark in (". ", "; ", ": "):
        head = text.partition(mark)[0]
        if head.count("{") == head.count("}"):
            text = head
    return text.rstrip(".")


def format_entry(flag: str, meaning: str, brief: bool = False) -> str:
    """Returns a flag and its meaning, on as many lines as they need, or on one."""
    indent = BRIEF if brief else MEANING
    head = f"  --{shorten(flag)}"
    head = head.ljust(indent) if len(head) < indent - 1 else f"{head}  "
    if brief:
        return head + textwrap.shorten(meaning, WIDTH - len(head), placeholder=" ...")
    lines = textwrap.wrap(meaning, WIDTH - indent) or [""]
    if len(head) > indent:
        lines.insert(0, "")
        head = head.rstrip()
    return "\n".join([(head + lines[0]).rstrip(), *(" " * indent + line for line in lines[1:])])
