"""The classes that a configuration may choose by a short name."""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import lightning as L
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
from src.data import MultiTaskDataModule
from src.errors import BrokenFile, suggest, where_broken
from src.models.encoders import Encoder
from src.models.fairness import Fairness
from src.models.feature_selection import Selection
from src.models.meta import Meta
from src.models.sharing import Sharing
from src.models.transfer.anchor import Anchor
from src.tasks import Task

# roles that help lists, by the key that fills them
CHOICES: dict[str, type] = {
    "data": MultiTaskDataModule,
    "encoder": Encoder,
    "sharing": Sharing,
    "balancer": Balancer,
    "meta": Meta,
    "fairness": Fairness,
    "select": Selection,
    "strategy": Strategy,
    "tasks": Task,
}
OTHERS: dict[str, type] = {
    "sources": MultiTaskDataModule,
    "source": MultiTaskDataModule,
    "backbone": Encoder,
    "anchor": Anchor,
    "optimizer": Optimizer,
    "scheduler": LRScheduler,
    "callbacks": L.Callback,
    "logger": Logger,
}
# packages that are imported when a class of theirs is named, and the classes that are looked for
OPTIONAL: dict[str, type] = {"pytorch_optimizer": Optimizer}


def subclasses(base: type) -> list[type]:
    """Returns the classes below ``base`` that can be made, and that a person may choose."""
    found: list[type] = []
    children: list[type] = base.__subclasses__()
    for child in children:
        found += [child, *subclasses(child)]
    found = list(dict.fromkeys(found))  # a class may have two bases that have one in common
    # those of Lightning's own command line, and of optional packages, stand beside torch's under
    # the same names
    hidden = ("lightning.pytorch.cli.", *(f"{package}." for package in OPTIONAL))
    if base is Sharing:
        # a selection is an architecture around another one, which model.select chooses
        found = [kind for kind in found if not issubclass(kind, Selection)]
    return [
        kind
        for kind in found
        if not inspect.isabstract(kind) and not f"{kind.__module__}.".startswith(hidden)
    ]


def find_optional(name: str, kinds: Sequence[type]) -> list[type]:
    """Returns the class of an optional package that goes by a name, imported now; none for none.

    Args:
        name: The name of a class, without its path.
        kinds: The classes that are asked for.
    """
    for package, base in OPTIONAL.items():
        if base in kinds and name.isidentifier() and find_spec(package) is not None:
            kind = getattr(importlib.import_module(package), name, None)
            if inspect.isclass(kind) and issubclass(kind, base):
                return [kind]
    return []


def hint_at_optional(key: str) -> str:
    """Returns words that name the optional package in which a key may choose more classes."""
    base = (CHOICES | OTHERS).get(key.rpartition(".")[2])
    for package, offered in OPTIONAL.items():
        if base is offered:
            installed = find_spec(package) is not None
            return (
                f"; {package} has more" if installed else f"; more come with pip install {package}"
            )
    return ""


def find_ours(base: type) -> list[type]:
    """Returns the classes below ``base`` that this project defines."""
    return [c for c in subclasses(base) if c.__module__.startswith("src.")]


def names_of(kind: type) -> tuple[str, ...]:
    """Returns the words that a class goes by: its name, and before it a strategy's own."""
    return (kind.__dict__.get("strategy_name", kind.__name__), kind.__name__)


def path_of(kind: type) -> str:
    """Returns the path of a class: of ours where it is defined, of others where it is exported."""
    modules = kind.__module__.split(".")
    if modules[0] == "src":
        return f"{kind.__module__}.{kind.__name__}"
    for length in range(1, len(modules)):
        module = ".".join(modules[:length])
        if getattr(sys.modules.get(module), kind.__name__, None) is kind:
            return f"{module}.{kind.__name__}"
    return f"{kind.__module__}.{kind.__name__}"


def choices(key: str) -> list[str]:
    """Returns the names of the classes that a key may choose.

    Of strategies, only ours are named: Lightning's know nothing of several tasks.
    """
    owner, _, key = key.rpartition(".")
    base = (CHOICES | OTHERS).get(key)
    if base is None and owner.startswith("model.encoder"):
        base = Encoder  # an encoder may be made of others
    if base is None:
        return []
    kinds = subclasses(base)
    if key == "strategy":
        kinds = [kind for kind in find_ours(base) if "strategy_name" in kind.__dict__]
    return sorted({name for name, *_ in map(names_of, kinds) if not name.startswith("_")})


def hint_at(name: str, known: list[str]) -> str:
    """Returns the known class that an unknown name looks most like, or else all of them."""
    return suggest(name, known) or f"known are {', '.join(known)}"


def is_exported(kind: type) -> bool:
    """Returns whether the package of a class offers it by its name."""
    package = sys.modules.get(kind.__module__.rpartition(".")[0])
    return getattr(package, kind.__name__, None) is kind


def import_every_class() -> None:
    """Imports each file of the rooms that classes are chosen from, so that short names find them.

    Raises:
        BrokenFile: One of them cannot be imported.
    """
    for package in (src.data, src.models, src.balancing, src.tasks, src.parallel, src.monitoring):
        prefix = package.__name__ + "."
        for module in pkgutil.walk_packages(package.__path__, prefix, onerror=raise_broken):
            try:
                importlib.import_module(module.name)
            except Exception as error:
                folder = getattr(module.module_finder, "path", "")
                file = Path(folder, f"{module.name.rpartition('.')[2]}.py")
                raise BrokenFile(where_broken(error, str(file))) from error


def raise_broken(_: str) -> None:
    """Lets the error of a package come out, which pkgutil would skip in silence.

    Raises:
        BrokenFile: Always.
    """
    error = sys.exc_info()[1]
    assert error is not None
    raise BrokenFile(where_broken(error)) from error
