"""Rows of predictions are brought together from batches of different lengths."""

from math import nan

import torch

from src.cli.rows import sort_rows


def test_sequences_of_different_lengths_are_filled_up() -> None:
    first = torch.tensor([2, 0]), {"tags": torch.ones(2, 1, 1)}
    second = torch.tensor([1, -1]), {"tags": torch.full((2, 3, 1), 5.0)}
    ids, outputs = sort_rows([first, second])
    assert ids.tolist() == [0, 1, 2]
    expected = torch.tensor([[1.0, nan, nan], [5, 5, 5], [1, nan, nan]])
    torch.testing.assert_close(outputs["tags"][..., 0], expected, equal_nan=True)


def test_columns_that_are_decoded_already_are_sorted_with_their_rows() -> None:
    first = torch.tensor([1, 2]), {"mask": {"": ["b", "c"], "share": [0.2, 0.3]}}
    second = torch.tensor([0, -1]), {"mask": {"": ["a", "padding"], "share": [0.1, 9.0]}}
    _, outputs = sort_rows([first, second])
    assert outputs["mask"] == {"": ["a", "b", "c"], "share": [0.1, 0.2, 0.3]}
