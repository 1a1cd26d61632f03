"""Checks what the configuration of a run folder names: the folder may come from a stranger.

A configuration is as good as code: the parser imports what a class path names and calls it. So each
class path of a run folder is looked at before anything is imported or called. It must be a class,
of the kind that its key expects, from a trusted package: this project, torch, lightning,
torchmetrics, pytorch_optimizer, and the packages of ``--trust``. Nothing in the folder itself is
imported.
"""

import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from src.cli.configuration import TYPES
from src.cli.hints import (
    Hints,
    bases,
    below,
    elements,
    find_by_name,
    is_choice,
    known_kinds,
    settings_of,
)
from src.cli.layers import ConfigError

PACKAGES = ("src", "tests", "torch", "lightning", "torchmetrics", "pytorch_optimizer")
PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")  # of a class, or the name of one
# settings that say where to write
PLACE = re.compile(r"(^|_)(dir|path|root|folder|uri|url)|(dir|path)$")


class Trust:
    """Looks at the configuration of a run folder.

    Args:
        folder: The run folder.
        packages: Packages whose classes the folder may name, besides ``PACKAGES``.
    """

    def __init__(self, folder: Path, packages: Sequence[str] = ()) -> None:
        self.folder = folder
        self.packages = (*PACKAGES, *packages)

    def check(self, config: Mapping[str, Any]) -> None:
        """Looks at each value of a configuration, as the folder has it.

        Raises:
            ConfigError: A value would run code, or write outside of the folder.
        """
        self._refuse_odd_keys(config, "")
        for key, value in config.items():
            hints = TYPES.get(key, ())
            # the class of the model, or of the trainer, is not chosen
            if isinstance(value, dict) and "class_path" not in value and hints:
                self._settings(value, hints[0], key)
            else:
                self._value(value, hints, key)
        self._refuse_places(config.get("trainer"), "trainer")

    def _value(self, value: Any, hints: Hints, key: str) -> None:
        if isinstance(value, list):
            inner = tuple(member for hint in hints for member in elements(hint))
            for place, item in enumerate(value):
                self._value(item, inner, f"{key}[{place}]")
        elif isinstance(value, dict) and "class_path" in value:
            self._choice(value, hints, key)
        elif isinstance(value, dict):
            for name, item in value.items():
                self._value(item, below(hints, {}, str(name)), f"{key}.{name}")
        elif isinstance(value, str):
            self._text(value, hints, key)

    def _choice(self, value: dict[str, Any], hints: Hints, key: str) -> None:
        """Looks at the choice of a class, and at its settings."""
        kind = self._find(value["class_path"], hints, key)
        beside = value.keys() - {"class_path", "init_args", "dict_kwargs"}
        if beside:
            raise self._refusal(key, f"has '{min(map(str, beside))}' beside its class_path")
        for settings in (value.get("init_args"), value.get("dict_kwargs")):
            if isinstance(settings, dict):
                self._settings(settings, kind, key)
            elif settings is not None:
                raise self._refusal(
                    key, f"has '{shown(settings)}' where a mapping of settings is expected"
                )

    def _settings(self, settings: dict[str, Any], kind: Any, key: str) -> None:
        self._refuse_odd_keys(settings, key)
        known = settings_of(kind)
        for name, value in settings.items():
            self._value(value, known.get(name, ()), f"{key}.{name}")

    def _refuse_odd_keys(self, settings: Mapping[str, Any], key: str) -> None:
        """Refuses what the parser would read as something else than the name of a setting."""
        for name in settings:
            if not str(name).isidentifier() or str(name).startswith("__"):
                raise self._refusal(f"{key}.{name}".lstrip("."), "is not the name of a setting")

    def _text(self, value: str, hints: Hints, key: str) -> None:
        """Looks at text that the parser might take for the path of a class, or for settings."""
        # the parser imports what has dots in it, and reads settings from text in brackets and from
        # files
        is_plain = "." not in value and value[:1] not in ("[", "{") and not is_file(value)
        if is_choice(hints):
            if not (str in hints and is_plain):  # ddp is the name of a strategy
                self._find(value, hints, key)
        elif not is_plain and (not hints or any(map(asks_for_code, hints))):
            raise self._refusal(key, f"is '{shown(value)}', which might be taken for code")

    def _find(self, path: Any, hints: Hints, key: str) -> type:
        """Returns the class of a path, which is imported only where it is trusted.

        Raises:
            ConfigError: It is no class, none of the kind that the key expects, or not trusted.
        """
        expected = [base for hint in hints for base in bases(hint)]
        if not expected:
            raise self._refusal(key, f"names the class {shown(path)}, where no class is expected")
        if not isinstance(path, str) or not PATH.fullmatch(path):
            raise self._refusal(key, f"is '{shown(path)}', where the path of a class is expected")
        named = find_by_name(path, known_kinds(hints))
        kind = named[0] if named else self._imported(path, key)
        if not inspect.isclass(kind):
            raise self._refusal(key, f"names {path}, which is no class")
        if not issubclass(kind, tuple(expected)):
            kinds_expected = " or ".join(base.__name__ for base in expected)
            raise self._refusal(key, f"names {path}, which is no {kinds_expected}")
        if kind.__module__.partition(".")[0] not in self.packages:
            raise self._distrust(kind.__module__, path, key)
        return kind

    def _imported(self, path: str, key: str) -> Any:
        """Returns the object of a path.

        Its modules are looked for one by one before each is imported.
        """
        *modules, name = path.split(".")
        if not modules:
            raise self._refusal(key, f"names the unknown class {path}")
        if modules[0] not in self.packages:
            raise self._distrust(modules[0], path, key)
        for length in range(1, len(modules) + 1):
            module = ".".join(modules[:length])
            spec = find_spec(module) if is_package(modules[: length - 1]) else None
            if spec is None or modules[length - 1].startswith("__"):
                raise self._refusal(key, f"names {path}, but there is no module {module}")
            if any(place.is_relative_to(self.folder.resolve()) for place in places_of(spec)):
                raise self._refusal(key, f"names {path}, which lies in the run folder")
            import_module(module)
        return getattr(sys.modules[".".join(modules)], name, None)

    def _distrust(self, module: str, path: str, key: str) -> ConfigError:
        package = module.partition(".")[0]
        way_out = f"; if you know it, add --trust {package}"
        if package in sys.stdlib_module_names:
            way_out = ""
        known = ", ".join(self.packages)
        text = f"names {path}; a run folder may name classes of {known} alone{way_out}"
        return self._refusal(key, text)

    def _refuse_places(self, tree: Any, key: str) -> None:
        """Refuses places outside of the run folder, where a logger or a callback would write."""
        if isinstance(tree, dict):
            for name, value in tree.items():
                path = key if name in ("class_path", "init_args") else f"{key}.{name}"
                if isinstance(value, str) and name != "class_path":
                    self._refuse_place(str(name), value, path)
                self._refuse_places(value, path)
        elif isinstance(tree, list):
            for place, item in enumerate(tree):
                self._refuse_places(item, f"{key}[{place}]")

    def _refuse_place(self, name: str, value: str, key: str) -> None:
        leads_away = value.startswith(("/", "~")) or ".." in Path(value).parts or "://" in value
        if not leads_away and not PLACE.search(name):
            return
        if not Path(value).resolve().is_relative_to(self.folder.resolve()):
            raise self._refusal(key, f"is {value}, which lies outside of the run: set it by a flag")

    def _refusal(self, key: str, text: str) -> ConfigError:
        return ConfigError(f"run folder {self.folder}: {key} {text}")


def asks_for_code(hint: Any) -> bool:
    """Returns whether a value of this type may be a class or a function, itself or within."""
    if hint in (Callable, type) or get_origin(hint) in (Callable, type):
        return True
    if isinstance(hint, TypeVar | str):  # nobody knows
        return True
    if is_choice((hint,)):
        return True
    return any(asks_for_code(part) for part in get_args(hint) if not isinstance(part, str | int))


def shown(value: Any) -> str:
    """Returns a value as text, as much of it as fits into a line."""
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:30]}..."


def is_file(text: str) -> bool:
    """Returns whether text names a file."""
    with suppress(OSError, ValueError):  # too long for a name, or a null in it
        return Path(text).is_file()
    return False


def is_package(modules: Sequence[str]) -> bool:
    """Returns whether other modules may lie in a module, which has been imported."""
    return not modules or hasattr(sys.modules[".".join(modules)], "__path__")


def places_of(spec: ModuleSpec) -> list[Path]:
    """Returns the places that a module is read from."""
    places = list(spec.submodule_search_locations or ())
    if spec.origin and spec.has_location:
        places.append(spec.origin)
    return [Path(place).resolve() for place in places]
