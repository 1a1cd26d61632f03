"""Finds tensors in nested values, and counts their bytes."""

from collections.abc import Iterable, Mapping

from torch import Tensor


def list_tensors(tree: object) -> list[Tensor]:
    """Returns the tensors in nested mappings, lists and tuples, in their order."""
    if isinstance(tree, Tensor):
        return [tree]
    children: Iterable[object] = ()
    if isinstance(tree, Mapping):
        children = tree.values()
    elif isinstance(tree, list | tuple):
        children = tree
    return [tensor for child in children for tensor in list_tensors(child)]


def count_bytes(tensors: Iterable[Tensor]) -> int:
    """Returns the bytes of some tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
