import pytest
import torch

from src.batch import InputShape
from src.errors import UserError
from src.models.encoders import Perceptron


def test_it_is_linear_layers_with_relu():
    torch.manual_seed(0)
    encoder = Perceptron(InputShape((3,)), width=4, depth=2)
    first = encoder.stages[0][0][1]
    second = encoder.stages[1][0]
    x = torch.randn(5, 3)
    z = (x @ first.weight.T + first.bias).relu()
    z = (z @ second.weight.T + second.bias).relu()
    torch.testing.assert_close(encoder(x), z)
    assert sum(p.numel() for p in encoder.parameters()) == 3 * 4 + 4 + 4 * 4 + 4


def test_what_it_cannot_read():
    with pytest.raises(UserError, match="sequences of tokens: use"):
        Perceptron(InputShape(tokens=9))
    with pytest.raises(UserError, match="depth 0"):
        Perceptron(InputShape((3,)), depth=0)
