"""Dropout: the right share, independent units, one mask for any number of devices."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from src.models.dropout import Dropout, draw_mask

keys = st.integers(0, 2**62 - 1)


@given(keys, st.integers(1, 64), st.integers(1, 7))
def test_devices_hold_parts_of_one_mask(key: int, units: int, devices: int) -> None:
    rows = torch.arange(4 * devices)
    parts = [draw_mask(key, part, torch.arange(units), 0.3) for part in rows.chunk(devices)]
    assert torch.equal(torch.cat(parts), draw_mask(key, rows, torch.arange(units), 0.3))


def standardised(key: int, p: float, rows: int = 2000, units: int = 512) -> Tensor:
    return (draw_mask(key, torch.arange(rows), torch.arange(units), p).double() - (1 - p)) / (
        p * (1 - p)
    ) ** 0.5


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_units_stay_with_the_right_probability_and_independently(p: float) -> None:
    z, other = standardised(1, p), standardised(2, p)
    n, d = z.shape
    assert abs(z.mean()) * (n * d) ** 0.5 < 4  # standard errors
    assert z.mean(0).std() * n**0.5 == pytest.approx(
        1, abs=0.15
    )  # rates of single units, and of single rows
    assert z.mean(1).std() * d**0.5 == pytest.approx(1, abs=0.1)
    for product in (
        z[1:] * z[:-1],
        z[:, 1:] * z[:, :-1],
        z * other,
        z[1:, 1:] * z[:-1, 1:] * z[1:, :-1] * z[:-1, :-1],
    ):
        assert (
            abs(product.mean()) * product.numel() ** 0.5 < 4
        )  # neighbours, another key, four corners of a square
    between_rows = z @ z.T / d**0.5
    assert between_rows[~torch.eye(n, dtype=torch.bool)].std() == pytest.approx(1, abs=0.02)


def test_scale_gradient_and_evaluation() -> None:
    layer, x = Dropout(0.25), torch.randn(64, 3, 10, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    kept = y != 0
    assert 0.7 < kept.double().mean() < 0.8
    torch.testing.assert_close(y, torch.where(kept, x / 0.75, 0))
    y.sum().backward()
    torch.testing.assert_close(x.grad, kept.double() / 0.75)
    assert layer.eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert layer.train()(x.bfloat16()).dtype == torch.bfloat16


def test_the_seed_decides_and_each_call_is_another() -> None:
    layer, x = Dropout(0.5), torch.ones(8, 100)
    torch.manual_seed(3)
    first, second = layer(x), layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    assert not torch.equal(first, second)
