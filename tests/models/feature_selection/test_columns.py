"""Columns of inputs: what belongs together, and what a gate multiplies."""

import pytest
import torch

from src.batch import InputShape
from src.errors import UserError
from src.models.feature_selection.columns import (
    InputColumn,
    find_choosable,
    gate_inputs,
    list_columns,
    map_places,
)

TABLE = InputShape((3,), (4, 2), columns=("age", "age", "hours", "job", "sex"))


def test_a_number_and_its_indicator_are_one_column_and_a_category_is_one():
    assert list_columns(TABLE) == [
        InputColumn("age", dense=(0, 1)),
        InputColumn("hours", dense=(2,)),
        InputColumn("job", categories=(0,)),
        InputColumn("sex", categories=(1,)),
    ]
    assert map_places(list_columns(TABLE)) == ([0, 0, 1], [2, 3])


def test_inputs_without_names_are_counted():
    names = [column.name for column in list_columns(InputShape((2,), (3,)))]
    assert names == ["feature 1", "feature 2", "category 1"]
    assert [c.name for c in list_columns(InputShape((2, 4, 4)))] == ["channel 1", "channel 2"]


def test_a_text_or_an_image_among_several_inputs_is_one_column():
    shape = InputShape(
        members=(
            ("table", TABLE),
            ("note", InputShape(tokens=9)),
            ("photo", InputShape((3, 4, 4))),
        )
    )
    *of_table, note, photo = list_columns(shape)
    assert [column.member for column in of_table] == ["table"] * 4
    assert note == InputColumn("note", "note", whole=True)
    assert photo == InputColumn("photo", "photo", whole=True)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (InputShape(tokens=9), "tokens, whose positions"),
        (InputShape(nodes=3), "graphs, whose nodes"),
        (InputShape((5, 3)), "sequences, whose positions"),
        (InputShape((1, 8, 8)), "gives one, channel 1"),
        (InputShape(members=(("table", TABLE),)), "several inputs"),
    ],
)
def test_what_has_no_columns_is_refused(shape, words):
    with pytest.raises(UserError, match=words):
        find_choosable(shape, "StochasticGates")


def test_each_row_has_a_view_behind_each_set_of_gates():
    gates = torch.tensor([[1.0, 0.0, 1.0, 0.5], [0.5, 1.0, 0.0, 1.0]])
    inputs = {
        "dense": torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        "categorical": torch.tensor([[1, 0], [2, 1]]),
    }
    found = gate_inputs(inputs, gates, map_places(list_columns(TABLE)))
    assert found["dense"].tolist() == [[1, 2, 0], [0.5, 1, 3], [4, 5, 0], [2, 2.5, 6]]
    assert found["categorical"].tolist() == [[1, 0], [1, 0], [2, 1], [2, 1]]
    assert found["gates"].tolist() == [[1, 0.5], [0, 1], [1, 0.5], [0, 1]]


def test_a_channel_of_an_image_has_a_gate():
    images = torch.randn(3, 2, 4, 5)
    gates = torch.tensor([[0.0, 0.5]])
    found = gate_inputs(images, gates, map_places(list_columns(InputShape((2, 4, 5)))))
    assert torch.equal(found, images * torch.tensor([0, 0.5])[:, None, None])
