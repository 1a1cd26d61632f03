"""Decoding by tensors gives the columns of ``Task.decode``."""

import numpy as np
import pytest
import torch

from src.deployment.coverage import Coverage
from src.deployment.decoding import MAP, decode_all, decode_tensors, find_ties
from src.errors import UserError
from src.tasks import (
    BinaryClassification,
    CensoredRegression,
    Classification,
    Counts,
    DenseRegression,
    MultilabelClassification,
    Ordinal,
    Quantiles,
    Regression,
    Segmentation,
    SequenceLabelling,
    SurfaceNormals,
    Survival,
)
from src.tasks.calibration.conformal import score_rows
from src.tasks.dependence import decode_factor

TASKS = {
    "binary": BinaryClassification(classes=("no", "yes"), threshold=0.3),
    "class": Classification(classes=(3, 5, 9)),
    "words": Classification(classes=("a", "b")),
    "labels": MultilabelClassification(labels=("x", "y"), thresholds=(0.2, 0.7)),
    "number": Regression(mean=(5.0,), std=(2.0,)),
    "vector": Regression(mean=(5.0, 1.0), std=(2.0, 3.0), names=("u", "v")),
    "corn": Ordinal(classes=("low", "mid", "high"), method="corn"),
    "cumulative": Ordinal(classes=("low", "mid", "high"), method="cumulative"),
    "quantiles": Quantiles(mean=1e6, std=3.0),
    "censored": CensoredRegression(mean=2.0, std=3.0),
    "counts": Counts(rate=2.0, mean=2.0),
    "dispersed": Counts(rate=2.0, mean=2.0, distribution="negative_binomial"),
    "survival": Survival(ends=(1.0, 2.0, 4.0)),
}
MAPS = {
    "classes": Segmentation(classes=("sky", "sea", "land")),
    "depth": DenseRegression(mean=(5.0,), std=(2.0,)),
    "normals": SurfaceNormals(),
}


def outputs_of(task, *places):
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.randn(20, *places, task.out_features, generator=generator)


def as_plain(column):
    values = column.values.numpy()
    return (np.array(column.classes, object)[values] if column.classes else values).tolist()


@pytest.mark.parametrize("name", TASKS)
def test_columns_are_those_of_decode(name):
    task = TASKS[name]
    outputs = outputs_of(task)
    expected = task.decode(outputs)
    found = decode_tensors(task, outputs)
    assert list(found) == list(expected)
    for suffix, column in found.items():
        assert as_plain(column) == expected[suffix]


@pytest.mark.parametrize("name", MAPS)
def test_maps_stand_beside_the_columns_of_decode(name):
    task = MAPS[name]
    outputs = outputs_of(task, 3, 4)
    found = decode_tensors(task, outputs)
    maps = found.pop(MAP)
    for suffix, values in task.decode(outputs).items():
        np.testing.assert_allclose(as_plain(found[suffix]), values, rtol=1e-6)
    np.testing.assert_allclose(np.array(as_plain(maps), float), task.decode_map(outputs), rtol=1e-6)


def test_words_of_a_sentence_end_where_padding_begins():
    task = SequenceLabelling(classes=("A", "B"))
    outputs = outputs_of(task, 4)
    outputs[3, 2:] = torch.nan
    (words,) = decode_tensors(task, outputs).values()
    joined = [" ".join(word for word in row if word) for row in as_plain(words)]
    assert joined == task.decode(outputs)[""]
    with pytest.raises(UserError, match="crf true"):
        decode_tensors(SequenceLabelling(classes=("A", "B"), crf=True), outputs)


def test_conditional_probabilities_have_a_column():
    tasks = {
        "click": BinaryClassification(classes=(0, 1)),
        "buy": BinaryClassification(classes=(0, 1), depends_on="click", entire_space=True),
    }
    outputs = {"click": outputs_of(tasks["click"]), "buy": outputs_of(tasks["buy"]) - 3}
    expected = decode_factor("buy", tasks, outputs)
    found = decode_all(tasks, outputs)["buy"]
    for suffix, values in expected.items():
        np.testing.assert_allclose(as_plain(found[suffix]), values, rtol=1e-12)


@pytest.mark.parametrize("method", ["lac", "aps"])
@pytest.mark.parametrize("name", ["binary", "class", "labels"])
def test_sets_are_those_of_the_scores(name, method):
    task = TASKS[name]
    outputs = outputs_of(task)
    targets = torch.zeros(20, 2) if name == "labels" else torch.zeros(20)
    shares = torch.full((20, targets.shape[-1] if targets.ndim > 1 else 1), 0.5)
    conformal = score_rows(task, outputs, targets, shares)
    columns = Coverage({"t": conformal}, 0.8, method).decode({"t": outputs})["t"]
    chosen = torch.stack([column.values for column in columns.values()], 1).squeeze(1)
    assert torch.equal(chosen, conformal.sets(outputs, 0.8, method))
    assert all(column.is_set for column in columns.values())


def test_intervals_have_two_ends_each():
    task = TASKS["vector"]
    outputs = outputs_of(task)
    conformal = score_rows(task, outputs, torch.zeros(20, 2), torch.full((20, 2), 0.5))
    columns = Coverage({"t": conformal}, 0.8, "lac").decode({"t": outputs})["t"]
    assert list(columns) == ["low_u", "high_u", "low_v", "high_v"]
    assert bool((columns["low_v"].values < columns["high_v"].values).all())


def test_a_row_on_the_edge_is_a_tie():
    task = BinaryClassification(classes=("no", "yes"), threshold=0.5)
    outputs = torch.tensor([[1e-6], [-1e-6], [0.1], [-2.0]])
    ties = find_ties(lambda x: decode_tensors(task, x), outputs, 1e-5)
    assert ties.tolist() == [True, True, False, False]
    three = Classification(classes=("a", "b", "c"))
    outputs = torch.tensor([[1.0, 1.000001, 0.0], [3.0, 1.0, 0.0]])
    assert find_ties(lambda x: decode_tensors(three, x), outputs, 1e-5).tolist() == [True, False]
