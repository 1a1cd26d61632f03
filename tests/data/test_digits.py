import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from src.data import Digits
from src.errors import UserError


@pytest.fixture(scope="module")
def data():
    return Digits()


def test_splits_cut_all_images(data):
    parts = {name: data.split(name) for name in ("train", "val", "test")}
    assert {name: len(rows) for name, rows in parts.items()} == {
        "train": 1079,
        "val": 359,
        "test": 359,
    }
    rows = torch.cat(list(data._splits.values()))
    assert sorted(rows.tolist()) == list(range(1797))
    assert data.input_shape.dense == tuple(parts["val"].inputs.shape[1:])
    assert torch.equal(data.split("predict").inputs, parts["test"].inputs)


def test_labels_against_scikit_learn(data):
    digits = load_digits()
    images, digit = digits.images / 16, digits.target
    train, val = (data._splits[name].numpy() for name in ("train", "val"))
    targets = data.split("val").targets
    assert targets["digit"].tolist() == digit[val].tolist()
    assert targets["odd"].tolist() == (digit[val] % 2).tolist()
    ink = images.sum((1, 2))
    np.testing.assert_allclose(
        targets["ink"], (ink[val] - ink[train].mean()) / ink[train].std(), rtol=1e-4, atol=1e-5
    )
    quarters = np.stack(
        [images[:, r : r + 4, c : c + 4].sum((1, 2)) for r in (0, 4) for c in (0, 4)], 1
    )
    assert (
        targets["quadrants"].numpy() == (quarters > np.median(quarters[train], axis=0))[val]
    ).all()
    assert data.tasks["quadrants"].labels == (
        "top left",
        "top right",
        "bottom left",
        "bottom right",
    )


def test_the_split_has_a_seed_of_its_own(data):
    assert torch.equal(Digits(seed=4)._splits["test"], data._splits["test"])
    assert not torch.equal(Digits(split_seed=1)._splits["test"], data._splits["test"])


def test_fewer_images_train_and_the_others_stay_as_they_are() -> None:
    whole = Digits()._splits
    half = Digits(train_fraction=0.5)._splits
    quarter = Digits(train_fraction=0.25)._splits
    assert len(half["train"]) == round(len(whole["train"]) / 2)
    assert set(quarter["train"].tolist()) < set(half["train"].tolist())
    assert set(half["train"].tolist()) < set(whole["train"].tolist())
    assert torch.equal(half["test"], whole["test"])
    assert torch.equal(half["val"], whole["val"])
    with pytest.raises(UserError, match=r"data.train_fraction is 0; a share lies in \(0, 1\]"):
        Digits(train_fraction=0)
