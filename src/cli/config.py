"""Layers of configuration: YAML files merged deeply, then flags, each knowing where it came from.

The rules, for files and flags alike:

- a later layer changes the keys it names and keeps the others, at any depth;
- a layer that names another class starts from that class's own defaults: no setting of the replaced
  class stays;
- ``data: data/adult.yaml`` inside a file is that file's content, found beside the file that names
  it;
- any other value that starts with ``./`` or ``../`` is a path relative to the file it stands in.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from src.errors import UserError
from src.files.yaml12 import load_as_written

# second spellings of the everyday flags
ALIASES = {
    "devices": "trainer.devices",
    "strategy": "trainer.strategy",
    "accelerator": "trainer.accelerator",
    "num_nodes": "trainer.num_nodes",
    "precision": "trainer.precision",
    "max_epochs": "trainer.max_epochs",
    "fast_dev_run": "trainer.fast_dev_run",
    "overfit_batches": "trainer.overfit_batches",
    "batch_size": "data.batch_size",
    "lr": "model.optimizer.lr",
    "seed": "seed_everything",
}
FLAGS_WITHOUT_VALUE = dict.fromkeys(
    ("trainer.fast_dev_run", "plan", "no_test", "overwrite", "allow_missing", "raw"), "true"
)


class ConfigError(UserError):
    """A configuration that cannot be read; the message is one line for the user."""


def read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Reads a YAML file with the files it refers to.

    Args:
        path: The file.
        above: The files that refer to it, one through the other.

    Raises:
        ConfigError: It does not exist, is no YAML, or no mapping, or refers to itself.
    """
    if path.resolve() in above:
        raise ConfigError(f"config {path}: refers to itself")
    try:
        content = load_as_written(path.read_text())
    except OSError as error:
        raise ConfigError(f"config {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"config {path}: not valid YAML: this is no text in UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(
            f"config {path}{where}: not valid YAML: {getattr(error, 'problem', error)}"
        ) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"config {path}: holds a {type(content).__name__} where a mapping of keys to values is expected"
        )
    files = (*above, path.resolve())
    return {str(key): resolve(value, path.parent, files) for key, value in content.items()}


def resolve(value: Any, folder: Path, files: tuple[Path, ...]) -> Any:
    """Replaces references to files by their content and relative paths by paths that hold from anywhere.

    Args:
        value: Content of a file.
        folder: The folder that the file lies in.
        files: The file, after those that refer to it.
    """
    if isinstance(value, dict):
        return {key: resolve(item, folder, files) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve(item, folder, files) for item in value]
    if isinstance(value, str) and value.endswith((".yaml", ".yml")):
        return read(folder / value, files)
    if isinstance(value, str) and value.startswith(("./", "../")):
        return str((folder / value).resolve())
    return value


def written_out(layer: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A layer in the one form: short and dotted keys written out, the settings of a class below ``init_args``.

    Raises:
        ConfigError: A key cannot be meant as it stands.
    """
    result: dict[str, Any] = {}
    for key, value in layer.items():
        inner = (
            {f"{key}.{name}": item for name, item in value.items() if "." in str(name)}
            if isinstance(value, dict)
            else {}
        )
        rest = (
            {name: item for name, item in value.items() if "." not in str(name)} if inner else value
        )
        for path, item in {key: rest, **inner}.items():
            for part in reversed(ALIASES.get(path, path).split(".")):
                item = {part: item}
            result = merge(result, item)
    return {key: classes_in_form(value, key, where) for key, value in result.items()}


def classes_in_form(tree: Any, key: str, where: str) -> Any:
    """Moves what stands beside a ``class_path`` below ``init_args``."""
    if isinstance(tree, list):
        return [classes_in_form(item, key, where) for item in tree]
    if not isinstance(tree, dict):
        return tree
    for name in tree:
        if name != "class_path" and re.sub("[^a-z]", "", str(name).lower()) in (
            "classpath",
            "class",
            "classname",
        ):
            raise ConfigError(
                f"config {where}: {key} has the key '{name}'; did you mean 'class_path'?"
            )
    inner = tree.get("init_args")
    if inner is not None and not isinstance(inner, dict):
        raise ConfigError(
            f"config {where}: {key} has '{inner}' for its settings, where a mapping of keys to values is expected"
        )
    if "class_path" in tree:
        beside = {
            name: value
            for name, value in tree.items()
            if name not in ("class_path", "init_args", "dict_kwargs")
        }
        tree = {name: value for name, value in tree.items() if name not in beside}
        if beside:
            tree["init_args"] = {**(inner or {}), **beside}
    return {
        n: classes_in_form(v, key if n == "init_args" else f"{key}.{n}", where)
        for n, v in tree.items()
    }


def merge(base: Any, over: Any) -> Any:
    """Returns ``base`` changed by ``over``: mappings key by key, everything else as a whole."""
    if isinstance(base, str) and isinstance(over, dict) and over and "class_path" not in over:
        base = {"class_path": base}  # `sharing: MMoE`, then a layer with its settings alone
    if isinstance(over, str) and isinstance(base, dict) and "class_path" in base:
        over = {"class_path": over}
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    if "class_path" in base and not over.keys() & {"class_path", "init_args", "dict_kwargs"}:
        over = {"init_args": over}  # a class's settings may stand right below it, as in flags
    if (
        "class_path" in base
        and "class_path" in over
        and not same_class(base["class_path"], over["class_path"])
    ):
        return over
    return base | {
        key: merge(base[key], value) if key in base else value for key, value in over.items()
    }


def same_class(ours: str, theirs: str) -> bool:
    """Whether two paths may name one class: MLP and src.models.encoders.MLP, but not mine.MLP."""
    known = ("src", "torch", "lightning")
    packages = {
        path.split(".")[0]
        for path in (ours, theirs)
        if "." in path and path.split(".")[0] not in known
    }
    return ours == theirs or (not packages and ours.rpartition(".")[2] == theirs.rpartition(".")[2])


def keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields every key of a nested mapping, dotted, as one would type it: without ``init_args`` and ``class_path``."""
    for key, value in tree.items():
        skipped = key in ("init_args", "class_path")
        path = prefix if skipped else f"{prefix}.{key}" if prefix else key
        if not skipped:
            yield path
        if isinstance(value, dict):
            yield from keys(value, path)


def classes(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields (name, key) of every class that a nested mapping chooses; other words come along."""
    for key, value in tree.items():
        path = (
            prefix if key in ("init_args", "class_path") else f"{prefix}.{key}" if prefix else key
        )
        if isinstance(value, dict):
            yield from classes(value, path)
        elif isinstance(value, str):
            yield value.rpartition(".")[2], path


def flags(args: list[str]) -> list[tuple[str, str | None]]:
    """Splits a command line into (key, value) pairs, aliases written out; a flag that stands alone has the value None.

    Raises:
        ConfigError: A word that belongs to no flag.
    """
    pairs: list[tuple[str, str | None]] = []
    rest = (
        args[1:] if args[:1] == ["--"] else list(args)
    )  # torchrun takes --run and --logs for its own flags unless -- stands before
    while rest:
        word = rest.pop(0)
        if word in ("-h", "-c"):
            word = {"-h": "--help", "-c": "--config"}[word]
        word = word.replace("-c=", "--config=", 1) if word.startswith("-c=") else word
        if not word.startswith("--"):
            raise ConfigError(f"'{word}' belongs to no flag; flags are written --key value")
        key, equals, value = word[2:].partition("=")
        first, dot, inner = key.partition(".")
        key = ALIASES.get(first, first) + dot + inner
        if equals and not value:
            raise ConfigError(f"--{key} needs a value")
        if equals:
            pairs.append((key, value))
        elif rest and not rest[0].startswith("--") and rest[0] not in ("-h", "-c"):
            pairs.append((key, rest.pop(0)))
        else:
            pairs.append((key, FLAGS_WITHOUT_VALUE.get(key)))
    return pairs


def parents_first(pairs: list[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
    """Orders flags so that a class is chosen before its settings are given, whatever the order on the command line."""
    return sorted(pairs, key=lambda pair: pair[0].count("."))


def task_settings(pairs: list[tuple[str, str | None]], merged: Mapping[str, Any]) -> dict[str, Any]:
    """Joins the flags --data.tasks.<task> KIND and --data.tasks.<task>.<setting> VALUE with what the files say of tasks."""
    data = merged.get("data")
    tasks = dict((data.get("init_args") or {}).get("tasks") or {}) if isinstance(data, dict) else {}
    for key, value in pairs:
        if value is None:
            raise ConfigError(f"--{key} needs a value")
        _, _, task, *setting = key.split(".", 3)
        entry: Any = merge({}, tasks.get(task) or {})
        if isinstance(entry, str):
            entry = {"class_path": entry, "init_args": {}}
        if setting:
            inner = entry.setdefault("init_args", {}) if "class_path" in entry else entry
            inner[setting[0]] = flag_content(key, value)
        elif value.startswith("{"):
            entry = merge(entry, classes_in_form(flag_content(key, value), key, "of flags"))
        else:
            entry = (
                merge(entry, {"class_path": value})
                if "class_path" in entry
                else {"class_path": value, "init_args": entry}
            )
        tasks[task] = entry
    return tasks


def flag_content(key: str, value: str) -> Any:
    """Returns what a flag says in YAML.

    Raises:
        ConfigError: It is none.
    """
    try:
        return load_as_written(value)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"--{key} {value}: not valid YAML: {getattr(error, 'problem', error)}"
        ) from None
