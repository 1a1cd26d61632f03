"""Heads of single vectors, of tokens, and of the mean over tokens."""

import torch

from src.tasks.head import Head, PooledHead


def test_depth_and_width():
    head = Head(4, 3, depth=2, width=5)
    assert [(layer.in_features, layer.out_features) for layer in head.linears] == [
        (4, 5),
        (5, 5),
        (5, 3),
    ]
    assert head(torch.randn(2, 7, 4)).shape == (2, 7, 3)


def test_the_mean_over_tokens_reads_no_padding_and_gives_it_no_gradient():
    torch.manual_seed(0)
    head = PooledHead(4, 3).double()
    features = torch.randn(2, 5, 4, dtype=torch.float64)
    features[1, 2:] = 0
    features.requires_grad_()
    outputs = head(features)
    linear = head.linears[0]
    torch.testing.assert_close(outputs[0], linear(features[0].mean(0)))
    torch.testing.assert_close(outputs[1], linear(features[1, :2].mean(0)))
    outputs.sum().backward()
    assert features.grad[1, 2:].abs().sum() == 0
    assert features.grad[1, :2].abs().min() > 0


def test_the_mean_over_pixels_reads_all_of_them():
    head = PooledHead(4, 3)
    features = torch.randn(2, 3, 5, 4)
    features[0, 0] = 0
    torch.testing.assert_close(head(features), head.linears[0](features.mean((1, 2))))
    assert head(features[:, 0, 0]).shape == (2, 3)
