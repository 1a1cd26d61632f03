"""Plain values are held against types."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NotRequired, TypedDict

import pytest

from src.files.typed import Count, Damaged, Such, find_mismatch, read_json


@dataclass(frozen=True)
class Point:
    x: float
    names: tuple[str | None, ...]


@dataclass(frozen=True)
class Word:
    text: Literal["a", "b"]


class Whole(TypedDict):
    points: Annotated[list[Point | Word], Such("at least one", bool)]
    count: Count
    note: NotRequired[str | None]


GOOD: dict[str, Any] = {
    "points": [{"x": 1, "names": ["u", None]}, {"text": "a"}],
    "count": 3,
    "more": object(),
}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, None),
        ({"note": None}, None),
        ({"note": 3}, "note is 3, where text or null belongs"),
        ({"count": -1}, "count is -1, where a whole number (at least 0) belongs"),
        ({"count": True}, "count is True, where a whole number"),
        ({"count": 2**63}, "where a whole number"),
        ({"points": []}, "points is [], where a list (at least one) belongs"),
        ({"points": {}}, "points is {}, where a list"),
        (
            {"points": [{"x": float("nan"), "names": []}]},
            "points[0].x is nan, where a finite number belongs",
        ),
        ({"points": [{"x": 10**400, "names": []}]}, "where a finite number belongs"),
        (
            {"points": [{"x": 1.0, "names": [[]]}]},
            "points[0].names[0] is [], where text or null belongs",
        ),
        ({"points": [{"text": "c"}]}, "points[0].text is 'c', where 'a' or 'b' belongs"),
        ({"points": [{"x": 1.0}]}, "points[0] is {'x': 1.0}, where an object belongs"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(changed: dict[str, Any], says: str | None) -> None:
    found = find_mismatch(GOOD | changed, Whole)
    assert (found is None) if says is None else (found is not None and says in found)


def test_keys_that_lack_or_belong_to_nothing() -> None:
    assert find_mismatch({"points": GOOD["points"]}, Whole) == "count is missing"
    assert (
        find_mismatch({"x": 1.0, "names": [], "z": 0}, Point, "here") == "here.z belongs to nothing"
    )
    assert find_mismatch([], Whole) == "its content is [], where an object belongs"


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "1" * 5000, "NaN", "nul\0"])
def test_what_is_no_json_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(Damaged, match=r"a\.json is damaged; remove it \(") as caught:
        read_json(path, Whole, "remove it")
    assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class WithClassAttribute:
    kind: ClassVar[str] = "round"
    size: int


def test_an_attribute_of_the_class_is_no_key() -> None:
    assert find_mismatch({"size": 3}, WithClassAttribute) is None
    assert find_mismatch({"size": 3}, WithClassAttribute | int) is None
    assert find_mismatch({"size": 3, "kind": "flat"}, WithClassAttribute) == (
        "kind belongs to nothing"
    )
