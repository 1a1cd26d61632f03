import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.batch import PADDING
from src.data.stream import GlobalBatches
from src.rng import make_generator


def as_rank(monkeypatch, rank, world):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda group=None: rank)
    monkeypatch.setattr(dist, "get_world_size", lambda group=None: world)


def stream(rows, size, shuffle=True, seed=0, epoch=0, resume=None):
    batches = GlobalBatches(rows, size, shuffle, seed)
    batches.set_epoch(epoch)
    if resume:
        batches.resume(*resume)
    return [batch.tolist() for batch in batches]


def without_padding(batch):
    return [row for row in batch if row != PADDING]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 60),
    size=st.integers(1, 70),
    world=st.integers(1, 9),
    shuffle=st.booleans(),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 5),
)
def test_the_union_of_the_ranks_is_the_global_batch_of_one_rank(
    monkeypatch, rows, size, world, shuffle, seed, epoch
):
    with monkeypatch.context() as patch:
        as_rank(patch, 0, 1)
        alone = stream(rows, size, shuffle, seed, epoch)
        ranks = []
        for rank in range(world):
            as_rank(patch, rank, world)
            ranks.append(stream(rows, size, shuffle, seed, epoch))
    assert len(alone) == -(-rows // size)
    assert all(len(part) == len(alone) for part in ranks)
    for k, whole in enumerate(alone):
        parts = [part[k] for part in ranks]
        assert [row for part in parts for row in without_padding(part)] == whole
        assert {len(part) for part in parts} == {-(-len(whole) // world)}  # ranks are in step
        assert all(
            without_padding(part) == part[: len(without_padding(part))] for part in parts
        )  # padding at the end
    assert sorted(row for whole in alone for row in whole) == list(
        range(rows)
    )  # each row once an epoch


def test_known_deal(monkeypatch):
    as_rank(monkeypatch, 1, 3)
    assert stream(7, 5, shuffle=False) == [[2, 3], [6]]
    as_rank(monkeypatch, 2, 3)
    assert stream(7, 5, shuffle=False) == [[4, PADDING], [PADDING]]


def test_the_order_is_a_function_of_seed_and_epoch():
    torch.manual_seed(0)
    first = stream(50, 50, seed=3, epoch=2)
    torch.manual_seed(1)
    assert stream(50, 50, seed=3, epoch=2) == first
    others = [stream(50, 50, seed=s, epoch=e)[0] for s in range(4) for e in range(4)]
    assert len({tuple(order) for order in others}) == 16
    assert stream(5, 2, shuffle=False, epoch=7) == [[0, 1], [2, 3], [4]]


def test_every_row_is_as_likely_at_every_place():
    counts = np.zeros((6, 6))
    for epoch in range(600):
        counts[np.arange(6), stream(6, 6, seed=11, epoch=epoch)[0]] += 1
    assert abs(counts - 100).max() < 50  # five standard deviations


@settings(deadline=None)
@given(rows=st.integers(1, 40), size=st.integers(1, 20), epoch=st.integers(0, 3), data=st.data())
def test_a_resumed_stream_continues_where_it_was(rows, size, epoch, data):
    whole = [stream(rows, size, epoch=e) for e in range(6)]
    step = data.draw(st.integers(0, len(whole[0])))
    batches = GlobalBatches(rows, size, shuffle=True)
    batches.resume(epoch, step)
    rest = [batch.tolist() for batch in batches]
    if step == len(whole[0]):
        assert rest == whole[epoch + 1]
        batches.set_epoch(epoch + 2)
        assert [batch.tolist() for batch in batches] == whole[epoch + 2]
    else:
        assert rest == whole[epoch][step:]
        batches.set_epoch(epoch + 1)
        assert [batch.tolist() for batch in batches] == whole[epoch + 1]


def test_no_rows():
    assert stream(0, 4) == []


def test_generator_is_a_function_of_its_whole_key():
    def draw(*key):
        return torch.randint(2**62, (), generator=make_generator(*key)).item()

    keys = [
        (),
        (0,),
        (1,),
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
        (2, 1),
        (1, 2),
        (0, 0, 0),
        (2**40, 5),
        (-1, 3),
    ]
    assert len({draw(*key) for key in keys}) == len(keys)
    assert [draw(*key) for key in keys] == [draw(*key) for key in keys]


@settings(deadline=None)
@given(st.integers(0, 2**63), st.integers(0, 10**6))
def test_neighbouring_keys_give_unrelated_draws(seed, epoch):
    one = torch.rand(64, generator=make_generator(seed, epoch))
    two = torch.rand(64, generator=make_generator(seed, epoch + 1))
    three = torch.rand(64, generator=make_generator(seed + 1, epoch))
    for other in (two, three):
        assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.7


@pytest.mark.parametrize("world", [1, 2, 5])
def test_the_number_of_batches_does_not_depend_on_the_ranks(monkeypatch, world):
    as_rank(monkeypatch, 0, world)
    assert len(GlobalBatches(13, 4, shuffle=True)) == 4
