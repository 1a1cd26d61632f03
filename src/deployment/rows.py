"""Rows as people write them: checks, and the texts and tensors that a model's graph reads.

This file stands beside an exported model and needs numpy alone. schema.json says of each input how
its numbers are written, its words, the format of its dates or the shape of its numbers.
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import numpy as np

FARTHEST = 1e9  # standard deviations from the mean of the training rows
PARTS = ("year", "month", "day", "hour")
SHOWN = 60  # characters of a wrong value
# what an input of each kind must say besides its name
FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "number": {
        **dict.fromkeys(("decimal", "thousands", "unit", "written"), str),
        **{"truth": bool, "mean": (int, float), "std": (int, float), "indicator": bool},
        **{"missing": list, "missing_lower": list},
    },
    "word": {"vocabulary": list, "missing": list, "missing_is_word": bool},
    "date": {"format": str, "parts": list, "missing": list, "missing_lower": list},
    "tensor": {"dtype": str, "shape": list, "range": list},
}
PLAIN = {"decimal": ".", "thousands": "", "unit": "", "truth": False}
WHOLE = re.compile(r"^(?:\+(?=\d))?(-?(?:0|[1-9]\d*))(?:\.0+)?$")
DTYPES = ("float32", "int64", "uint8", "bool")


class BadRows(Exception):
    """Rows that cannot be right; ``lines`` has a sentence for each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(*lines)
        self.lines = lines


def check_schema(schema: Any) -> dict[str, Any]:
    """Returns a schema whose inputs all are of a known form; raises ValueError."""
    inputs = schema.get("inputs") if isinstance(schema, dict) else None
    if not isinstance(inputs, list) or schema.get("format") != 1:
        raise ValueError("schema.json is of no export, or of another version")
    for entry in inputs:
        kind = entry.get("kind") if isinstance(entry, dict) else None
        fields = FIELDS.get(kind) if isinstance(kind, str) else None
        if fields is None or not isinstance(entry.get("name"), str):
            raise ValueError("schema.json has an input without a name or of an unknown kind")
        for key, wanted in fields.items():
            if not isinstance(entry.get(key), wanted):
                raise ValueError(f"schema.json: the input '{entry['name']}' lacks its {key}")
        if kind == "tensor" and (entry["dtype"] not in DTYPES or len(entry["range"]) != 2):
            raise ValueError(f"schema.json: the input '{entry['name']}' has an unknown type")
        if kind == "date" and not set(entry["parts"]) <= {*PARTS, "day_of_week"}:
            raise ValueError(f"schema.json: the input '{entry['name']}' has an unknown part")
    return schema


def list_feeds(schema: dict[str, Any]) -> list[str]:
    """Returns the names of the inputs of the graph: a date has one for each of its parts."""
    names = []
    for entry in schema["inputs"]:
        parts = entry["parts"] if entry["kind"] == "date" else [None]
        names += [f"{entry['name']}.{part}" if part else entry["name"] for part in parts]
    return names


def encode_rows(schema: dict[str, Any], rows: list[Any]) -> dict[str, list[Any]]:
    """Returns {input of the graph: a text or an array of each row}.

    Raises:
        BadRows: Rows cannot be right; there is a line for each.
    """
    feeds: dict[str, list[Any]] = {name: [] for name in list_feeds(schema)}
    wrong = []
    for number, row in enumerate(rows):
        try:
            for name, value in encode_row(schema, row).items():
                feeds[name].append(value)
        except ValueError as error:
            wrong.append(f"row {number}: {error}")
    if wrong:
        raise BadRows(wrong)
    return feeds


def encode_row(schema: dict[str, Any], row: Any) -> dict[str, Any]:
    """Returns a row's texts and tensors; raises ValueError with the column and what is right."""
    if not isinstance(row, dict):
        raise ValueError("is no object with a value for each column")
    found: dict[str, Any] = {}
    for entry in schema["inputs"]:
        if entry["name"] not in row:
            raise ValueError(f"lacks the column '{entry['name']}'; null says that it is missing")
        try:
            found |= ENCODERS[entry["kind"]](entry, row[entry["name"]])
        except ValueError as error:
            shown = str(row[entry["name"]])
            shown = shown if len(shown) <= SHOWN else shown[:SHOWN] + "..."
            raise ValueError(f"column '{entry['name']}' holds '{shown}': {error}") from None
    return found


def to_text(value: Any) -> str:
    """Returns a number, a text or null as text; '' where it is missing."""
    if isinstance(value, dict | list):
        raise ValueError("a number, a text or null is expected")
    if value is None or value != value:
        return ""
    return str(value).strip()


def is_missing(entry: dict[str, Any], text: str) -> bool:
    """Returns whether a text means that the value is missing."""
    return text in entry["missing"] or text.lower() in entry.get("missing_lower", ())


def encode_number(entry: dict[str, Any], value: Any) -> dict[str, str]:
    """Returns a number as the graph reads it: as the texts of the training rows are written."""
    text = to_text(int(value) if isinstance(value, bool) else value)
    if isinstance(value, float):
        # a number of JSON is none of the column's texts
        text = text.replace(".", entry["decimal"])
    elif not is_plain(entry):
        text = normalise_marks(text)
    if is_missing(entry, text):
        return {entry["name"]: ""}
    wanted = f"a number is expected{entry['written']}"
    flags = re.ASCII | re.IGNORECASE if entry["truth"] else re.ASCII
    if not re.fullmatch(number_pattern(entry), text, flags):
        raise ValueError(wanted)
    if not entry["truth"]:
        mean, std = entry["mean"], entry["std"]
        if abs(read_number(entry, text) - mean) > FARTHEST * std:
            raise ValueError(f"{wanted} near those of training, {mean:.3g} +- {std:.3g}")
    return {entry["name"]: text}


def number_pattern(entry: dict[str, Any]) -> str:
    """Returns a regular expression for the numbers of a column, with their unit."""
    if entry["truth"]:
        return r"true|false|[01](?:\.0)?"
    decimal, thousands, unit = (re.escape(entry[k]) for k in ("decimal", "thousands", "unit"))
    # no group of thousands begins with 0: 0,942 has decimals
    whole = rf"(?:[1-9]\d{{0,2}}(?:{thousands}\d{{3}}){{1,12}}|\d+)" if thousands else r"\d+"
    number = rf"(?:{whole}(?:{decimal}\d*)?|{decimal}\d+)(?:[eE][-+]?\d+)?"
    if is_plain(entry):
        return f"[-+]?{number}"
    if unit:
        before = rf"(?:[-+]? {{0,3}}(?:{unit} {{0,3}})?|{unit} {{0,3}}[-+])"
        return rf"{before}{number}(?: {{0,3}}{unit})?|\((?:{unit} ?)?{number}(?: ?{unit})?\)"
    return rf"[-+]?{number}|\({number}\)"


def is_plain(entry: dict[str, Any]) -> bool:
    """Returns whether numbers are written as programs write them."""
    return not (entry["unit"] or entry["thousands"] or entry["truth"]) and entry["decimal"] == "."


def list_marks(entry: dict[str, Any]) -> list[str]:
    """Returns what is removed from a number before it is read, in order."""
    return [mark for mark in (entry["unit"], entry["thousands"], " ", "(", ")") if mark]


def normalise_marks(text: str) -> str:
    """Writes all kinds of spaces, apostrophes and minus signs in one way."""
    text = re.sub("[\u00a0\u2009\u202f]", " ", text)
    return text.replace("\u2019", "'").replace("\u2212", "-")


def read_number(entry: dict[str, Any], text: str) -> float:
    """Returns the number of a text that matches the pattern."""
    bare = text
    for mark in list_marks(entry):
        bare = bare.replace(mark, "")
    number = float(bare.replace(entry["decimal"], "."))
    return -number if text.startswith("(") else number


def encode_word(entry: dict[str, Any], value: Any) -> dict[str, str]:
    """Returns a word as the vocabulary has it, 3 for 3.0 and 3.0 for 3 where it has no other."""
    text = to_text(value)
    if text in entry["vocabulary"] or is_missing(entry, text):
        return {entry["name"]: text}
    if text.lower() in entry["vocabulary"] and isinstance(value, bool):
        return {entry["name"]: text.lower()}
    return {entry["name"]: simplify_whole(text)}


def encode_date(entry: dict[str, Any], value: Any) -> dict[str, str]:
    """Returns the parts of a date; the clock counts as written."""
    text = to_text(value)
    names = {part: f"{entry['name']}.{part}" for part in entry["parts"]}
    if is_missing(entry, text):
        return dict.fromkeys(names.values(), "")
    if ":" in text:
        text = re.sub(r"(?<=\d)\s*(Z|UTC|GMT|[+-]\d{2}(:?\d{2})?)$", "", text)
    try:
        if entry["format"] == "ISO8601":
            day = f"{text}-01" if re.fullmatch(r"\d{4}-\d{2}", text) else text
            date = datetime.fromisoformat(day)
        else:
            date = datetime.strptime(text, entry["format"])
    except ValueError:
        wanted = "2024-12-31" if entry["format"] == "ISO8601" else entry["format"]
        raise ValueError(f"a date such as {wanted} is expected") from None
    numbers = {part: getattr(date, part) for part in PARTS}
    numbers["day_of_week"] = date.weekday()
    return {name: str(numbers[part]) for part, name in names.items()}


def encode_tensor(entry: dict[str, Any], value: Any) -> dict[str, np.ndarray]:
    """Returns nested lists of numbers as an array of the shape that the network reads."""
    shape = "x".join(str(size or "any") for size in entry["shape"])
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"numbers of shape {shape} are expected") from None
    fits = array.ndim == len(entry["shape"]) and all(
        size in (None, own) for size, own in zip(entry["shape"], array.shape, strict=True)
    )
    is_whole = entry["dtype"] == "float32" or bool((array == np.floor(array)).all())
    if not is_whole:
        raise ValueError(f"whole numbers of shape {shape} are expected")
    if not fits or not math.isfinite(float(np.abs(array).sum())):
        raise ValueError(f"finite numbers of shape {shape} are expected")
    low, high = entry["range"]
    if low is not None and array.size and not low <= array.min() <= array.max() <= high:
        raise ValueError(f"numbers from {low} to {high} are expected")
    return {entry["name"]: array}


ENCODERS: Mapping[str, Callable[[dict[str, Any], Any], dict[str, Any]]] = {
    "number": encode_number,
    "word": encode_word,
    "date": encode_date,
    "tensor": encode_tensor,
}


# -- for programs that read tensors alone ----------------------------------------------------------
def encode_table(schema: dict[str, Any], columns: dict[str, list[str]]) -> dict[str, np.ndarray]:
    """Returns 'dense' (N, F) and 'categorical' (N, C) of the texts of checked rows."""
    dense = []
    codes = []
    for entry in schema["inputs"]:
        if entry["kind"] == "number":
            dense += standardise(entry, columns[entry["name"]])
        elif entry["kind"] == "date":
            for part in entry["parts"]:
                own = {**PLAIN, **entry, **entry["scales"][part]}
                dense += standardise(own, columns[f"{entry['name']}.{part}"])
        elif entry["kind"] == "word":
            places = find_codes(entry)
            codes.append([places.get(text, 0) for text in columns[entry["name"]]])
    return {
        "dense": np.array(dense, np.float32).T if dense else np.zeros((0, 0), np.float32),
        "categorical": np.array(codes, np.int64).T if codes else np.zeros((0, 0), np.int64),
    }


def standardise(entry: dict[str, Any], texts: list[str]) -> list[np.ndarray]:
    """Returns numbers (N,), 0 where missing, and where they are missing if the network reads it."""
    numbers = np.array([parse_number(entry, text) for text in texts])
    missing = np.isnan(numbers)
    standard = np.where(missing, 0.0, (numbers - entry["mean"]) / entry["std"])
    return [standard, missing] if entry["indicator"] else [standard]


def parse_number(entry: dict[str, Any], text: str) -> float:
    """Returns the number of a checked text, NaN where it is missing."""
    if is_missing(entry, text):
        return math.nan
    if entry["truth"]:
        return float(text.lower() in ("true", "1", "1.0"))
    return read_number(entry, text)


def find_codes(entry: Mapping[str, Any]) -> dict[str, int]:
    """Returns {word: position} of a vocabulary, whole numbers with and without zero decimals."""
    vocabulary: list[str | None] = [*entry["vocabulary"]]
    if entry["missing_is_word"]:
        vocabulary.append(None)
    codes: dict[str, int] = {}
    for position, word in enumerate(vocabulary, start=1):
        simple = simplify_whole(word or "")
        if word is not None:
            codes.setdefault(simple, position)
        if WHOLE.fullmatch(simple):
            codes.setdefault(f"{simple}.0", position)

    # words as written count before others that mean the same
    codes |= {word: k for k, word in enumerate(vocabulary, start=1) if word is not None}
    gone = vocabulary.index(None) + 1 if None in vocabulary else 0
    return {**dict.fromkeys(entry["missing"], gone), **codes}


def simplify_whole(word: str) -> str:
    """Removes the zero decimals and the plus sign of a whole number; other words stay."""
    return WHOLE.sub(r"\1", word)


def stack(values: list[Any], dtype: str) -> np.ndarray:
    """Returns the arrays of all rows as one; short sequences get zeros at their end."""
    longest = np.max([value.shape for value in values], axis=0)
    found = np.zeros((len(values), *longest), dtype)
    for row, value in zip(found, values, strict=True):
        row[tuple(map(slice, value.shape))] = value
    return found
