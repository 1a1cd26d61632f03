import pytest
import torch

from src.data import Sinusoids
from src.errors import UserError


def test_each_episode_is_one_sinusoid():
    data = Sinusoids(shots=3, queries=4, episodes_per_batch=5, episodes_per_epoch=20)
    batch = data.split("train")[torch.arange(20)]
    assert batch.inputs.shape == (20 * 7, 1)
    y = torch.where(batch.extras["support"], batch.extras["label"], batch.targets["y"]).view(20, 7)
    x = batch.inputs.view(20, 7)
    assert x.min() >= -5
    assert x.max() <= 5
    # A sin(x - phi) is a combination of sin x and cos x
    basis = torch.stack([x.sin(), x.cos()], -1).double()
    found = torch.linalg.lstsq(basis, y[..., None].double()).solution
    torch.testing.assert_close((basis @ found)[..., 0], y.double(), atol=1e-4, rtol=0)
    amplitude = found.square().sum(1).sqrt()
    phase = torch.atan2(-found[:, 1], found[:, 0])
    assert 0.1 <= amplitude.min() < 1.5
    assert 3.5 < amplitude.max() <= 5
    assert phase.min() >= 0


def test_test_episodes_are_fixed_and_training_episodes_belong_to_the_seed():
    one, other = Sinusoids(seed=0, test_queries=5), Sinusoids(seed=1, test_queries=5)
    ids = torch.arange(3)
    torch.testing.assert_close(one.split("test")[ids].inputs, other.split("test")[ids].inputs)
    assert (one.split("train")[ids].inputs != other.split("train")[ids].inputs).all()
    assert (one.split("val")[ids].inputs != one.split("test")[ids].inputs).all()
    assert one.split("test")[ids].inputs.shape == (3 * 15, 1)


def test_noise():
    plain, noisy = Sinusoids(), Sinusoids(noise=0.5)
    ids = torch.arange(100)
    noise = noisy.split("test")[ids].targets["y"] - plain.split("test")[ids].targets["y"]
    assert float(noise[~noise.isnan()].std()) == pytest.approx(0.5, rel=0.05)


def test_sizes():
    with pytest.raises(UserError, match=r"data\.shots is 0"):
        Sinusoids(shots=0)
    with pytest.raises(UserError, match=r"data\.test_episodes is 0"):
        Sinusoids(test_episodes=0)
