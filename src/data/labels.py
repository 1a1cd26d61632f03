"""Target columns: which kind of task each becomes, and why."""

from __future__ import annotations

import inspect
from importlib import import_module
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from src.data.columns import numeric_share
from src.data.reading import nearest
from src.tasks import BinaryClassification, Classification, MultilabelClassification, Regression, Task
from src.tasks.task import Label, distinct

if TYPE_CHECKING:
    import pandas as pd

FEW_NUMBERS = 10  # whole numbers with at most this many values are classes
MOST_CLASSES = 200  # words with more values are free text, not classes


def label_values(frame: pd.DataFrame, columns: list[str], single: bool) -> np.ndarray:
    """Labels as a task takes them: (N,) or (N, L), floats with NaN where all are numbers, else objects with None."""
    import pandas as pd

    part = frame[columns]
    if all(pd.api.types.is_numeric_dtype(part[c]) and not pd.api.types.is_bool_dtype(part[c]) for c in columns):
        values = part.to_numpy(dtype=np.float64, na_value=np.nan)
        whole = np.isnan(values) | (values == np.floor(np.nan_to_num(values, posinf=0.5, neginf=0.5)))
        if single and whole.all():  # classes named 3, not 3.0
            values = np.array([[None if np.isnan(v) else int(v) for v in row] for row in values], dtype=object)
    else:
        values = part.astype(object).where(part.notna(), None).to_numpy(dtype=object)
        values = np.array([[v.item() if isinstance(v, np.generic) else v for v in row] for row in values], dtype=object)
    return values[:, 0] if single else values


def infer_kind(values: np.ndarray, frame: pd.DataFrame, columns: list[str]) -> tuple[type[Task], str]:
    """Says which kind of task a target is, and the reason.

    Raises:
        ValueError: The values fit no kind.
    """
    if values.ndim > 1:
        found = distinct(values)
        if set(found) <= {0, 1}:
            return MultilabelClassification, f"{len(columns)} columns of 0 and 1"
        if all(numeric_share(frame[c]) == 1.0 for c in columns):
            return Regression, f"{len(columns)} columns of numbers"
        raise ValueError("the columns are neither all 0 and 1 (multi-label) nor all numbers (vector regression)")
    found = distinct(values)
    if len(found) == 1:
        raise ValueError(f"has the single value '{found[0]}' in the training split; there is nothing to learn")
    if len(found) == 2:
        return BinaryClassification, f"two values: {found[0]}, {found[1]}"
    if all(isinstance(v, int | float) for v in found):
        if len(found) <= FEW_NUMBERS and all(isinstance(v, int) for v in found):
            return Classification, f"{len(found)} whole numbers: {shown(found)}"
        return Regression, f"{len(found)} different numbers"
    if len(found) > MOST_CLASSES:
        raise ValueError(f"has {len(found)} different texts, too many for classes; set its kind in data.tasks")
    return Classification, f"{len(found)} values: {shown(found)}"


def shown(values: tuple[Label, ...]) -> str:
    """The first few of many."""
    return ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")


def declared(given: Any) -> tuple[type[Task] | None, dict[str, Any]]:
    """Reads what was set by hand for a task: the name of a kind, settings, or both as {class_path, init_args}.

    Raises:
        ValueError: No such kind is known, or the form is another one.
    """
    if isinstance(given, type) and issubclass(given, Task):
        return given, {}
    if isinstance(given, str):
        return kind_named(given), {}
    if not isinstance(given, dict):
        raise ValueError(f"is set to {given!r}, where the name of a kind or settings are expected")
    settings = {key: value for key, value in given.items() if key not in ("class_path", "init_args")} | given.get("init_args", {})
    return kind_named(given["class_path"]) if "class_path" in given else None, settings


def kind_named(name: str) -> type[Task]:
    """The task kind of this class name or class path; of two with one name, ours."""
    kinds = {kind.__name__: kind for kind in sorted(all_kinds(Task), key=lambda kind: kind.__module__.startswith("src."))}
    module, _, short = name.rpartition(".")
    try:
        kind = getattr(import_module(module), short) if module else kinds[short]
    except (ImportError, AttributeError, KeyError):
        kind = None
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise ValueError(f"is set to the unknown kind '{name}': {nearest(short, kinds)}")
    return kind


def with_settings(kind: Any, settings: dict[str, Any]) -> Task:
    """Builds a task of a kind with settings given by hand.

    Raises:
        ValueError: The kind has no such setting, or it cannot have that value.
    """
    types = get_type_hints(kind)
    known = list(inspect.signature(kind).parameters)
    for key, given in settings.items():
        if key not in known:
            raise ValueError(f"has no setting '{key}' as a {kind.__name__}: {nearest(key, known)}")
        if not fits(given, types[key]):
            raise ValueError(f"has the setting {key} '{given}', where {' or '.join(expected(types[key]))} is expected")
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()})
    except TypeError as error:
        raise ValueError(f"cannot be built as a {kind.__name__}: {error}") from None


def fits(value: Any, kind: Any) -> bool:
    """Whether a value as YAML has it is of a type; lists are tuples there."""
    if get_origin(kind) in (Union, UnionType):
        return any(fits(value, option) for option in get_args(kind))
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, list | tuple) and all(fits(item, get_args(kind)[0]) for item in value)
    if kind is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(kind, type) or isinstance(value, kind)


def expected(kind: Any) -> list[str]:
    """A type in words, an entry for each of several."""
    if get_origin(kind) in (Union, UnionType):
        return list(dict.fromkeys(word for option in get_args(kind) for word in expected(option)))
    if get_origin(kind) is Literal:
        return [", ".join(map(str, get_args(kind)))]
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "a word", tuple: "a list", NoneType: "null"}
    return [words.get(get_origin(kind) or kind, str(kind))]


def task_from_plain(values: dict[str, Any]) -> Task:
    """The task that ``Task.describe`` wrote down."""
    return with_settings(kind_named(values["kind"]), {key: value for key, value in values.items() if key != "kind"})


def all_kinds(base: Any) -> list[type[Task]]:
    """Every task kind that is known."""
    return [kind for child in base.__subclasses__() for kind in (child, *all_kinds(child))]
