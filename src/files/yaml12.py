"""YAML by its version 1.2, where ``NO``, ``on``, ``12:30`` and ``2019-01-01`` are text.

PyYAML reads version 1.1, which takes ``NO`` for false and ``12:30`` for 750. In version 1.2 (core
schema) ``true``, ``false`` and ``null`` are the only words that are not text, and a number is one
in the usual forms: ``12``, ``0o17``, ``0xff``, ``1.5``, ``1e-3``, ``.inf``, ``.nan``.
"""

import re
from pathlib import Path
from typing import Any, Self

import yaml

from src.errors import UserError

TAG = "tag:yaml.org,2002:"
# a file of a few kilobytes may stand for more than a memory holds, or refer to itself
MOST_CHARACTERS = 2_000_000
MOST_VALUES = 200_000  # an alias counts as the values that it stands for
DEEPEST = 100  # levels of nesting
# scalars that are not text: tag, form, and the characters that it may begin with
FORMS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
)


class Loader(yaml.SafeLoader):
    """Reads YAML 1.2; refuses mappings with a key twice, and texts that grow without bounds."""

    yaml_implicit_resolvers = {}  # without the ones of version 1.1

    def __init__(self, stream: Any) -> None:
        if isinstance(stream, str) and len(stream) > MOST_CHARACTERS:
            most = f"{MOST_CHARACTERS:,}"
            raise TooMuch(problem=f"holds {len(stream):,} characters, where {most} are allowed")
        super().__init__(stream)

    def get_single_node(self) -> yaml.Node | None:
        """Reads the nodes, and counts their values before any is built."""
        try:
            node = super().get_single_node()
        except RecursionError:
            raise TooMuch(problem=f"is nested deeper than {DEEPEST} levels") from None
        if node is not None:
            count_values(node, {}, [])
        return node


class TooMuch(yaml.MarkedYAMLError):
    """A text that would be too large once it is read."""


def count_values(node: yaml.Node, known: dict[int, int], above: list[int]) -> int:
    """Returns the number of values that a node stands for, itself among them.

    Args:
        node: The node.
        known: The counts of nodes that were counted already, so that an alias is not walked again.
        above: The nodes that hold this one, outermost first.

    Raises:
        TooMuch: They are too many, too deeply nested, or the node holds itself.
    """
    if id(node) in above:
        raise TooMuch(problem="refers to itself", problem_mark=node.start_mark)
    if id(node) in known:
        return known[id(node)]
    if len(above) > DEEPEST:
        problem = f"is nested deeper than {DEEPEST} levels"
        raise TooMuch(problem=problem, problem_mark=node.start_mark)
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        inner = [child for pair in node.value for child in pair]
    elif isinstance(node, yaml.SequenceNode):
        inner = node.value
    total = 1
    for child in inner:
        total += count_values(child, known, [*above, id(node)])
        if total > MOST_VALUES:
            problem = f"stands for more than {MOST_VALUES:,} values"
            raise TooMuch(problem=problem, problem_mark=node.start_mark)
    known[id(node)] = total
    return total


class Dumper(yaml.SafeDumper):
    """Writes YAML in which text that either version would take for something else is quoted."""


class _Remembering:
    """Mixin of numbers that know how they were written."""

    text: str

    def __new__(cls, value: Any, text: str = "") -> Self:
        number = super().__new__(cls, value)  # type: ignore[call-arg]  # of int or float
        number.text = text or str(value)
        return number


class Int(_Remembering, int):
    """A whole number that knows how it was written, such as 012."""


class Float(_Remembering, float):
    """A number that knows how it was written, such as 1e3."""


class Bool(_Remembering, int):
    """True or false that knows how it was written, such as TRUE; no class can be made of bool."""


Written = Int | Float | Bool


class RememberingLoader(Loader):
    """Reads numbers and truths that know how they were written, and each key as text."""


for name, form, first in FORMS:
    for kind in (Loader, Dumper):
        kind.add_implicit_resolver(TAG + name, re.compile(f"^(?:{form})$"), first)
RememberingLoader.yaml_implicit_resolvers = Loader.yaml_implicit_resolvers


def parse_integer(text: str) -> int:
    """Returns a whole number written in base 10, 8 (0o17) or 16 (0xff)."""
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def read_mapping(loader: Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    """Reads a mapping, and refuses a key that is there twice: YAML would keep the last silently."""
    seen: set[Any] = set()
    for key, _ in node.value:
        if key.value in seen and key.tag != f"{TAG}merge":
            problem = f"the key '{key.value}' stands there twice"
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        seen.add(key.value)
    loader.flatten_mapping(node)
    # the name of a setting is text, whatever it looks like
    if isinstance(loader, RememberingLoader):
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = f"{TAG}str"
    return loader.construct_mapping(node, deep=True)


def read_int(loader: Loader, node: yaml.ScalarNode) -> Int:
    """Reads a whole number together with its text."""
    return Int(parse_integer(node.value), node.value)


def read_float(loader: Loader, node: yaml.ScalarNode) -> Float:
    """Reads a number together with its text."""
    return Float(loader.construct_yaml_float(node), node.value)


def read_bool(loader: Loader, node: yaml.ScalarNode) -> Bool:
    """Reads true or false together with its text."""
    return Bool(node.value.lower() == "true", node.value)


Loader.add_constructor(f"{TAG}int", lambda loader, node: parse_integer(node.value))
Loader.add_constructor(f"{TAG}map", read_mapping)
RememberingLoader.add_constructor(f"{TAG}bool", read_bool)
RememberingLoader.add_constructor(f"{TAG}int", read_int)
RememberingLoader.add_constructor(f"{TAG}float", read_float)


def load(text: str) -> Any:
    """Reads YAML text into plain values."""
    return yaml.load(text, Loader)


def load_as_written(text: str) -> Any:
    """Reads YAML text into values that know how they were written."""
    return yaml.load(text, RememberingLoader)


def read_as_written(source: Path | str, where: str) -> Any:
    """Reads a YAML file, or YAML text, of a user into values that know how they were written.

    Args:
        source: The file, or the text.
        where: Words that name it in a message.

    Raises:
        UserError: It cannot be read, or is no YAML; the message names the line.
    """
    try:
        text = source.read_text() if isinstance(source, Path) else source
        return load_as_written(text)
    except OSError as error:
        raise UserError(f"{where}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{where}: not valid YAML: this is no text in UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", error)
        raise UserError(f"{where}{line}: not valid YAML: {reason}") from None


def dump(content: Any) -> str:
    """Writes plain values as YAML that versions 1.1 and 1.2 read alike."""
    return yaml.dump(
        content, Dumper=Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False
    )
