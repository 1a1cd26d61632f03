"""What the command line says of mistakes: one line, with the key as typed and the way out."""

import difflib
import importlib
import inspect
import pkgutil
import re
import sys
from pathlib import Path
from typing import Any, NoReturn, cast

import jsonargparse._loaders_dumpers as loaders_dumpers
import jsonargparse._typehints as typehints
import lightning as L
import lightning.pytorch.cli as lightning_cli
from jsonargparse import Namespace, set_dumper
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import Strategy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

import src.balancing
import src.data
import src.models
import src.monitoring
import src.parallel
import src.tasks
from src.balancing import Balancer
from src.cli.config import ALIASES
from src.data import MultiTaskDataModule
from src.errors import SOURCES, BrokenFile, where_broken
from src.files.yaml12 import Loader, dump
from src.models.encoders import Encoder
from src.models.sharing import Sharing
from src.processes import fail
from src.tasks import Task

CHOICES: dict[str, type] = {
    "data": MultiTaskDataModule,
    "encoder": Encoder,
    "sharing": Sharing,
    "balancer": Balancer,
    "strategy": Strategy,
    "tasks": Task,
}
OTHERS: dict[str, type] = {
    "sources": MultiTaskDataModule,
    "backbone": Encoder,
    "optimizer": Optimizer,
    "scheduler": LRScheduler,
    "callbacks": L.Callback,
    "logger": Logger,
}


def subclasses(base: type) -> list[type]:
    """The classes below ``base`` that can be made."""
    children: list[type] = base.__subclasses__()
    below = [c for child in children for c in (child, *subclasses(child))]
    return [c for c in below if not inspect.isabstract(c)]


def ours(base: type) -> list[Any]:
    """Those of the classes below ``base`` that are this project's own."""
    return [c for c in subclasses(base) if c.__module__.startswith("src.")]


def called(kind: type) -> tuple[str, ...]:
    """The words that a class goes by: its name, and a strategy's own."""
    return (kind.__dict__.get("strategy_name", kind.__name__), kind.__name__)


def path_of(kind: type) -> str:
    """A class by the module that defines it."""
    return f"{kind.__module__}.{kind.__name__}"


def choices(key: str) -> list[str]:
    """The names of the classes that a key may choose; of Lightning's strategies those alone that we have made our own."""
    key = key.rpartition(".")[2]
    base = (CHOICES | OTHERS).get(key)
    kinds = [] if base is None else ours(base) if key == "strategy" else subclasses(base)
    return sorted({called(c)[0] for c in kinds})


def hint_at(word: str, known: list[str]) -> str:
    """The known word that an unknown one looks most like, else all of them."""
    lowered = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), lowered, n=1)
    return f"did you mean '{lowered[near[0]]}'?" if near else f"known are {', '.join(known)}"


def know_every_class() -> None:
    """Imports each file of the packages that classes are chosen from, so that a new file's classes are found by short name.

    Raises:
        BrokenFile: One of them cannot be imported.
    """
    for package in (src.data, src.models, src.balancing, src.tasks, src.parallel, src.monitoring):
        for module in pkgutil.walk_packages(
            package.__path__, package.__name__ + ".", onerror=raise_broken
        ):
            try:
                importlib.import_module(module.name)
            except Exception as error:
                file = Path(
                    getattr(module.module_finder, "path", ""),
                    f"{module.name.rpartition('.')[2]}.py",
                )
                raise BrokenFile(where_broken(error, str(file))) from error


def raise_broken(_: str) -> None:
    """Lets the error of a package come out, which pkgutil would skip in silence."""
    error = sys.exc_info()[1]
    assert error is not None
    raise BrokenFile(where_broken(error)) from error


def forget_replaced_class(_: Any, previous: Any, value: Any) -> None:
    """Another class starts from its own defaults.

    jsonargparse keeps those settings of the replaced class that the new one happens to know
    (AdamW's weight decay in SGD).
    """
    if previous and "init_args" in previous and previous["class_path"] != value["class_path"]:
        for key in list(previous["init_args"].keys()):
            previous["init_args"].pop(key)


typehints.discard_init_args_on_class_path_change = forget_replaced_class


def kept_as_it_is(value: Any, *_: Any) -> Any:
    """Leaves a setting of any type as it was given: no class is built of it, and no text becomes a number."""
    return value.as_dict() if isinstance(value, Namespace) else value


typehints.adapt_classes_any = kept_as_it_is
typehints.serialize_unvalidated = kept_as_it_is
# what is a number, true or null: as we read it ourselves; set_loader would leave out single values
cast(Any, loaders_dumpers).yaml_default_loader = Loader
set_dumper("yaml", dump)
# Lightning's ReduceLROnPlateau wants to be told what to watch; what no one can choose makes torch's
# ambiguous no longer
cast(Any, lightning_cli.ReduceLROnPlateau).__abstractmethods__ = frozenset({"monitor"})


class Parser(LightningArgumentParser):
    """The parser: mistakes answered in one line.

    jsonargparse makes one more of these for every class that is chosen, which knows that class's
    settings alone.
    """

    origins: dict[str, str] = {}  # which file a key came from, "" for a flag; filled before parsing
    stated: frozenset[str] = frozenset()  # the keys that the defaults state; filled likewise
    chosen: dict[str, str] = {}  # the key that each class was chosen by
    owner: Any = (
        None  # whose settings this parser reads; None for the parser of the whole command line
    )

    def add_class_arguments(
        self, theclass: Any, nested_key: str | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Remembers the class whose settings stand at the top."""
        if nested_key is None:
            self.owner = theclass
        return super().add_class_arguments(theclass, nested_key, *args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints one line and ends with exit code 2."""
        fail(self.in_one_line(str(ex or message)))

    def in_one_line(self, message: str) -> str:
        """Shortens jsonargparse's message to the key as typed, what is wrong, what would be right, and the file it stands in."""
        text = " ".join(message.split())
        if found := re.search(
            r"nrecognized arguments: --([\w.\-]+)|ption '([\w.\-]+)' is not accepted", text
        ):
            return self.unknown(found[1] or found[2])
        if found := re.search(r"Group '(\w+)' does not accept option '([\w.\-]+)'", text):
            return self.unknown(f"{found[1]}.{found[2]}")
        if found := re.search(r"arguments are required: ([\w.\-]+)", text):
            return f"{self.typed(found[1])} is missing; it has no default{self.shown_in()}"
        if found := re.search(r"argument --([\w.\-]+): expected one argument", text):
            return f"--{found[1]} needs a value"
        if found := re.search(r"Parser key \"([\w.\-]+)\"[^:]*: (.*)", text):
            return (
                f"{self.typed(found[1])}: {self.wrong(found[1], found[2])}{self.origin(found[1])}"
            )
        return text

    def shown_in(self) -> str:
        """The file of ours that shows how a class of data is set up, where there is one."""
        name = getattr(self.owner, "__name__", "").lower()
        path = Path("configs", "data", f"{name}.yaml")
        return f"; {path} shows one: --data {path}" if (SOURCES.parent / path).is_file() else ""

    def wrong(self, key: str, text: str) -> str:
        """What is wrong with a value; where it may have several types, what would be right by each."""
        text = re.sub(r"- Expected a path but .*? either not accessible or invalid - ", "", text)
        if found := re.search(r"Expected '(\S+)' to be a subclass of <class '(\w+)'>", text):
            return f"{found[1]} is no {found[2]}; known are {', '.join(choices(key))}"
        union = re.search(r"Errors: - (.*) Given value type: .* Given value: (.*)", text)
        given = union[2] if union else text.rpartition("Got value: ")[2]
        lines = union[1].split(" - ") if union else [text]
        says = [line.partition(". Got value: ")[0] for line in lines if "NoneType" not in line]
        name = re.search(
            r"(?:Expected a dot import path string|Unexpected import path format): (\S+)",
            " ".join(says),
        )
        module = re.search(r"No module named '\S+'|has no attribute '\S+'", text)
        if (name or module) and "'float'" not in text:
            return self.unknown_class(key, name[1] if name else given, module[0] if module else "")
        matches = [
            re.fullmatch(r"Expected an? (?:<class '(?:\w+\.)*(\w+)'>|typing.Literal\[(.*)\])", line)
            for line in says
        ]
        types = [match[1] or match[2].replace(", ", " or ") for match in matches if match]
        if types:
            quotes = (
                "; a text that reads null stands in quotes: '\"null\"'"
                if re.search(r"\bNone\b", given)
                else ""
            )
            return f"expected {' or '.join(types)}, got '{given}'{quotes}"
        return re.sub(r"Type .*? expects a function or a callable class: ", "", "; ".join(says))[
            :300
        ]

    def unknown_class(self, key: str, name: str, reason: str) -> str:
        """Says which classes there are."""
        if name.lower() in ("none", "nothing", "no"):
            return f"unknown class '{name}'; for none, write null"
        if key == "data" and name.lower().endswith((".csv", ".tsv", ".parquet", ".gz")):
            return f"'{name}' is a file, not a class; write --data Table --data.path {name}"
        names = choices(key)
        hint = hint_at(name, [*names, "any class path"])
        return f"unknown class '{name}'{f' ({reason})' if reason else ''}; {hint if names else 'give a class path'}"

    def typed(self, key: str) -> str:
        """A setting's whole key, as one would type it."""
        above = self.chosen.get(getattr(self.owner, "__name__", ""))
        whole = f"{above}.{key}" if above else key
        typed = re.sub(r"\.?\b(init_args|class_path)\b", "", whole)
        return (
            "seed_everything" if typed in ("model.seed", "data.seed") else typed
        )  # these follow from it

    def origin(self, key: str) -> str:
        """The file that a key came from, in brackets, where it was one."""
        path = self.origins.get(self.typed(key))
        return f" (in {path})" if path else ""

    def unknown(self, key: str) -> str:
        """Names the known key that looks most like this one; of a class that was chosen, all its settings."""
        known = [action.dest for action in self._actions if not action.dest.endswith("help")]
        everything = known if self.owner else sorted({*known, *ALIASES, *self.stated})
        namesakes = [
            k for k in everything if k.rpartition(".")[2] == key.rpartition(".")[2] and k != key
        ]
        same_section = [k for k in namesakes if k.split(".")[0] == key.split(".")[0]]
        near = (
            same_section or namesakes or difflib.get_close_matches(key, everything, n=1, cutoff=0.7)
        )
        if near:
            hint = f"did you mean {' or '.join(repr(self.typed(k)) for k in near[:3])}?"
        else:
            hint = (
                f"{self.owner.__name__} knows {', '.join(known) or 'no settings'}"
                if self.owner
                else "--help lists the keys"
            )
        return f"unknown key '{self.typed(key)}'; {hint}{self.origin(key)}"
