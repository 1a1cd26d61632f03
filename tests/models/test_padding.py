"""Outputs at padding are hidden, and no others."""

import torch

from src.models.padding import find_real, hide_padding


def test_only_outputs_of_padded_tokens_are_hidden() -> None:
    tokens = torch.tensor([[4, 2, 0], [7, 0, 0]])
    outputs = {"tags": torch.ones(2, 3, 2), "genre": torch.ones(2, 3)}
    shown = hide_padding(outputs, {"tokens": tokens})
    expected = [[False, False, True], [False, True, True]]
    assert shown["tags"].isnan().all(-1).tolist() == expected
    assert shown["tags"].isnan().any(-1).tolist() == expected
    torch.testing.assert_close(shown["genre"], torch.ones(2, 3))


def test_nodes_of_graphs_have_a_mask_of_their_own() -> None:
    mask = torch.tensor([[True, False]])
    assert find_real({"nodes": torch.zeros(1, 2, 3), "node_mask": mask}) is mask
    assert find_real(torch.zeros(1, 2)) is None
    assert find_real({"dense": torch.zeros(1, 2)}) is None
