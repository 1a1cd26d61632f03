"""Layers of configuration: YAML files merged deeply, each over the one before.

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

from src.cli.aliases import ALIASES
from src.errors import UserError
from src.files.yaml12 import read_as_written

# what may stand in the choice of a class; all else is a setting of it
OF_A_CLASS = {"class_path", "init_args", "dict_kwargs"}


class ConfigError(UserError):
    """A configuration that cannot be read."""


def read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Reads a YAML file with the files it refers to.

    Args:
        path: The file.
        above: The files that refer to it, one through the other.

    Raises:
        UserError: It does not exist, is no YAML, or no mapping, or refers to itself.
    """
    if path.resolve() in above:
        raise ConfigError(f"config {path}: refers to itself")
    content = read_as_written(path, f"config {path}")
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"config {path}: holds a {type(content).__name__} where a mapping of keys to values is "
            "expected"
        )
    files = (*above, path.resolve())
    return {str(key): resolve(value, path.parent, files) for key, value in content.items()}


def resolve(value: Any, folder: Path, files: tuple[Path, ...]) -> Any:
    """Replaces references to files by their content, and relative paths by absolute ones.

    Args:
        value: Content of a file.
        folder: The folder that the file lies in.
        files: The file, after the files that refer to it.
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


def write_out(layer: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns a layer in one form: keys written out, settings of a class below ``init_args``.

    Args:
        layer: The layer; short and dotted keys may stand in it.
        where: The file that an error names.

    Raises:
        ConfigError: A key cannot be meant as it stands.
    """
    result: dict[str, Any] = {}
    for key, value in layer.items():
        # `model: {encoder.width: 3}` is `model.encoder.width: 3`
        dotted = {}
        if isinstance(value, dict):
            dotted = {name: item for name, item in value.items() if "." in str(name)}
        if dotted:
            value = {name: item for name, item in value.items() if name not in dotted}
        below = {f"{key}.{name}": item for name, item in dotted.items()}

        for path, item in {key: value, **below}.items():
            for part in reversed(ALIASES.get(path, path).split(".")):
                item = {part: item}
            result = merge(result, item)
    return {key: write_out_classes(value, key, where) for key, value in result.items()}


def write_out_classes(tree: Any, key: str, where: str) -> Any:
    """Moves what stands beside a ``class_path`` below ``init_args``.

    Raises:
        ConfigError: A key cannot be meant as it stands.
    """
    if isinstance(tree, list):
        return [write_out_classes(item, key, where) for item in tree]
    if not isinstance(tree, dict):
        return tree
    for name, value in tree.items():
        letters = re.sub("[^a-z]", "", str(name).lower())
        # a task may be named class, and have a weight
        misspelt = letters in ("classpath", "class", "classname") and isinstance(value, str)
        if name != "class_path" and misspelt:
            raise ConfigError(
                f"config {where}: {key} has the key '{name}'; did you mean 'class_path'?"
            )
    inner = tree.get("init_args")
    if inner is not None and not isinstance(inner, dict):
        raise ConfigError(
            f"config {where}: {key} has '{inner}' for its settings, where a mapping of keys to "
            "values is expected"
        )

    if "class_path" in tree:
        beside = {name: value for name, value in tree.items() if name not in OF_A_CLASS}
        tree = {name: value for name, value in tree.items() if name not in beside}
        if beside:
            tree["init_args"] = {**(inner or {}), **beside}
    result = {}
    for name, value in tree.items():
        path = key if name == "init_args" else f"{key}.{name}"
        result[name] = write_out_classes(value, path, where)
    return result


def merge(base: Any, over: Any) -> Any:
    """Returns ``base`` changed by ``over``: mappings key by key, everything else as a whole."""
    if isinstance(base, str) and isinstance(over, dict) and over and "class_path" not in over:
        base = {"class_path": base}  # `sharing: MMoE`, then a layer with its settings alone
    if isinstance(over, str) and isinstance(base, dict) and "class_path" in base:
        over = {"class_path": over}
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    if "class_path" in base and not over.keys() & OF_A_CLASS:
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
    """Returns whether two paths may name one class.

    MLP and src.models.encoders.MLP may; MLP and mine.MLP do not.
    """
    if ours == theirs:
        return True
    for path in (ours, theirs):
        package, dot, _ = path.partition(".")
        if dot and package not in ("src", "torch", "lightning"):
            return False
    return ours.rpartition(".")[2] == theirs.rpartition(".")[2]


def list_keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields every key of nested settings, dotted, as a person types it.

    ``init_args`` and ``class_path`` are left out.
    """
    for key, value in tree.items():
        path = prefix
        if key not in ("init_args", "class_path"):
            path = f"{prefix}.{key}" if prefix else key
            yield path
        if isinstance(value, dict):
            yield from list_keys(value, path)
