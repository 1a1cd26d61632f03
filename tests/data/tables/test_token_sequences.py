"""Sequences side by side in memory: padded, taken, joined and hashed by row."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from src.data.tables.token_sequences import Sequences

texts = st.lists(st.lists(st.integers(1, 9), max_size=5), min_size=1, max_size=8)


def pack(lists: list[list[int]]) -> Sequences:
    tokens = torch.tensor([token for each in lists for token in each], dtype=torch.int32)
    return Sequences.of_lengths(tokens, torch.tensor([len(each) for each in lists]))


def unpack(padded: torch.Tensor) -> list[list[int]]:
    return [[token for token in row if token] for row in padded.tolist()]


@given(texts, texts, st.data())
def test_rows_are_those_that_were_packed(
    first: list[list[int]], second: list[list[int]], data: st.DataObject
) -> None:
    joined = pack(first).append(pack(second))
    both = first + second
    assert unpack(joined.load()) == both
    assert joined.load().shape == (len(both), max(1, *map(len, both)))
    assert joined.load().dtype == torch.int64

    rows = data.draw(st.lists(st.integers(0, len(both) - 1), max_size=6))
    some = joined[torch.tensor(rows, dtype=torch.int64)]
    assert len(some) == len(rows)
    assert unpack(some.load()) == [both[row] for row in rows]
    # padding goes as far as the longest of these rows
    assert some.load().shape[1] == max([1, *(len(both[row]) for row in rows)])


@given(texts)
def test_equal_rows_alone_have_one_hash(lists: list[list[int]]) -> None:
    hashes = pack(lists).hash_rows().tolist()
    for one, of_one in zip(lists, hashes, strict=True):
        for other, of_other in zip(lists, hashes, strict=True):
            assert (one == other) == (of_one == of_other)
