"""Draws of few examples: stratified, nested, functions of their key."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.examples import (
    ExampleRows,
    check_shots,
    draw_examples,
    find_groups,
    find_labelled,
    pad_labels,
    read_targets,
)
from src.errors import UserError
from src.tasks import BinaryClassification, Classification, MultilabelClassification, Regression
from tests.toy import Toy

NAN = float("nan")


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(4, 60),
    classes=st.integers(1, 4),
    seed=st.integers(0, 2**31),
    draw=st.integers(0, 100),
)
def test_draws_are_nested_and_hold_each_class(
    rows: int, classes: int, seed: int, draw: int
) -> None:
    labels = torch.arange(rows) % classes
    groups = labels[:, None] == torch.arange(classes)
    labelled = torch.arange(rows) % 5 != 4
    count = int(labelled.sum())
    whole = draw_examples(labelled, groups, count, seed, draw)
    assert sorted(whole.tolist()) == labelled.nonzero().flatten().tolist()
    for shots in range(1, count + 1):
        found = draw_examples(labelled, groups, shots, seed, draw)
        assert torch.equal(found, whole[:shots])
        present = set(labels[labelled].tolist())
        if shots >= len(present):
            assert set(labels[found].tolist()) == present


def test_draws_differ_by_seed_and_draw_alone() -> None:
    labelled = torch.ones(50, dtype=torch.bool)
    groups = torch.zeros(50, 0, dtype=torch.bool)
    draws = [draw_examples(labelled, groups, 10, seed, d) for seed in (0, 1) for d in range(3)]
    assert len({tuple(draw.tolist()) for draw in draws}) == 6
    assert torch.equal(draws[4], draw_examples(labelled, groups, 10, 1, 1))
    # a row is as likely as any other
    counts = torch.zeros(50)
    for draw in range(2000):
        counts[draw_examples(labelled, groups, 10, 7, draw)] += 1
    assert counts.min() > 320
    assert counts.max() < 480


def test_groups_are_classes_and_labels() -> None:
    names, groups = find_groups(Classification(classes=("a", "b")), torch.tensor([1, 0, -100]))
    assert names == ["a", "b"]
    assert groups.tolist() == [[False, True], [True, False], [False, False]]
    names, groups = find_groups(BinaryClassification(classes=(0, 1)), torch.tensor([1.0, NAN]))
    assert groups.tolist() == [[False, True], [False, False]]
    task = MultilabelClassification(labels=("x", "y"))
    names, groups = find_groups(task, torch.tensor([[1.0, NAN], [0.0, 1.0]]))
    assert names == ["x", "y"]
    assert groups.tolist() == [[True, False], [False, True]]
    assert find_groups(Regression(mean=(0.0,), std=(1.0,)), torch.zeros(3))[1].shape == (3, 0)
    # labels of words are no classes of a sentence
    words = Classification(classes=("a", "b"))
    assert find_groups(words, torch.zeros(3, 4, dtype=torch.long))[0] == []


def test_a_row_with_any_label_is_labelled() -> None:
    assert find_labelled(torch.tensor([[NAN, 1.0], [NAN, NAN]])).tolist() == [True, False]
    assert find_labelled(torch.tensor([0, -100])).tolist() == [True, False]


def test_too_many_examples_are_refused_with_the_count_of_each_class() -> None:
    labels = torch.tensor([0, 0, 1, -100])
    names, groups = find_groups(Classification(classes=("a", "b")), labels)
    labelled = find_labelled(labels)
    check_shots("x", [1, 3], labelled, names, groups)
    with pytest.raises(UserError, match=r"--shots 4.* 3 with a label of 'x' \(a 2, b 1\)"):
        check_shots("x", [1, 4], labelled, names, groups)
    names, groups = find_groups(Classification(classes=("a", "b", "c")), labels)
    with pytest.raises(UserError, match="no training row is of the class c"):
        check_shots("x", [1], labelled, names, groups)


def test_examples_have_the_labels_of_one_task_alone() -> None:
    data = Toy()
    rows = data.split("train")
    ids = torch.tensor([7, 3, 11])
    batch = ExampleRows(rows, ids, "vector")[torch.tensor([2, 0, -1])]
    whole = rows[torch.tensor([11, 7])]
    assert isinstance(batch.inputs, torch.Tensor)
    assert isinstance(whole.inputs, torch.Tensor)
    assert torch.equal(batch.inputs[:2], whole.inputs)
    assert torch.equal(batch.targets["vector"][:2].isnan(), whole.targets["vector"].isnan())
    assert batch.targets["vector"][2].isnan().all()
    assert batch.targets["number"].isnan().all()
    assert (batch.targets["class"] == -100).all()


def test_labels_of_places_are_padded() -> None:
    joined = pad_labels([torch.tensor([[1, 2]]), torch.tensor([[3]])])
    assert joined.tolist() == [[1, 2], [3, -100]]
    assert read_targets(Toy().split("train"), "number", 10).shape == (211,)
