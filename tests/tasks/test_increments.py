import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.tasks.increments import invert_softplus, invert_spread, spread_from


@settings(deadline=None)
@given(st.lists(st.floats(1e-12, 1e4), min_size=1, max_size=20))
def test_softplus_and_its_inverse(values):
    increments = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(
        torch.nn.functional.softplus(invert_softplus(increments)), increments, rtol=1e-9, atol=0
    )


def test_no_increment_has_a_finite_inverse():
    assert invert_softplus(torch.zeros(1, dtype=torch.float64)).item() < -60
    assert invert_softplus(torch.tensor([-1e-18])).isfinite().all()


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31), middle=st.integers(0, 4), scale=st.sampled_from([0.1, 3.0, 20.0])
)
def test_values_increase_around_the_middle_and_can_be_inverted(seed, middle, scale):
    generator = torch.Generator().manual_seed(seed)
    outputs = scale * torch.randn(3, 5, generator=generator, dtype=torch.float64)
    values = spread_from(outputs, middle)
    assert (values.diff(dim=-1) >= 0).all()
    assert torch.equal(values[:, middle], outputs[:, middle])
    again = spread_from(invert_spread(values, middle), middle)
    torch.testing.assert_close(again, values, rtol=1e-9, atol=1e-9)
