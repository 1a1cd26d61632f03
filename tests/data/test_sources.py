import json
import math
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset

from src.batch import PADDING, Batch, InputShape
from src.data import MultiTaskDataModule, Rows, Table
from src.data.concat import MultiSourceDataset
from src.data.multi_source_sampler import MultiSourceBatches, apportion
from src.data.sources import Sources
from src.errors import UserError
from src.rng import make_generator
from src.tasks import MISSING, Classification, MultilabelClassification, Regression
from tests.data.test_stream import as_rank, without_padding

SAMPLERS = ("proportional", "temperature", "round_robin", "min_cycle", "max_cycle")
NUMBER = Regression(mean=(0.0,), std=(1.0,))


class Line(MultiTaskDataModule):
    """Rows first, first + 1 ... labelled by themselves; half as many validate, two predict."""

    def __init__(
        self,
        task="y",
        rows=10,
        first=0.0,
        features=1,
        batch_size=4,
        eval_batch_size=1024,
        num_workers=0,
        seed=0,
    ):
        super().__init__(batch_size, eval_batch_size, num_workers, seed)
        self.task, self.rows, self.first, self.features = task, rows, first, features
        self.calls = []

    @property
    def tasks(self):
        return {self.task: NUMBER}

    @property
    def input_shape(self):
        return InputShape((self.features,))

    def split(self, name):
        y = self.first + torch.arange(
            float({"train": self.rows, "val": self.rows // 2}.get(name, 2))
        )
        return Rows(y[:, None], {} if name == "predict" else {self.task: y})

    def prepare_data(self):
        self.calls.append("prepare")

    def setup(self, stage):
        self.calls.append(stage)


class Named(Line):
    """With a schema and names of rows."""

    read = "as it is"

    def schema(self):
        return {"columns": [self.task], "read": self.read, "range": (0, 1)}

    def row_info(self, name):
        return {"id": ["p", "q"], "split": [name, name]}


def stream(rows, sizes, sampler, temperature=2.0, shuffle=True, seed=0, epoch=0, resume=None):
    batches = MultiSourceBatches(rows, sizes, sampler, temperature, shuffle, seed)
    batches.set_epoch(epoch)
    if resume:
        batches.resume(*resume)
    found = [batch.tolist() for batch in batches]
    assert resume or len(found) == len(batches)
    return found


# -- whose turn it is ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("sampler", "steps"),
    [
        ("proportional", [[0, 1], [5, 6], [2, 3], [7], [4]]),
        ("temperature", [[0, 1], [5, 6], [2, 3], [7], [4]]),
        ("round_robin", [[0, 1], [5, 6], [2, 3], [7], [4], [5, 6]]),
        ("min_cycle", [[0, 1, 5, 6], [2, 3, 7]]),
        ("max_cycle", [[0, 1, 5, 6], [2, 3, 7], [4, 5, 6]]),
    ],
)
def test_known_steps_in_order(sampler, steps):
    """Rows 0 ... 4 and 5 ... 7, in batches of two."""
    assert stream([5, 3], [2, 2], sampler, shuffle=False) == steps
    assert stream([5, 3], [2, 2], sampler, shuffle=False, epoch=3, seed=1) == steps


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_known_steps_in_a_drawn_order(sampler):
    """Each step is made anew here from the orders of (seed, epoch, source, pass)."""
    rows, sizes, seed, epoch = [7, 4, 12], [3, 4, 2], 5, 2  # 3, 1 and 6 batches

    def batches(source):
        for number in range(9):
            order = torch.randperm(
                rows[source], generator=make_generator(seed, epoch, source, number)
            ) + sum(rows[:source])
            yield from order.split(sizes[source])

    a, b, c = batches(0), batches(1), batches(2)
    if sampler in (
        "proportional",
        "temperature",
    ):  # roots 2.65, 2, 3.46 of 8.11: 3.26, 2.47 and 4.27 of ten steps
        in_order = (
            [a, a, a, b, *[c] * 6] if sampler == "proportional" else [a, a, a, b, b, b, c, c, c, c]
        )
        turns = [in_order[i] for i in torch.randperm(10, generator=make_generator(seed, epoch))]
        expected = [next(source).tolist() for source in turns]
    elif sampler == "round_robin":
        expected = [next(source).tolist() for _ in range(6) for source in (a, b, c)]
    else:
        expected = [
            torch.cat([next(a), next(b), next(c)]).tolist()
            for _ in range(1 if sampler == "min_cycle" else 6)
        ]
    assert stream(rows, sizes, sampler, seed=seed, epoch=epoch) == expected


SOURCES = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 12)), min_size=1, max_size=4)


@settings(deadline=None)
@given(sources=SOURCES, seed=st.integers(0, 2**40), epoch=st.integers(0, 5))
def test_a_proportional_epoch_has_every_row_once(sources, seed, epoch):
    rows, sizes = zip(*sources, strict=True)
    steps = stream(rows, sizes, "proportional", seed=seed, epoch=epoch)
    assert sorted(row for step in steps for row in step) == list(range(sum(rows)))
    assert len(steps) == sum(math.ceil(n / size) for n, size in sources)
    source = np.repeat(range(len(rows)), rows)
    assert all(len(set(source[step])) == 1 for step in steps)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sources=SOURCES,
    sampler=st.sampled_from(SAMPLERS),
    world=st.integers(1, 4),
    shuffle=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_the_union_of_the_ranks_is_the_global_batch_of_one_rank(
    monkeypatch, sources, sampler, world, shuffle, epoch
):
    rows, sizes = zip(*sources, strict=True)
    alone = stream(rows, sizes, sampler, shuffle=shuffle, epoch=epoch)
    ranks = []
    with monkeypatch.context() as patch:
        for rank in range(world):
            as_rank(patch, rank, world)
            ranks.append(stream(rows, sizes, sampler, shuffle=shuffle, epoch=epoch))
    for k, whole in enumerate(alone):
        parts = [part[k] for part in ranks]
        assert [row for part in parts for row in without_padding(part)] == whole
        assert {len(part) for part in parts} == {-(-len(whole) // world)}


@settings(deadline=None)
@given(sources=SOURCES, sampler=st.sampled_from(SAMPLERS), epoch=st.integers(0, 3), data=st.data())
def test_a_resumed_stream_continues_where_it_was(sources, sampler, epoch, data):
    rows, sizes = zip(*sources, strict=True)
    whole = stream(rows, sizes, sampler, epoch=epoch)
    step = data.draw(st.integers(0, len(whole)))
    rest = stream(rows, sizes, sampler, resume=(epoch, step))
    assert rest == (
        whole[step:] if step < len(whole) else stream(rows, sizes, sampler, epoch=epoch + 1)
    )


@settings(deadline=None)
@given(sampler=st.sampled_from(SAMPLERS), seed=st.integers(0, 2**40), epoch=st.integers(0, 4))
def test_each_pass_of_a_source_has_its_rows_once_in_an_order_of_its_own(sampler, seed, epoch):
    """20 rows in 4 batches beside 200 in 20: equal orders would be a chance of 1 in 20!."""
    steps = stream([20, 200], [5, 10], sampler, temperature=50.0, seed=seed, epoch=epoch)
    small = [row for step in steps for row in step if row < 20]
    passes = [small[i : i + 20] for i in range(0, len(small) - 19, 20)]
    assert (
        len(passes)
        == {"proportional": 1, "temperature": 3, "round_robin": 5, "min_cycle": 1, "max_cycle": 5}[
            sampler
        ]
    )
    assert all(sorted(part) == list(range(20)) for part in passes)
    next_epoch = [
        row
        for step in stream([20, 200], [5, 10], sampler, 50.0, seed=seed, epoch=epoch + 1)
        for row in step
        if row < 20
    ]
    assert len({tuple(part) for part in [*passes, next_epoch[:20]]}) == len(passes) + 1


def test_sources_of_equal_size_have_orders_of_their_own():
    steps = stream([30, 30], [30, 30], "max_cycle")[0]
    assert steps[:30] != [row - 30 for row in steps[30:]]


@pytest.mark.parametrize(
    ("temperature", "counts"),
    [
        (1.0, [90, 9, 1]),
        (2.0, [70, 22, 8]),
        (1e9, [34, 33, 33]),
        (0.2, [98, 1, 1]),
        (1e-4, [98, 1, 1]),
    ],
)
def test_steps_by_temperature(temperature, counts):
    """9000, 900 and 100 rows: roots 94.9, 30 and 10 of 134.9 are 70.35, 22.24 and 7.41 %."""
    assert (
        MultiSourceBatches(
            [9000, 900, 100], [100, 100, 100], "temperature", temperature, True
        ).turns
        == counts
    )


@pytest.mark.parametrize(
    ("shares", "turns"),
    [([0.8, 0.2], [20, 5]), ([1.0, 0.0], [20, 0]), ([0.25, 0.75], [30, 90])],
)
def test_an_epoch_by_shares_has_each_row_of_the_largest_share_once(shares, turns):
    """200 rows in 20 batches beside 900 in 90."""
    batches = MultiSourceBatches([200, 900], [10, 10], "shares", 2.0, True, 0, shares)
    assert batches.turns == turns
    steps = [batch.tolist() for batch in batches]
    assert len(steps) == len(batches) == sum(turns)
    largest = range(200) if turns[0] > turns[1] else range(200, 1100)
    found = [row for step in steps for row in step if row in largest]
    assert sorted(found) == list(largest)


def test_a_source_of_share_0_only_validates_and_tests():
    data = two(sampler="shares", shares={"b": 0.0})
    rows = data.split("train")
    assert data.shares == [1.0, 0.0]
    batches = data.training_batches(rows, shuffle=True)
    assert {int(row) for batch in batches for row in batch} == set(range(rows.rows[0]))
    assert len(data.split("val")) == sum(data.split("val").rows)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"c": 0.5}, "data.shares names 'c', which is no source"),
        ({"a": 1.5}, "data.shares.a is 1.5; a share is from 0 to 1"),
        ({"a": math.nan}, "data.shares.a is nan"),
        ({"a": 0.5, "b": 0.2}, "data.shares sum to 0.7"),
        ({"a": 0.8, "b": 0.4}, "data.shares sum to 1.2"),
    ],
)
def test_bad_shares_are_named(shares, message):
    with pytest.raises(UserError, match=message):
        two(sampler="shares", shares=shares)


def test_shares_that_are_not_named_have_what_is_left():
    sources = {name: Line(name) for name in "abc"}
    shares = Sources(sources, sampler="shares", shares={"b": 0.5}).shares
    assert shares == [0.25, 0.5, 0.25]


@settings(deadline=None)
@given(weights=st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=8), more=st.integers(0, 300))
def test_steps_are_apportioned_by_largest_remainder(weights, more):
    total = len(weights) + more
    counts = apportion(total, weights)
    shares = [total * weight / sum(weights) for weight in weights]
    assert sum(counts) == total
    assert min(counts) >= 1
    if min(shares) >= 1:
        assert all(
            abs(count - share) < 1 + 1e-9 for count, share in zip(counts, shares, strict=True)
        )
        up = [
            share - int(share)
            for count, share in zip(counts, shares, strict=True)
            if count > int(share)
        ]
        down = [
            share - int(share)
            for count, share in zip(counts, shares, strict=True)
            if count == int(share)
        ]
        assert not up or not down or min(up) >= max(down) - 1e-9


# -- rows of several sources in one batch ----------------------------------------------------------
def three():
    """Rows 0 ... 2, 3 ... 4 and 5 ... 8."""
    return MultiSourceDataset(
        [
            Rows(
                torch.arange(3.0)[:, None],
                {"k": torch.tensor([5, 6, 7])},
                {"group": torch.tensor([1, 2, 3])},
            ),
            Rows(
                torch.tensor([[3.0], [4.0]]), {"k": torch.tensor([0.25, 0.75], dtype=torch.float64)}
            ),
            Rows(
                torch.arange(5.0, 9.0)[:, None],
                {"v": torch.arange(8.0).view(4, 2)},
                {"weight": torch.arange(4.0)},
            ),
        ],
        ["", "b-", ""],
        {
            "k": Classification(classes=tuple(range(9))),
            "b-k": NUMBER,
            "v": MultilabelClassification(labels=("x", "y")),
        },
    )


def test_rows_of_several_sources_stand_together_with_the_labels_of_others_missing():
    batch = three()[torch.tensor([8, 1, 3, 6, 0])]
    assert batch.ids.tolist() == [1, 0, 3, 8, 6]
    assert batch.inputs.tolist() == [[1.0], [0.0], [3.0], [8.0], [6.0]]
    assert list(batch.targets) == ["k", "b-k", "v"]
    assert batch.targets["k"].tolist() == [6, 5, MISSING, MISSING, MISSING]
    assert batch.targets["k"].dtype == torch.long
    np.testing.assert_array_equal(batch.targets["b-k"], [np.nan, np.nan, 0.25, np.nan, np.nan])
    assert batch.targets["b-k"].dtype == torch.float64
    np.testing.assert_array_equal(batch.targets["v"], [*[[np.nan] * 2] * 3, [6, 7], [2, 3]])
    assert batch.extras["group"].tolist() == [2, 1, MISSING, MISSING, MISSING]
    np.testing.assert_array_equal(batch.extras["weight"], [np.nan, np.nan, np.nan, 3, 1])
    assert len(three()) == 9


def test_a_batch_of_one_source():
    batch = three()[torch.tensor([4, 3])]
    assert batch.ids.tolist() == [4, 3]
    assert batch.inputs.tolist() == [[4.0], [3.0]]
    assert batch.targets["b-k"].tolist() == [0.75, 0.25]
    assert batch.targets["k"].tolist() == [MISSING] * 2
    assert batch.targets["v"].isnan().all() and batch.targets["v"].shape == (2, 2)


@pytest.mark.parametrize(
    "ids", [[2, PADDING], [7, PADDING, PADDING], [3, 5, PADDING], [PADDING, PADDING]]
)
def test_padding_has_no_labels(ids):
    rows = three()
    batch, without = rows[torch.tensor(ids)], [i for i in ids if i != PADDING]
    n = len(without)
    assert batch.ids.tolist() == ids
    assert batch.inputs[:n, 0].tolist() == without  # of these sources, inputs are row numbers
    assert batch.inputs.isfinite().all()
    assert (batch.targets["k"][n:] == MISSING).all()
    assert batch.targets["b-k"][n:].isnan().all() and batch.targets["v"][n:].isnan().all()
    for name, target in rows[torch.tensor(without)].targets.items() if n else ():
        torch.testing.assert_close(batch.targets[name][:n], target, equal_nan=True)


def test_what_is_missing_is_filled_in_per_batch():
    """Beside the sources' own tensors it keeps one row of each."""
    joined = MultiSourceDataset(
        [Rows(torch.zeros(10_000, 1), {f"t{i}": torch.zeros(10_000)}) for i in range(5)],
        [""] * 5,
        {},
    )
    kept = [*joined.inputs.values(), *(example for _, _, example, _ in joined.targets.values())]
    assert sum(tensor.numel() for tensor in kept) == 10
    assert {tuple(t.shape) for t in joined[torch.tensor([0, 49_999])].targets.values()} == {(2,)}


class PerBatch(Dataset):
    """Sentences of 1, 2 ... 6 tokens, padded to the longest, with a label for each token."""

    def __len__(self):
        return 6

    def __getitem__(self, ids):
        length = ids.clamp(min=0) + 1
        tokens = torch.where(torch.arange(int(length.max())) < length[:, None], 9, 0)
        return Batch(
            {"tokens": tokens},
            {"tag": torch.where((tokens > 0) & (ids[:, None] >= 0), 1, MISSING)},
            ids,
        )


def test_sequences_are_filled_up_to_the_longest():
    """Three tokens of two pieces and four of one, always; and up to six without pieces."""
    tags = Classification(classes=(0, 1))
    short = Rows(
        {"tokens": torch.ones(2, 3, dtype=torch.long), "parts": torch.full((2, 3, 2), 5)},
        {
            "tag": torch.ones(2, 3, dtype=torch.long),
            "topic": torch.tensor([0, 1]),
            "pair": torch.ones(2, 2),
        },
    )
    long = Rows(
        {"tokens": torch.full((2, 4), 2), "parts": torch.full((2, 4, 1), 6)},
        {"name": torch.full((2, 4), 0.5)},
    )
    tasks = {
        "tag": tags,
        "topic": tags,
        "name": NUMBER,
        "pair": MultilabelClassification(labels=("x", "y")),
    }
    joined = MultiSourceDataset([short, long], ["", ""], tasks)
    batch = joined[torch.tensor([1, 2])]
    assert batch.inputs["tokens"].tolist() == [[1, 1, 1, 0], [2, 2, 2, 2]]
    assert batch.inputs["parts"].tolist() == [[[5, 5]] * 3 + [[0, 0]], [[6, 0]] * 4]
    assert batch.targets["tag"].tolist() == [[1, 1, 1, MISSING], [MISSING] * 4]
    np.testing.assert_array_equal(batch.targets["name"], [[np.nan] * 4, [0.5] * 4])
    assert batch.targets["topic"].tolist() == [1, MISSING]
    assert batch.targets["pair"].shape == (2, 2)  # two labels of the whole, not of two tokens
    alone = joined[
        torch.tensor([0])
    ]  # a batch of one source has the length of all, and predictions can be put together
    assert alone.inputs["tokens"].tolist() == [[1, 1, 1, 0]]
    assert alone.targets["tag"].shape == alone.targets["name"].shape == (1, 4)

    joined = MultiSourceDataset(
        [PerBatch(), Rows({"tokens": torch.full((2, 3), 2)}, {"name": torch.full((2, 3), 0.5)})],
        ["", ""],
        tasks,
    )
    batch = joined[torch.tensor([4, 6])]
    assert batch.inputs["tokens"].tolist() == [[9] * 5, [2] * 3 + [0] * 2]
    assert batch.targets["tag"].tolist() == [[1] * 5, [MISSING] * 5]
    assert batch.targets["name"].shape == (2, 5)
    assert joined[torch.tensor([5])].targets["name"].shape == (1, 6)


def test_columns_of_categories():
    parts = [
        Rows(
            {"dense": torch.full((2, 3), float(i)), "categorical": torch.full((2, 1), i)},
            {f"t{i}": torch.zeros(2)},
        )
        for i in range(2)
    ]
    batch = MultiSourceDataset(parts, ["", ""], {})[torch.tensor([2, 1])]
    assert batch.inputs["dense"].tolist() == [[0.0] * 3, [1.0] * 3]
    assert batch.inputs["categorical"].tolist() == [[0], [1]]


def test_a_source_without_rows():
    """Its task has the right form all the same."""
    joined = MultiSourceDataset(
        [
            Rows(torch.zeros(0, 1), {"a": torch.zeros(0, 2)}),
            Rows(torch.ones(2, 1), {"b": torch.zeros(2)}),
        ],
        ["", ""],
        {},
    )
    batch = joined[torch.tensor([1, PADDING])]
    assert batch.inputs.tolist() == [[1.0], [1.0]]
    assert batch.targets["a"].shape == (2, 2)
    assert joined[torch.tensor([PADDING])].targets["b"].isnan().all()


# -- the data module -------------------------------------------------------------------------------
def two(**more):
    return Sources({"a": Line("y", 10), "b": Line("z", 6, first=100.0, batch_size=3)}, **more)


def test_tasks_and_loaders():
    data = two(eval_batch_size=6, seed=5)
    assert list(data.tasks) == ["y", "z"]
    assert data.input_shape == InputShape((1,))
    assert data.batch_size == 4
    train = list(data.train_dataloader())
    assert sorted(map(len, train)) == [2, 3, 3, 4, 4]
    assert sorted(torch.cat([batch.ids for batch in train]).tolist()) == list(range(16))
    for batch in train:
        y, z = batch.targets["y"], batch.targets["z"]
        assert y.isnan().all() != z.isnan().all()
        assert batch.inputs[:, 0].tolist() == y.where(~y.isnan(), z).tolist()
    val = list(data.val_dataloader())
    assert [batch.ids.tolist() for batch in val] == [[0, 1, 2, 3, 4, 5], [6, 7]]
    np.testing.assert_array_equal(val[0].targets["y"], [0, 1, 2, 3, 4, np.nan])
    np.testing.assert_array_equal(val[0].targets["z"], [*[np.nan] * 5, 100])
    assert val[1].targets["z"].tolist() == [101, 102]
    assert [batch.ids.tolist() for batch in data.test_dataloader()] == [[0, 1, 2, 3]]
    predict = list(data.predict_dataloader())
    assert predict[0].inputs[:, 0].tolist() == [0, 1, 100, 101]
    assert predict[0].targets == {}
    data.test_split = "train"  # in order, not in training steps
    assert [batch.ids.tolist() for batch in data.test_dataloader()] == [
        [0, 1, 2, 3, 4, 5],
        [6, 7, 8, 9, 10, 11],
        [12, 13, 14, 15],
    ]


def test_a_step_of_every_source():
    data = two(sampler="max_cycle")
    assert data.batch_size == 7
    steps = list(data.train_dataloader())
    assert [len(step) for step in steps] == [7, 7, 5]
    assert [int((~step.targets["z"].isnan()).sum()) for step in steps] == [3, 3, 3]
    assert len(two(sampler="min_cycle").train_dataloader()) == 2


def test_a_batch_to_look_ahead_has_rows_of_all_sources():
    batches = [two(sampler="round_robin").other_batch("train", step) for step in range(4)]
    assert sorted(torch.cat([batch.ids for batch in batches]).tolist()) == list(range(16))
    assert any(
        not batch.targets["y"].isnan().all() and not batch.targets["z"].isnan().all()
        for batch in batches
    )


def test_the_seed_is_that_of_sources():
    def order(seed, inner=0):
        data = Sources({"a": Line("y", 10, seed=inner), "b": Line("z", 6)}, seed=seed)
        return [batch.ids.tolist() for batch in data.train_dataloader()]

    assert order(1) == order(1) == order(1, inner=3) != order(2)


def test_overfitting_takes_the_same_rows_every_epoch_of_all_sources():
    data = two()
    rows = data.split("train")
    sampler = data.training_batches(rows, shuffle=False)
    first = [batch.tolist() for batch in islice(sampler, 2)]
    sampler.set_epoch(1)
    assert first == [batch.tolist() for batch in islice(sampler, 2)] == [[0, 1, 2, 3], [10, 11, 12]]


def test_tasks_of_one_name_can_be_told_apart():
    sources = {"a": Line("y"), "b": Line("y", first=100.0)}
    with pytest.raises(
        ValueError,
        match=r"^data.sources: a and b both have a task 'y'; rename it .* data.prefix true$",
    ):
        _ = Sources(sources).tasks
    data = Sources(sources, prefix=True, sampler="min_cycle")
    assert list(data.tasks) == ["a-y", "b-y"]
    batch = next(iter(data.val_dataloader()))
    np.testing.assert_array_equal(batch.targets["a-y"], [0, 1, 2, 3, 4, *[np.nan] * 5])
    np.testing.assert_array_equal(batch.targets["b-y"], [*[np.nan] * 5, 100, 101, 102, 103, 104])


def test_inputs_of_another_shape_are_refused():
    sources = {"a": Line("x"), "b": Line("y"), "c": Line("z", features=3)}
    with pytest.raises(
        ValueError,
        match=r"one shape, but a has InputShape\(dense=\(1,\),.* "
        r"and c has InputShape\(dense=\(3,\),",
    ):
        _ = Sources(sources).input_shape


@pytest.mark.parametrize(
    ("sources", "more", "message"),
    [
        ({}, {}, "data.sources is empty"),
        ({"a.b": Line()}, {}, "data.sources names 'a.b'; a source's name has letters, digits"),
        ({"a": two()}, {}, "data.sources.a is a Sources itself"),
        (
            {"a": Line()},
            {"temperature": 0.0},
            "data.temperature is 0.0; it must be a number above 0",
        ),
        ({"a": Line()}, {"temperature": math.nan}, "data.temperature is nan"),
        ({"a": Line()}, {"eval_batch_size": 0}, "data.eval_batch_size is 0"),
    ],
)
def test_bad_settings_are_named(sources, more, message):
    with pytest.raises(ValueError, match=message):
        Sources(sources, **more)


def test_a_source_without_training_rows_is_named():
    with pytest.raises(ValueError, match=r"data.sources.b has no rows to train on"):
        Sources({"a": Line("y"), "b": Line("z", rows=0)}, sampler="round_robin").train_dataloader()


def test_settings_without_effect_are_named():
    with pytest.warns(
        UserWarning,
        match=r"data.temperature has no effect: data.sampler is min_cycle, not temperature",
    ):
        two(temperature=3.0, sampler="min_cycle")
    with pytest.warns(
        UserWarning,
        match=r"data.sources.a.eval_batch_size has no effect: "
        r"data.eval_batch_size holds for all sources",
    ):
        Sources({"a": Line(eval_batch_size=3)})
    with pytest.warns(UserWarning, match=r"data.sources.a.num_workers has no effect"):
        Sources({"a": Line(num_workers=1)})
    two(temperature=3.0, sampler="temperature")
    with pytest.warns(UserWarning, match=r"data.shares has no effect: data.sampler is min_cycle"):
        two(shares={"a": 0.5}, sampler="min_cycle")


def test_notes():
    assert Sources({"a": Line("y")}).notes() == ["a: task y: Regression"]
    *tasks, apart, orthogonal, alone = two().notes()
    assert apart.startswith("each source is split, and its numbers are scaled, by itself")
    assert tasks == ["a: task y: Regression", "b: task z: Regression"]
    assert "are orthogonal" in orthogonal and "--model.balancer.level parameters can" in orthogonal
    assert alone.startswith("sampler proportional: a step has rows of one source")
    assert two(sampler="max_cycle").notes() == [*tasks, apart, orthogonal]


def test_tables_whose_columns_mean_other_things_are_refused(tmp_path):
    """Of one shape each; the same number would stand for Bern in one and for Oslo in the other."""

    def tables(**columns):
        data = {}
        for name, (number, city) in columns.items():
            rows = "\n".join(
                f"{i % 7 + i / 9},{['Paris', 'Rome', city][i % 3]},{i % 2},{i % 5 + i / 7}"
                for i in range(60)
            )
            (tmp_path / f"{name}.csv").write_text(f"{number},city,y{name},z{name}\n{rows}\n")
            data[name] = Table(path=str(tmp_path / f"{name}.csv"), targets=[f"y{name}", f"z{name}"])
        return Sources(data)

    assert tables(a=("age", "Oslo"), b=("age", "Oslo")).input_shape.categories
    with pytest.raises(ValueError, match="a and b have other values in column 'city'"):
        tables(a=("age", "Oslo"), b=("age", "Bern")).input_shape  # noqa: B018
    with pytest.raises(ValueError, match="a and b read 'age' and 'weight'"):
        tables(a=("age", "Oslo"), b=("weight", "Oslo")).input_shape  # noqa: B018


def test_rows_to_predict_are_named_by_source():
    both = Sources({"a": Line("y"), "b": Named("z")})
    assert both.row_info("test") == {
        "id": ["a/0", "a/1", "b/p", "b/q"],
        "split": ["", "", "test", "test"],
    }
    assert Sources({"a": Line("y")}).row_info("test") == {"id": ["a/0", "a/1"]}


def test_hooks_reach_the_sources():
    data = two()
    data.prepare_data()
    data.setup("fit")
    assert [source.calls for source in data.sources.values()] == [["prepare", "fit"]] * 2


def test_sources_must_be_read_as_the_run_read_them(tmp_path):
    """Whose schema went through JSON."""
    assert two().schema() is None
    sources = {"a": Line("y"), "b": Named("z")}
    assert Sources(sources).schema() == {
        "sources": {"b": {"columns": ["z"], "read": "as it is", "range": (0, 1)}}
    }
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(Sources(sources).schema()))
    assert list(Sources(sources, schema_path=str(path)).tasks) == ["y", "z"]
    sources["b"].read = "otherwise"
    with pytest.raises(
        ValueError,
        match=r"data.sources.b has other rows or columns than in the run of .*schema.json",
    ):
        _ = Sources(sources, schema_path=str(path)).tasks
    for content in ("{", "{}"):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"schema.json is damaged"):
            _ = Sources(sources, schema_path=str(path)).tasks
