"""Columns of sets and intervals."""

import torch

from src.cli.coverage import name_ends, name_sets
from src.tasks import BinaryClassification, MultilabelClassification, Regression
from src.tasks.calibration.conformal import Conformal


def test_words_of_sets() -> None:
    task = BinaryClassification(classes=("no", "yes"))
    chosen = [[True, True], [False, True], [False, False]]
    assert name_sets(Conformal(task, {}), chosen) == {"set": ["no|yes", "yes", ""]}


def test_each_label_has_a_column() -> None:
    task = MultilabelClassification(labels=("x", "y"))
    chosen = [[[True, False], [True, True]]]
    expected = {"set_x": ["0"], "set_y": ["0|1"]}
    assert name_sets(Conformal(task, {}), chosen) == expected


def test_ends_of_a_number_and_of_a_vector() -> None:
    ends = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    one = Conformal(Regression(mean=(0.0,), std=(1.0,)), {})
    assert name_ends(one, ends[:, :1].unbind(1)) == {"low": [1.0], "high": [2.0]}
    two = Conformal(Regression(names=("u", "v")), {})
    expected = {"low_u": [1.0], "high_u": [2.0], "low_v": [3.0], "high_v": [4.0]}
    assert name_ends(two, ends.unbind(1)) == expected
