"""Features of inputs in the data's own words, and their baselines."""

import torch

from src.analysis.explanations.path import EMPTY, InputPath
from src.batch import InputShape
from src.cli.explaining.layout import (
    describe_baseline,
    list_features,
    make_baseline,
    number_pixels,
    read_numbers,
)

TABLE = InputShape((3,), (4, 2), columns=("age", "age", "hours", "job", "sex"))


def test_a_number_and_its_indicator_are_one_feature():
    features = list_features(TABLE, TABLE.example(), coarse=False)
    assert features.names == features.columns == ("age", "hours", "job", "sex")
    assert features.places["dense"].tolist() == [0, 0, 1]
    assert features.places["categorical"].tolist() == [2, 3]
    numbers = read_numbers(features, TABLE.example())
    torch.testing.assert_close(numbers[:, 0], TABLE.example()["dense"][:, 0].double())
    assert numbers[:, 2:].isnan().all()


def test_a_table_without_categories_among_several_inputs():
    shape = InputShape(members=(("t", InputShape((2,))), ("note", InputShape(tokens=5))))
    inputs = {
        "t/dense": torch.ones(3, 2),
        "t/categorical": torch.zeros(3, 0, dtype=torch.long),
        "note/tokens": torch.ones(3, 4, dtype=torch.long),
    }
    features = list_features(shape, inputs, coarse=False)
    baseline = make_baseline("mean", inputs)
    points, _ = InputPath(inputs, baseline, features).at(torch.ones(3, 6), torch.arange(3))
    assert points["t/categorical"].shape == (3, 0)
    assert torch.equal(points["t/dense"], inputs["t/dense"])


def test_pixels_and_patches():
    assert number_pixels(2, 3, coarse=False).tolist() == [[0, 1, 2], [3, 4, 5]]
    patches = number_pixels(28, 28, coarse=True)
    assert int(patches.max()) + 1 == 14 * 14
    assert patches[:2, :2].unique().tolist() == [0]
    # of an image that is not square, patches are
    assert int(number_pixels(28, 5, coarse=True).max()) + 1 == 14 * 3


def test_baselines_are_means_commonest_words_zeros_and_no_word():
    training = {
        "dense": torch.tensor([[1.0, 0.0], [3.0, 1.0]]),
        "categorical": torch.tensor([[2, 1], [2, 0]]),
        "tokens": torch.tensor([[2, 1], [2, 0]]),
    }
    found = make_baseline("mean", training)
    assert found["dense"].tolist() == [[2.0, 0.5]]
    assert found["categorical"][0, 0] == 2
    assert found["tokens"].tolist() == [[EMPTY]]
    assert make_baseline("zero", training)["dense"].tolist() == [[0.0, 0.0]]
    assert "commonest word" in describe_baseline("mean", TABLE)
    assert "mean image" in describe_baseline("mean", InputShape((1, 8, 8)))
    assert "no word" in describe_baseline("zero", InputShape(tokens=5))
