"""The values of rows that are compared: columns of tables, and what sums other inputs up."""

from dataclasses import replace

import numpy as np
import torch

from src.analysis.robustness.parts import Part
from src.analysis.shift.values import (
    list_predictions,
    list_values,
    make_features,
    merge_rare,
    rank_codes,
)
from src.batch import InputShape
from src.tasks import Classification, Regression
from tests.analysis.robustness.samples import COLUMNS, make_images, make_table


def test_missing_numbers_of_a_table_are_nan():
    part, inputs = make_table(20)
    age, hours, job, sex = list_values([part], inputs)
    assert np.isnan(age.values).sum() == 2
    assert np.allclose(hours.values, inputs["dense"][:, 2])
    assert (job.missing_code, job.words) == (3, COLUMNS[2].words)
    assert sex.missing_code is None


def test_images_are_summed_up_by_channel():
    part, images = make_images()
    found = {one.name: one.values for one in list_values([part], images)}
    assert list(found) == [
        "mean of channel 1",
        "spread of channel 1",
        "mean of channel 2",
        "spread of channel 2",
    ]
    assert np.allclose(found["mean of channel 2"], images[:, 1].mean((1, 2)))


def test_texts_have_a_length_and_tokens_that_are_not_independent():
    tokens = torch.tensor([[5, 6, 1, 0], [5, 0, 0, 0]])
    length, every = list_values([Part("", "text", InputShape(tokens=9))], {"tokens": tokens})
    assert length.values.tolist() == [3, 1]
    assert every.values.tolist() == [5, 6, 5]
    assert not every.by_row


def test_graphs_are_summed_up_by_their_nodes():
    shape = InputShape(nodes=2, edges=1)
    inputs = shape.example(4)
    found = {one.name: one.values for one in list_values([Part("", "graph", shape)], inputs)}
    assert found["nodes"].tolist() == [5, 4, 5, 4]
    assert found["edges"].tolist() == [8, 6, 8, 6]
    assert np.allclose(found["node feature 1"][1], inputs["nodes"][1, :4, 0].mean())


def test_rare_words_are_one_with_new_ones():
    before = np.array([1] * 20 + [2, 3, 4, 5])
    after = np.array([1] * 20 + [0, 0, 0, 0])
    x, y = merge_rare(before, after)
    assert x.tolist() == y.tolist()


def test_words_learnt_from_training_rows_are_no_shift():
    """All different words, which other rows cannot have, look the same on both sides."""
    part = Part("", "table", InputShape((), (201,)), (replace(COLUMNS[2], missing_code=0),))
    before = {"dense": torch.zeros(200, 0), "categorical": torch.arange(1, 201)[:, None]}
    after = {"dense": torch.zeros(200, 0), "categorical": torch.zeros(200, 1, dtype=torch.long)}
    features, categories = make_features([part], before, after)
    assert categories == [True]
    assert len(np.unique(features)) == 1


def test_features_of_a_classifier_have_a_row_for_each_row():
    part, images = make_images(6)
    features, categories = make_features([part], images[:4], images[4:])
    assert features.shape == (6, 4 + 2 * 64)
    assert not any(categories)

    text = Part("", "text", InputShape(tokens=9))
    tokens = torch.tensor([[5, 6, 5, 0], [5, 0, 0, 0], [6, 6, 0, 0]])
    features, _ = make_features([text], {"tokens": tokens[:2]}, {"tokens": tokens[2:]})
    # the length, then shares of the tokens 5 and 6
    assert np.allclose(features[:, :3], [[3, 2 / 3, 1 / 3], [1, 1, 0], [2, 0, 1]])


def test_codes_beyond_the_limit_of_classifiers_are_one():
    codes = np.repeat(np.arange(400), np.arange(400, 0, -1))
    ranks = rank_codes(codes, 200)
    assert ranks.max() == 200
    assert (ranks[codes == 7] == 7).all()


def test_predictions_are_decoded_or_the_mean_of_their_places():
    task = Classification(classes=("a", "b"))
    word, first, second = list_predictions("kind", task, torch.tensor([[0.0, 3.0], [2.0, 0.0]]))
    assert word.is_category
    assert [word.words[code - 1] for code in word.values] == ["b", "a"]
    assert (first.name, second.name) == ("kind.p_a", "kind.p_b")

    outputs = torch.tensor([[[1.0], [3.0]], [[5.0], [torch.nan]]])
    (mean,) = list_predictions("y", Regression(mean=(0.0,), std=(1.0,)), outputs)
    assert mean.values.tolist() == [2, 5]
