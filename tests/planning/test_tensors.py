"""Tensors in nested values."""

import torch

from src.planning.tensors import count_bytes, list_tensors


def test_tensors_are_found_in_order() -> None:
    a, b, c, d = torch.zeros(4, 3).unbind()
    tree = {"first": [a, (b, "text")], "second": {"none": None, "third": c}, "last": d}
    assert [id(tensor) for tensor in list_tensors(tree)] == [id(tensor) for tensor in (a, b, c, d)]
    assert list_tensors(3) == []


def test_bytes_are_those_of_each_type() -> None:
    assert count_bytes([torch.zeros(3), torch.zeros(2, 2, dtype=torch.float64)]) == 3 * 4 + 4 * 8
    assert count_bytes([]) == 0
