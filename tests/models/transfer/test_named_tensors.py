"""Values move between tensors by the names of positions."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from src.models.encoders.columns import Axis
from src.models.transfer.named_tensors import NamedTensor, copy_by_name, fits, name_all

NAMES = st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=1)


@given(NAMES, NAMES, NAMES, NAMES)
def test_each_position_has_the_value_of_its_names(
    rows: list[str], columns: list[str], old_rows: list[str], old_columns: list[str]
) -> None:
    target = torch.full((len(rows), 2, len(columns)), -1.0)
    source = torch.randn(len(old_rows), 2, len(old_columns))
    copied = copy_by_name(
        NamedTensor(target, {0: Axis(tuple(rows)), 2: Axis(tuple(columns))}),
        NamedTensor(source, {0: Axis(tuple(old_rows)), 2: Axis(tuple(old_columns))}),
    )
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            expected = torch.full((2,), -1.0)
            if row in old_rows and column in old_columns:
                expected = source[old_rows.index(row), :, old_columns.index(column)]
            assert torch.equal(target[i, :, j], expected)
    new = {*rows} - {*old_rows} | {*columns} - {*old_columns}
    gone = {*old_rows} - {*rows} | {*old_columns} - {*columns}
    assert copied.new == new
    assert copied.gone == gone


def test_new_positions_start_at_zero_or_as_a_copy() -> None:
    target = torch.full((3, 3), 9.0)
    rows = Axis(("unseen", "new", "b"), like="unseen")
    source = NamedTensor(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), {0: Axis(("b", "unseen"))})
    source.axes[1] = Axis(("x", "y"))
    copy_by_name(NamedTensor(target, {0: rows, 1: Axis(("y", "z", "x"), zero=True)}), source)
    assert target.tolist() == [[4.0, 0.0, 3.0], [4.0, 0.0, 3.0], [2.0, 0.0, 1.0]]


def test_dimensions_without_names_must_be_equal() -> None:
    one = NamedTensor(torch.zeros(2, 3), {0: Axis(("a", "b"))})
    assert fits(one, NamedTensor(torch.zeros(1, 3), {0: Axis(("a",))}))
    assert not fits(one, NamedTensor(torch.zeros(1, 4), {0: Axis(("a",))}))
    assert not fits(one, NamedTensor(torch.zeros(2, 3)))
    assert not fits(one, NamedTensor(torch.zeros(2, 3).long(), {0: Axis(("a", "b"))}))


def test_a_long_list_of_names_is_cut() -> None:
    assert name_all("abc") == "a, b, c"
    assert name_all("abcdefgh") == "a, b, c, d, e, f and 2 more"
