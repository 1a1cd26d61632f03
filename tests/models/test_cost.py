from functools import partial

import pytest
from torch import nn

from src.batch import InputShape
from src.models.cost import count_cost, describe_cost, shorten_number
from src.models.encoders import MLP, ConvNet
from src.models.sharing import HardSharing, Separate, TaskAdapters, WeightedSharing

SHAPE = InputShape((5,))


def test_parameters_and_products_are_counted():
    encoder = MLP(SHAPE, width=8, depth=1)
    parameters = (5 * 8 + 8) + (8 + 8) + 2 * (8 * 8 + 8) + (8 + 8)
    assert count_cost(encoder, SHAPE) == (parameters, 2 * (5 * 8 + 8 * 8 + 8 * 8))
    assert encoder.training


def test_convolutions_are_counted():
    shape = InputShape((2, 6, 6))
    assert count_cost(ConvNet(shape, width=4, depth=1), shape)[1] == 2 * 36 * 9 * (2 * 4 + 4 * 4)


@pytest.mark.parametrize(
    ("sharing", "says"),
    [
        (HardSharing, "224 parameters, 336 FLOPs a sample"),
        (
            Separate,
            "672 parameters (3.0 times hard sharing), 1.01 k FLOPs a sample (3.0 times hard "
            "sharing)",
        ),
        (
            partial(TaskAdapters, rank=0),
            "224 parameters, 1.01 k FLOPs a sample (3.0 times hard sharing)",
        ),
        (
            WeightedSharing,
            "690 parameters (3.1 times hard sharing), 1.01 k FLOPs a sample (3.0 times hard "
            "sharing)",
        ),
    ],
)
def test_architectures_are_compared_with_hard_sharing(sharing, says):
    make = partial(MLP, SHAPE, width=8, depth=1)
    assert describe_cost(sharing(make, ["a", "b", "c"]), make, SHAPE) == says


def test_a_network_without_products_has_no_ratio():
    class Nothing(nn.Module):
        def forward(self, x):
            return x

    assert describe_cost(Nothing(), Nothing, SHAPE) == "0 parameters, 0 FLOPs a sample"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1 k"),
        (123456, "123 k"),
        (4.56e6, "4.56 M"),
        (7e9, "7 G"),
        (1.5e12, "1.5 T"),
    ],
)
def test_short_numbers(value, says):
    assert shorten_number(value) == says
