from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.trainer.states import TrainerFn

from src.batch import PADDING, InputShape
from src.data import MultiTaskDataModule, Rows
from src.data.datamodule import standard_split
from src.tasks import MISSING, Regression


class Line(MultiTaskDataModule):
    """Rows 0 ... 9 with their numbers for labels."""

    @property
    def tasks(self):
        return {"y": Regression(mean=(0.0,), std=(1.0,))}

    @property
    def input_shape(self):
        return InputShape((1,))

    def split(self, name):
        y = torch.arange({"train": 10.0, "val": 5.0}.get(name, 3.0))
        return Rows(y[:, None], {"y": y})


def rows():
    return Rows(
        {"dense": torch.arange(6.0).view(3, 2), "categorical": torch.arange(3)[:, None]},
        {
            "y": torch.tensor([0.0, 1.0, 2.0]),
            "k": torch.tensor([5, 6, 7]),
            "v": torch.arange(6.0).view(3, 2),
        },
        {"group": torch.tensor([9, 8, 7])},
    )


def test_rows_are_taken_in_the_order_asked_for():
    batch = rows()[torch.tensor([2, 0])]
    assert batch.inputs["dense"].tolist() == [[4, 5], [0, 1]]
    assert batch.inputs["categorical"].tolist() == [[2], [0]]
    assert batch.targets["k"].tolist() == [7, 5]
    assert batch.extras["group"].tolist() == [7, 9]
    assert batch.ids.tolist() == [2, 0]
    assert len(rows()) == 3


def test_padding_repeats_a_row_with_all_labels_missing_and_leaves_the_data_alone():
    data = rows()
    batch = data[torch.tensor([1, PADDING, PADDING])]
    np.testing.assert_array_equal(batch.targets["y"], [1, np.nan, np.nan])
    assert batch.targets["k"].tolist() == [6, MISSING, MISSING]
    np.testing.assert_array_equal(batch.targets["v"], [[2, 3], [np.nan] * 2, [np.nan] * 2])
    assert batch.inputs["dense"].tolist() == [[2, 3], [0, 1], [0, 1]]
    assert data.targets["y"].tolist() == [0, 1, 2]
    assert data.targets["k"].tolist() == [5, 6, 7]


def test_rows_of_a_tensor_without_labels():
    data = Rows(torch.arange(4.0)[:, None])
    assert len(data) == 4
    assert data[torch.tensor([3, PADDING])].targets == {}


def test_rows_followed_by_others():
    first = Rows(
        {"a": torch.arange(2.0)[:, None]},
        {"y": torch.tensor([1.0, 2])},
        row_info={"id": ["p", "q"]},
    )
    second = Rows(
        {"a": torch.arange(5.0, 8)[:, None]},
        {"y": torch.tensor([3.0, 4, 5])},
        row_info={"id": [7, 8, 9]},
    )
    both = first.append(second)
    assert both.inputs["a"].ravel().tolist() == [0, 1, 5, 6, 7]
    assert both.targets["y"].tolist() == [1, 2, 3, 4, 5]
    assert both.row_info == {"id": ["p", "q", 7, 8, 9]}
    assert both[torch.tensor([3, 0])].targets["y"].tolist() == [4, 1]


@settings(deadline=None)
@given(
    count=st.integers(1, 400),
    seed=st.integers(0, 99),
    val=st.floats(0, 0.4),
    test=st.floats(0, 0.4),
)
def test_standard_split_cuts_each_row_to_one_side_in_proportion(count, seed, val, test):
    parts = standard_split(count, seed, val, test)
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(count))
    assert len(parts["val"]) == round(count * val)
    assert len(parts["test"]) == round(count * test)
    assert all(part.tolist() == sorted(part.tolist()) for part in parts.values())


def test_loaders():
    data = Line(batch_size=4, eval_batch_size=3, seed=5)
    train = list(data.train_dataloader())
    assert [len(batch) for batch in train] == [4, 4, 2]
    assert sorted(torch.cat([batch.ids for batch in train]).tolist()) == list(range(10))
    assert torch.cat([batch.ids for batch in train]).tolist() != list(range(10))
    assert [batch.ids.tolist() for batch in data.val_dataloader()] == [[0, 1, 2], [3, 4]]
    assert [batch.targets["y"].tolist() for batch in data.test_dataloader()] == [[0, 1, 2]]
    assert [batch.ids.tolist() for batch in data.predict_dataloader()] == [[0, 1, 2]]
    data.test_split = "val"
    assert len(data.test_dataloader()) == 2
    assert len(data.predict_dataloader()) == 1
    assert data.notes() == ["task y: Regression"]
    assert data.schema() is data.fingerprint() is None
    assert data.files() == data.remarks == []
    assert data.row_info("test") == {}
    assert data.describe("val") == "5 rows of the val split"
    assert data.truth("test") == {"y": {"": [0.0, 1.0, 2.0]}}
    assert not data.new_rows
    assert not data.allow_missing


def test_the_seed_orders_the_training_batches():
    def order(seed):
        return torch.cat([batch.ids for batch in Line(seed=seed).train_dataloader()]).tolist()

    assert order(1) == order(1) != order(2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"eval_batch_size": -4}, "data.eval_batch_size is -4"),
        ({"num_workers": -1}, "data.num_workers is -1"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Line(**settings)


class Fitting:
    """A trainer as a data module sees it."""

    world_size, overfit_batches = 1, 0
    state = SimpleNamespace(fn=TrainerFn.FITTING)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))


def ids_of(loader):
    return [batch.ids.tolist() for batch in loader]


@pytest.mark.parametrize("asked", ["before", "after", "before and after", "twice after"])
@pytest.mark.parametrize("workers", [0, 1])
def test_the_restored_position_counts_whenever_the_loader_is_asked_for(asked, workers):
    """A schedule asks for the number of steps, perhaps before the position is restored."""
    data = Line(batch_size=3, num_workers=workers)
    data.trainer = Fitting()
    loader = data.train_dataloader()
    loader.sampler.set_epoch(1)
    second = ids_of(loader)
    assert len(second) == 4

    data = Line(batch_size=3, num_workers=workers)
    data.trainer = Fitting()
    if "before" in asked:
        loader = data.train_dataloader()
        assert len(loader) == 4
    data.load_state_dict({"epoch": 1, "step": 2})
    for _ in range({"before": 0, "twice after": 2}.get(asked, 1)):
        loader = data.train_dataloader()
    loader.sampler.set_epoch(1)
    assert ids_of(loader) == second[2:]
    loader.sampler.set_epoch(2)
    assert len(ids_of(loader)) == 4

    data.trainer = Fitting()  # another run begins at the first row
    loader = data.train_dataloader()
    loader.sampler.set_epoch(1)
    assert ids_of(loader) == second
