"""Energies by their formulas, and distances of features against scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from sklearn.covariance import ledoit_wolf

from src.analysis.outliers import (
    FeatureDistance,
    measure_energy,
    pool_features,
    shrink_covariance,
)
from src.errors import UserError
from src.tasks import (
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Regression,
)


def test_energies_are_those_of_their_papers():
    logits = torch.tensor([[1.0, -2.0, 0.5], [10.0, 0.0, 0.0]])
    exact = logits.double()
    classes = measure_energy(Classification(classes=("a", "b", "c")), logits)
    assert torch.allclose(classes, -exact.exp().sum(1).log())
    labels = measure_energy(MultilabelClassification(labels=("a", "b", "c")), logits)
    assert torch.allclose(labels, -(1 + exact.exp()).log().sum(1))
    binary = measure_energy(BinaryClassification(classes=("no", "yes")), logits[:, :1])
    f = exact[:, 0]
    assert torch.allclose(binary, -((f / 2).exp() + (-f / 2).exp()).log())
    assert measure_energy(Regression(mean=(0.0,), std=(1.0,)), logits[:, :1]) is None


def test_the_energy_of_tokens_is_the_mean_without_padding():
    outputs = torch.tensor([[[1.0, 2.0], [3.0, 0.0], [torch.nan, torch.nan]]])
    task = Classification(classes=("a", "b"))
    single = measure_energy(task, outputs[0, :2])
    assert torch.allclose(measure_energy(task, outputs), single.mean()[None])


def test_features_are_pooled_over_real_places():
    sequence = torch.tensor([[[1.0, 2.0], [3.0, 0.0], [0.0, 0.0]]])
    assert pool_features(sequence).tolist() == [[2.0, 1.0]]
    pixels = torch.arange(8.0).view(1, 2, 2, 2)
    assert pool_features(pixels).tolist() == [[3.0, 4.0]]
    assert pool_features(torch.ones(2, 3)).shape == (2, 3)


@settings(max_examples=30)
@given(st.integers(2, 40), st.integers(1, 12), st.integers(0, 99))
def test_the_shrunk_covariance_is_that_of_scikit_learn(rows, size, seed):
    x = np.random.default_rng(seed).normal(size=(rows, size)) * np.arange(1, size + 1)
    x -= x.mean(0)
    theirs = ledoit_wolf(x, assume_centered=True)[0]
    assert np.allclose(shrink_covariance(x), theirs, rtol=1e-9, atol=1e-9)


def make_fit():
    """Features with a correlation, and one that is always 0, as that of a dead unit is."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(3, 3))

    def sample(rows):
        return np.concatenate([rng.normal(size=(rows, 3)) @ mix, np.zeros((rows, 1))], 1)

    return FeatureDistance.fit(sample(2000), sample(1000), "weights"), sample


def test_percentiles_are_uniform_for_rows_of_the_same_distribution():
    fitted, sample = make_fit()
    ranks = fitted.rank(fitted.measure(sample(1500)))
    assert kstest(ranks, "uniform").pvalue > 0.01


def test_rows_from_far_away_have_percentile_1():
    fitted, sample = make_fit()
    far = sample(50) + 30
    assert (fitted.rank(fitted.measure(far)) == 1).all()
    # a unit that training never saw awake
    awake = sample(50) + np.array([0, 0, 0, 5.0])
    assert (fitted.rank(fitted.measure(awake)) == 1).all()


def test_the_distance_is_that_of_mahalanobis():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(300, 4)), rng.normal(size=(9, 4))
    fitted = FeatureDistance.fit(x, x, "")
    inverse = np.linalg.inv(shrink_covariance(x - x.mean(0)))
    gaps = y - x.mean(0)
    wanted = np.sqrt(np.einsum("nd,de,ne->n", gaps, inverse, gaps))
    assert np.allclose(fitted.measure(y), wanted)


def test_constant_features_have_distances():
    fitted = FeatureDistance.fit(np.ones((20, 3)), np.ones((5, 3)), "")
    assert fitted.measure(np.ones((2, 3))).tolist() == [0, 0]


def test_a_file_gives_back_what_was_saved(tmp_path):
    fitted, sample = make_fit()
    fitted.save(tmp_path / "ood.npz")
    again = FeatureDistance.load(tmp_path / "ood.npz")
    rows = sample(20)
    assert np.array_equal(again.measure(rows), fitted.measure(rows))
    assert again.source == "weights"


@pytest.mark.parametrize("harm", ["text", "pickle", "shape", "key"])
def test_a_damaged_file_is_refused_and_runs_no_code(tmp_path, harm):
    path = tmp_path / "ood.npz"
    whole = {
        "mean": np.zeros(2),
        "whitening": np.eye(2),
        "distances": np.ones(3),
        "source": np.frombuffer(b"w", np.uint8),
    }
    if harm == "text":
        path.write_text("no file of arrays")
    elif harm == "pickle":
        np.savez(path, **(whole | {"mean": np.array([Harmful(tmp_path)], dtype=object)}))
    elif harm == "shape":
        np.savez(path, **(whole | {"whitening": np.eye(3)}))
    else:
        np.savez(path, mean=np.zeros(2))
    with pytest.raises(UserError, match="is damaged: delete it"):
        FeatureDistance.load(path)
    assert not (tmp_path / "harm").exists()


class Harmful:
    """An object that writes a file when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return (open, (str(self.folder / "harm"), "w"))
