"""YAML as its version 1.2 has it: ``NO``, ``on``, ``12:30`` and ``2019-01-01`` are text.

PyYAML reads version 1.1, which takes ``NO`` for false and ``12:30`` for 750. In version 1.2 (core
schema) ``true``, ``false`` and ``null`` are the only words that are not text, and a number is one
in the usual forms: ``12``, ``0o17``, ``0xff``, ``1.5``, ``1e-3``, ``.inf``, ``.nan``.
"""

import re
from typing import Any

import yaml

TAG = "tag:yaml.org,2002:"
# a file of a few kilobytes may stand for more than a memory holds, or refer to itself
MOST_CHARACTERS = 2_000_000
MOST_VALUES = 200_000  # each alias counted as all that it stands for
DEEPEST = 100  # levels of nesting
# of each kind that is not text: its form, and the characters that it may begin with
FORMS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
)


class Loader(yaml.SafeLoader):
    """Reads YAML 1.2, and refuses a mapping that holds a key twice, and texts without bounds."""

    yaml_implicit_resolvers = {}  # none of version 1.1

    def __init__(self, stream: Any) -> None:
        if isinstance(stream, str) and len(stream) > MOST_CHARACTERS:
            most = f"{MOST_CHARACTERS:,}"
            raise TooMuch(problem=f"holds {len(stream):,} characters, where {most} are allowed")
        super().__init__(stream)

    def get_single_node(self) -> yaml.Node | None:
        """Reads the nodes, and counts them before values are made of them."""
        try:
            node = super().get_single_node()
        except RecursionError:
            raise TooMuch(problem=f"is nested deeper than {DEEPEST} levels") from None
        if node is not None:
            count(node, {}, [])
        return node


class TooMuch(yaml.MarkedYAMLError):
    """A text that would be too large once it is read."""


def count(node: yaml.Node, known: dict[int, int], above: list[int]) -> int:
    """Returns the number of values that a node stands for, itself among them.

    Args:
        node: The node.
        known: The counts of nodes that were counted already, so that an alias is not walked again.
        above: The nodes that this one lies in.

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
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        parts = node.value
    total = 1
    for part in parts:
        total += count(part, known, [*above, id(node)])
        if total > MOST_VALUES:
            problem = f"stands for more than {MOST_VALUES:,} values"
            raise TooMuch(problem=problem, problem_mark=node.start_mark)
    known[id(node)] = total
    return total


class Dumper(yaml.SafeDumper):
    """Writes YAML in which text that either version would take for something else is quoted."""


class Int(int):
    """A whole number that knows how it was written, such as 012."""

    text: str

    def __new__(cls, value: int, text: str = "") -> "Int":
        number = super().__new__(cls, value)
        number.text = text or str(value)
        return number


class Float(float):
    """A number that knows how it was written, such as 1e3."""

    text: str

    def __new__(cls, value: float, text: str = "") -> "Float":
        number = super().__new__(cls, value)
        number.text = text or str(value)
        return number


class Bool(int):
    """True or false that knows how it was written, such as TRUE; no class can be made of bool."""

    text: str

    def __new__(cls, value: bool, text: str = "") -> "Bool":
        truth = super().__new__(cls, value)
        truth.text = text or str(value)
        return truth


Written = Int | Float | Bool


class RememberingLoader(Loader):
    """Reads numbers and truths that know how they were written, and each key as text."""


for name, form, first in FORMS:
    for kind in (Loader, Dumper):
        kind.add_implicit_resolver(TAG + name, re.compile(f"^(?:{form})$"), first)
RememberingLoader.yaml_implicit_resolvers = Loader.yaml_implicit_resolvers


def integer(text: str) -> int:
    """Returns a whole number written in base 10, 8 (0o17) or 16 (0xff)."""
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def mapping(loader: Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    """Reads a mapping in which no key stands twice: YAML would keep the last one silently."""
    seen: set[Any] = set()
    for key, _ in node.value:
        if key.value in seen and key.tag != f"{TAG}merge":
            problem = f"the key '{key.value}' stands there twice"
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        seen.add(key.value)
    loader.flatten_mapping(node)
    if isinstance(loader, RememberingLoader):
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = f"{TAG}str"
    return loader.construct_mapping(node, deep=True)


def remembered_int(loader: Loader, node: yaml.ScalarNode) -> Int:
    """Reads a whole number together with its text."""
    return Int(integer(node.value), node.value)


def remembered_float(loader: Loader, node: yaml.ScalarNode) -> Float:
    """Reads a number together with its text."""
    return Float(loader.construct_yaml_float(node), node.value)


def remembered_bool(loader: Loader, node: yaml.ScalarNode) -> Bool:
    """Reads true or false together with its text."""
    return Bool(node.value.lower() == "true", node.value)


Loader.add_constructor(f"{TAG}int", lambda loader, node: integer(node.value))
Loader.add_constructor(f"{TAG}map", mapping)
RememberingLoader.add_constructor(f"{TAG}bool", remembered_bool)
RememberingLoader.add_constructor(f"{TAG}int", remembered_int)
RememberingLoader.add_constructor(f"{TAG}float", remembered_float)


def load(text: str) -> Any:
    """Reads YAML text into plain values."""
    return yaml.load(text, Loader)


def load_as_written(text: str) -> Any:
    """Reads YAML text into values that know how they were written."""
    return yaml.load(text, RememberingLoader)


def dump(content: Any) -> str:
    """Writes plain values as YAML that versions 1.1 and 1.2 read alike."""
    return yaml.dump(
        content, Dumper=Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False
    )
