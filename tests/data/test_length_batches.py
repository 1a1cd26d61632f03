import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.batch import PADDING
from src.data.length_batches import WINDOW, LengthBatches
from tests.data.test_stream import as_rank


def shares(lengths, size, shuffle=True, seed=0, epoch=0, resume=None):
    batches = LengthBatches(torch.tensor(lengths), size, shuffle, seed)
    batches.set_epoch(epoch)
    if resume:
        batches.resume(*resume)
    return list(batches)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=60),
    size=st.integers(1, 20),
    world=st.integers(1, 5),
    shuffle=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_the_union_and_the_width_do_not_depend_on_the_ranks(
    monkeypatch, lengths, size, world, shuffle, epoch
):
    with monkeypatch.context() as patch:
        as_rank(patch, 0, 1)
        alone = shares(lengths, size, shuffle, epoch=epoch)
        ranks = []
        for rank in range(world):
            as_rank(patch, rank, world)
            ranks.append(shares(lengths, size, shuffle, epoch=epoch))
    assert len(alone) == -(-len(lengths) // size)
    for k, whole in enumerate(alone):
        parts = [rank[k] for rank in ranks]
        rows = [row for part in parts for row in part.ids.tolist() if row != PADDING]
        assert rows == whole.ids.tolist()
        assert {part.length for part in parts} == {max(lengths[row] for row in rows)}
        assert {part.key for part in parts} == {whole.key}
        assert len({len(part.ids) for part in parts}) == 1
    rows = [row for share in alone for row in share.ids.tolist()]
    assert sorted(rows) == list(range(len(lengths)))


def test_a_window_of_batches_is_sorted_by_length_and_the_batches_are_shuffled():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 60, (4000,), generator=generator)
    found = shares(lengths.tolist(), 16)
    padded = sum(len(share.ids) * share.length for share in found)
    assert padded < 1.1 * int(lengths.sum())
    longest = [share.length for share in found]
    assert longest[:WINDOW] != sorted(longest[:WINDOW])
    # each window has short sentences and long ones
    assert min(longest[:WINDOW]) < 10 < 50 < max(longest[:WINDOW])
    in_order = shares(lengths.tolist(), 16, shuffle=False)
    assert [share.length for share in in_order] == sorted(share.length for share in in_order)
    assert {share.key for share in in_order} == {None}


def test_batches_are_a_function_of_seed_and_epoch():
    lengths = torch.arange(1, 100).tolist()

    def rows(**where):
        return [share.ids.tolist() for share in shares(lengths, 8, **where)]

    assert rows(seed=1, epoch=2) == rows(seed=1, epoch=2)
    assert rows(seed=1) != rows(seed=2)
    assert rows(epoch=0) != rows(epoch=1)
    keys = [shares(lengths, 8, seed=s, epoch=e)[0].key for s in (0, 1) for e in (0, 1)]
    assert len(set(keys)) == 4


@pytest.mark.parametrize("step", [1, 5])
def test_a_resumed_epoch_goes_on_where_it_was(step):
    lengths = torch.arange(1, 100).tolist()
    whole = [share.ids.tolist() for share in shares(lengths, 8, epoch=3)]
    rest = [share.ids.tolist() for share in shares(lengths, 8, resume=(3, step))]
    assert rest == whole[step:]
