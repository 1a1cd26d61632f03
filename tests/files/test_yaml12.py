"""YAML 1.2: what is a number, and what is text; each knows how it was written."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from src.files.yaml12 import Bool, Float, Int, dump, load, load_as_written

# by the tables of the core schema (yaml.org/spec/1.2.2, section 10.3.2)
MEANT = {
    **{word: word for word in ("NO", "no", "yes", "Yes", "on", "OFF", "y", "N", "=", "nULL")},
    **{word: word for word in ("12:30", "08:30:05", "2019-01-01", "2019-01-01 10:00", "1_000")},
    **{word: word for word in ("0b11", "0x", "0o8", "1e", "e3", ".", "+", "1.2.3", "inf", "NaN")},
    **{"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False},
    **{"null": None, "Null": None, "NULL": None, "~": None},
    **{"0": 0, "012": 12, "-7": -7, "+5": 5, "0o17": 15, "0xFf": 255, "2019": 2019},
    **{
        "1e3": 1000.0,
        "1e-3": 0.001,
        "1.": 1.0,
        ".5": 0.5,
        "-.5E+2": -50.0,
        ".inf": math.inf,
        "-.INF": -math.inf,
    },
}


@pytest.mark.parametrize("written", MEANT)
def test_a_word_is_what_version_12_says(written: str) -> None:
    for value in (load(f"[{written}]")[0], load(f"a: {written}")["a"], load_as_written(written)):
        assert value == MEANT[written]
        assert isinstance(value, Bool | type(MEANT[written]))
    assert load(f"'{written}'") == load_as_written(f'"{written}"') == written


@pytest.mark.parametrize(
    "written", ["012", "+5", "0o17", "1e3", ".50", "1.", "True", "false", "0", ".nan"]
)
def test_a_value_knows_how_it_was_written(written: str) -> None:
    value = load_as_written(written)
    assert isinstance(value, Int | Float | Bool)
    assert value.text == copy.deepcopy(value).text == written


def test_keys_are_text_as_written() -> None:
    content = load_as_written("{NO: 1, 012: 2, 1e3: 3, true: 4, null: 5, 12:30: 6, '7': 7}")
    assert list(content) == ["NO", "012", "1e3", "true", "null", "12:30", "7"]
    with pytest.raises(yaml.YAMLError, match="'no' stands there twice"):
        load_as_written("{no: 1, no: 2}")


@pytest.mark.parametrize(
    "text", [*MEANT, "y", "0b11", "190:20:30", "", "a: b", "- a", "é", "😀", "#", "{", " x "]
)
def test_what_is_dumped_is_text_to_either_version(text: str) -> None:
    content = {"list": [text], text: text}
    assert load(dump(content)) == yaml.safe_load(dump(content)) == content
    assert load_as_written(dump(content)) == content


def test_numbers_come_back_from_a_dump() -> None:
    content = [0, -7, 12, 0.5, 1e-3, 1e30, math.inf, True, None]
    assert load(dump(content)) == content


def aliases(levels: int, first: str = "[x]", form: str = "[{}]") -> str:
    """Values that each hold nine times the one before."""
    lines = [f"a0: &a0 {first}"]
    for level in range(1, levels):
        inner = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} {form.format(inner)}")
    return "\n".join(lines)


UNBOUNDED = {
    "aliases of aliases": (aliases(9), "stands for more than"),
    "merges of merges": (aliases(9, "{x: 1}", "{{<<: [{}]}}"), "stands for more than"),
    "itself in a list": ("a: &a [*a]", "refers to itself"),
    "itself in a mapping": ("a: &a {b: {c: *a}}", "refers to itself"),
    "lists in lists": ("a: " + "[" * 100_000, "deeper than 100 levels"),
    "lists in closed lists": ("a: " + "[" * 200 + "]" * 200, "deeper than 100 levels"),
    "mappings in mappings": ("{a: " * 150 + "1" + "}" * 150, "deeper than 100 levels"),
    "a long text": ("x" * 3_000_000, "3,000,000 characters"),
}


@pytest.mark.parametrize("name", UNBOUNDED)
@pytest.mark.parametrize("reads", [load, load_as_written])
def test_texts_without_bounds_are_refused(name: str, reads: Callable[[str], Any]) -> None:
    text, says = UNBOUNDED[name]
    with pytest.raises(yaml.YAMLError, match=says):
        reads(text)


def test_aliases_within_bounds_are_read() -> None:
    assert load("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}") == {
        "a": {"x": 1},
        "b": {"x": 1},
        "c": {"x": 1, "y": 2},
    }
    assert len(load(aliases(4))["a3"]) == 9
