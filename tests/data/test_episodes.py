import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.batch import InputShape
from src.data import Digits, Episodes, MultiTaskDataModule, Omniglot, Rows, Sinusoids
from src.data.drawn_episodes import PooledRows
from src.errors import UserError
from src.tasks import Classification, Regression, Task
from tests.data.images.made_omniglot import write_omniglot


class Labelled(MultiTaskDataModule):
    """Rows whose input is their number; class = number % 12, user = number % 8."""

    def __init__(self, rows: int = 240, classes: int = 12) -> None:
        super().__init__()
        self.rows = rows
        self.classes = classes

    @property
    def tasks(self) -> dict[str, Task]:
        return {
            "class": Classification(classes=tuple(range(self.classes))),
            "family": Classification(classes=("a", "b", "c", "d")),
            "user": Classification(classes=tuple(f"u{k}" for k in range(8))),
            "value": Regression(mean=(0.0,), std=(1.0,)),
        }

    @property
    def input_shape(self) -> InputShape:
        return InputShape((1,))

    def split(self, name):
        part = {"train": 0, "val": 1, "test": 2, "predict": 2}[name]
        rows = torch.arange(self.rows)[part::3]
        labels = rows % self.classes
        targets = {
            "class": labels.where(rows != 5, -100),
            "family": labels // 3,
            "user": rows % 8,
            "value": rows.float() / 10,
        }
        return Rows(rows[:, None].float(), targets)


def rows_of(batch, episodes):
    """The numbers of rows (E, R), and the labels of all rows, support rows first."""
    (targets,) = batch.targets.values()
    labels = torch.where(batch.extras["support"], batch.extras["label"], targets)
    return batch.inputs[:, 0].long().view(episodes, -1), labels.view(episodes, -1)


@settings(max_examples=25, deadline=None)
@given(
    ways=st.integers(2, 3),
    shots=st.integers(1, 3),
    queries=st.integers(1, 4),
    seed=st.integers(0, 2**31),
    first=st.integers(0, 10**6),
)
def test_an_episode_is_a_function_of_seed_and_number(ways, shots, queries, seed, first):
    settings = {"target": "class", "ways": ways, "shots": shots, "queries": queries}
    shares = {"val_classes": 0.25, "test_classes": 0.25}
    data = Episodes(Labelled(), **settings, **shares, seed=seed)
    rows = data.split("train")
    size = ways * (shots + queries)
    batch = rows[torch.arange(first, first + 3)]
    numbers, labels = rows_of(batch, 3)
    assert numbers.shape == (3, size)

    # support and query rows of each class, all different, numbered anew
    for e in range(3):
        assert len(set(numbers[e].tolist())) == size
        assert 5 not in numbers[e]  # it has no label
        classes = {}
        for place, (number, label) in enumerate(zip(numbers[e], labels[e], strict=True)):
            classes.setdefault(int(label), set()).add(int(number) % 12)
            assert (place < ways * shots) == bool(batch.extras["support"][e * size + place])
        assert sorted(classes) == list(range(ways))
        assert all(len(own) == 1 for own in classes.values())
        assert len(set.union(*classes.values())) == ways
        counts = labels[e][: ways * shots].bincount()
        assert (counts == shots).all()

    # the same by itself, from another object, and after others
    again = Episodes(Labelled(), **settings, **shares, seed=seed).split("train")
    alone = again[torch.tensor([first + 1])]
    assert rows_of(alone, 1)[0][0].tolist() == numbers[1].tolist()


@settings(max_examples=25, deadline=None)
@given(split_seed=st.integers(0, 2**31), together=st.booleans())
def test_classes_are_on_one_side_each(split_seed, together):
    data = Episodes(
        Labelled(),
        target="class",
        ways=2,
        queries=3,
        keep_together="family" if together else None,
        val_classes=0.25,
        test_classes=0.25,
        split_seed=split_seed,
    )
    sides = {side: set(members) for side, members in data.members.items()}
    assert set.union(*sides.values()) == set(range(12))
    assert sum(map(len, sides.values())) == 12
    assert len(sides["test"]) == len(sides["val"]) == 3
    if together:
        families = [{number // 3 for number in own} for own in sides.values()]
        assert sum(map(len, families)) == 4
    for side in sides:
        numbers, _ = rows_of(data.split(side)[torch.arange(5)], 5)
        assert set((numbers % 12).flatten().tolist()) <= sides[side]


def test_support_labels_are_no_targets_and_padding_has_none():
    data = Episodes(Labelled(), target="class", ways=2, queries=3, val_classes=3 / 12)
    batch = data.split("train")[torch.tensor([4, -1])]
    support = batch.extras["support"]
    assert ((batch.targets["class"] >= 0) == (~support & (torch.arange(16) < 8))).all()
    assert ((batch.extras["label"] >= 0) == (support & (torch.arange(16) < 8))).all()
    assert batch.ids.tolist() == [*range(32, 40), *[-1] * 8]
    assert batch.extras["episode"].tolist() == [*[0] * 8, *[1] * 8]


def test_each_epoch_has_episodes_of_its_own_and_ranks_share_them():
    data = Episodes(Labelled(), target="class", ways=2, episodes_per_batch=4, episodes_per_epoch=10)
    sampler = data.training_batches(data.split("train"), shuffle=True)
    assert [batch.tolist() for batch in sampler] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    sampler.set_epoch(3)
    assert next(batch.tolist() for batch in sampler) == [30, 31, 32, 33]
    sampler.resume(3, 1)
    assert next(batch.tolist() for batch in sampler) == [34, 35, 36, 37]
    fixed = data.training_batches(data.split("train"), shuffle=False)
    fixed.set_epoch(3)
    assert next(batch.tolist() for batch in fixed) == [0, 1, 2, 3]
    assert data.batch_size == 4 * 2 * 16


def test_an_episode_may_be_a_group():
    data = Episodes(Labelled(), target="value", group="user", shots=4, queries=6, test_classes=0.25)
    assert data.tasks == {"value": Labelled().tasks["value"]}
    batch = data.split("train")[torch.arange(6)]
    numbers, labels = rows_of(batch, 6)
    assert numbers.shape == (6, 10)
    for e in range(6):
        assert len(set((numbers[e] % 8).tolist())) == 1
    torch.testing.assert_close(labels, numbers / 10)
    assert {side: len(members) for side, members in data.members.items()} == {
        "train": 4,
        "val": 2,
        "test": 2,
    }


def test_sides_may_be_named():
    data = Episodes(
        Labelled(),
        target="class",
        ways=3,
        keep_together="family",
        val_classes=["b"],
        test_classes=["c"],
        queries=5,
    )
    assert set(data.members["val"]) == {3, 4, 5}
    assert set(data.members["test"]) == {6, 7, 8}
    assert len(data.members["train"]) == 6


def test_pooled_rows_come_in_the_order_asked_for():
    source = Labelled(rows=30)
    pooled = PooledRows([source.split(name) for name in ("train", "val", "test")])
    numbers = torch.cat([source.split(name).inputs[:, 0] for name in ("train", "val", "test")])
    ids = torch.tensor([29, 0, 13, 5, 25, 13])
    torch.testing.assert_close(pooled[ids].inputs[:, 0], numbers[ids])
    assert pooled.targets("value").tolist() == (numbers / 10).tolist()


def test_runs_of_the_source_test(tmp_path):
    source = Omniglot(str(write_omniglot(tmp_path, ways=3)))
    settings = {"target": "character", "ways": 3, "queries": 2, "own_runs": True}
    settings["val_classes"] = 0.4
    data = Episodes(source, **settings, test_classes=[])
    rows = data.split("test")
    assert (len(rows), rows.size) == (2, 6)
    assert list(rows[torch.arange(2)].targets) == ["character"]
    with pytest.raises(UserError, match=r"data\.ways must be 3 and data\.shots 1"):
        Episodes(source, **settings | {"ways": 4}).split("test")
    with pytest.raises(UserError, match="Labelled comes with no episodes of its own"):
        Episodes(Labelled(), target="class", ways=3, own_runs=True).split("test")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"ways": 1}, "data.ways is 1"),
        ({"shots": 0}, "data.shots is 0"),
        ({"episodes_per_batch": 0}, "data.episodes_per_batch is 0"),
        ({"ways": 9}, "data.ways is 9, but the train side has 8 classes of 'class'"),
        ({"ways": 2, "queries": 30}, "data.shots + data.queries is 31, but no class of 'class'"),
        ({"target": "value"}, "data.target 'value' is a Regression, which has no classes"),
        ({"target": "klass"}, "data.target names 'klass'; did you mean 'class'?"),
        ({"target": None}, "data.target is missing: name one of the source's tasks class, family"),
        ({"keep_together": "famly"}, "data.keep_together names 'famly'"),
        ({"ways": 2, "val_classes": ["x"]}, "data.val_classes names 'x', which is no class"),
        ({"ways": 2, "val_classes": ["1"], "test_classes": ["1"]}, "'1' is on another side"),
        ({"ways": 2, "test_classes": 1.5}, "data.test_classes is 1.5; a share lies in [0, 1)"),
    ],
)
def test_settings_that_cannot_be_right(given, says):
    settings = {"target": "class", "ways": 2, "queries": 5} | given
    with pytest.raises(UserError) as error:
        Episodes(Labelled(), **settings).split("train")
    assert says in str(error.value)


def test_sources_that_episodes_cannot_read():
    with pytest.raises(UserError, match="Sinusoids has episodes already"):
        Episodes(Sinusoids(), target="y")

    class Weighted(Labelled):
        def split(self, name):
            rows = super().split(name)
            rows.weights = {"class": torch.ones(len(rows))}
            return rows

    with pytest.raises(UserError, match="gives its rows weights"):
        Episodes(Weighted(), target="class", ways=2, queries=5).split("train")


def test_notes_and_names():
    data = Episodes(Digits(), target="digit", ways=2, queries=4, test_episodes=7)
    assert data.notes()[-1] == "episodes over classes of 'digit': 6 train, 2 val, 2 test"
    assert data.describe("test") == (
        "7 episodes of the test split, 2 support and 8 query rows each"
    )
    assert data.row_info("test")["id"][11] == "1/1"
    assert len(data.truth("test")["digit"][""]) == 70
