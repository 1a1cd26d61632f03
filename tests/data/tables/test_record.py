import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.tables.record import (
    BYTES,
    describe_difference,
    fingerprint_file,
    hash_rows,
    is_same,
    pack_hashes,
    pack_sides,
    read_schema,
    unpack_hashes,
    unpack_sides,
)


@given(st.text("tve", max_size=60))
def test_sides_of_rows_are_a_letter_each(text):
    rows = unpack_sides(text)
    assert pack_sides(rows) == text
    assert {name: part.tolist() for name, part in rows.items()} == {
        name: [i for i, letter in enumerate(text) if letter == wanted]
        for name, wanted in (("train", "t"), ("val", "v"), ("test", "e"))
    }


def test_letters():
    rows = {"train": np.array([0, 3]), "val": np.array([2]), "test": np.array([1])}
    assert pack_sides(rows) == "tevt"


@given(st.lists(st.integers(0, 2 ** (8 * BYTES) - 1), max_size=30))
def test_hashes_survive_text(values):
    text = pack_hashes(np.array(values, dtype=np.uint64))
    assert json.loads(json.dumps(text)) == text
    assert unpack_hashes(text).tolist() == values
    assert len(text) == -(-len(values) * BYTES // 3) * 4


def test_hashes_of_rows_are_those_of_their_values():
    dense = torch.tensor([[1.0, 2], [1, 2], [2, 1], [1, 2]])
    codes = torch.tensor([[1], [1], [1], [2]])
    hashes = hash_rows({"dense": dense, "categorical": codes})
    assert hashes.dtype == np.uint64
    assert hashes.max() < 2 ** (8 * BYTES)
    assert hashes[0] == hashes[1]
    assert len({hashes[0], hashes[2], hashes[3]}) == 3
    assert (
        hashes[[2, 0]] == hash_rows({"dense": dense[[2, 0]], "categorical": codes[[2, 0]]})
    ).all()
    assert unpack_hashes(pack_hashes(hashes)).tolist() == hashes.tolist()
    assert (
        hash_rows(
            {"dense": torch.zeros(3, 0), "categorical": torch.zeros(3, 0, dtype=torch.long)}
        ).tolist()
        == [0] * 3
    )


def test_a_file_is_the_same_if_its_content_is(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x\n1\n")
    record = fingerprint_file(path)
    assert record["path"] == str(path.resolve())
    assert record["bytes"] == 4
    assert is_same(path, record)
    other = tmp_path / "moved.csv"
    other.write_text("x\n1\n")
    assert is_same(other, record)
    path.write_text("x\n2\n")  # of the same size
    assert not is_same(path, record)
    path.write_text("x\n1\n2\n")
    assert not is_same(path, record)
    path.unlink()
    assert not is_same(path, record)
    assert not is_same(tmp_path, record)


@pytest.mark.parametrize(
    ("before", "now", "says"),
    [
        ([1, 2, 3], [1, 2, 3], "its inputs are the same, its labels or other columns are not"),
        ([1, 2, 3], [3, 1, 2], "its rows are in another order"),
        (
            [1, 2, 3],
            [1, 2, 3, 4],
            "it has 4 rows where it had 3: 1 are new or changed, and 0 are gone",
        ),
        (
            [1, 2, 3],
            [1, 3],
            "it has 2 rows where it had 3: 0 are new or changed, and 1 are gone",
        ),
        (
            [1, 2, 3],
            [1, 9, 3],
            "it has 3 rows where it had 3: 1 are new or changed, and 1 are gone",
        ),
        (
            [1, 1, 2],
            [1, 2, 2],
            "it has 3 rows where it had 3: 1 are new or changed, and 1 are gone",
        ),
        (
            [1, 2],
            [8, 9, 7],
            "it has 3 rows where it had 2: 3 are new or changed, and 2 are gone",
        ),
    ],
)
def test_differences_in_words(before, now, says):
    assert (
        describe_difference(np.array(before, dtype=np.uint64), np.array(now, dtype=np.uint64))
        == says
    )


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=12),
    st.lists(st.integers(0, 5), min_size=1, max_size=12),
)
def test_differences_count_rows_against_a_slow_count(before, now):
    says = describe_difference(np.array(before, dtype=np.uint64), np.array(now, dtype=np.uint64))
    shared = sum(min(before.count(value), now.count(value)) for value in set(before))
    if before == now:
        assert "labels or other columns" in says
    elif sorted(before) == sorted(now):
        assert "another order" in says
    else:
        assert (
            f"{len(now) - shared} are new or changed, and {len(before) - shared} are gone" in says
        )


@pytest.mark.parametrize("content", ["{", "{}", "[1]", '{"inputs": [], "tasks": {}}', "3"])
def test_damaged_schemas(tmp_path, content):
    path = tmp_path / "schema.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"schema.json is damaged: ") as caught:
        read_schema(str(path))
    assert "\n" not in str(caught.value)
