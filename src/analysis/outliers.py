"""Scores of how far a row is from all that a network was trained on."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from src.errors import UserError
from src.files.atomic import write_atomically
from src.tasks import BinaryClassification, Classification, MultilabelClassification, Task

ARRAYS = ("mean", "whitening", "distances", "source")


def measure_energy(task: Task, outputs: Tensor) -> Tensor | None:
    """Returns the energy of each row, higher for rows that are unlike training; None for none.

    It is -log sum_k exp(f_k) of the logits f of classes (Liu et al., "Energy-based
    out-of-distribution detection", NeurIPS 2020), with the logits -f/2 and f/2 of a binary task,
    and -sum_k log(1 + exp(f_k)) of several labels (Wang et al., "Can multi-label classification
    networks know what they don't know?", NeurIPS 2021). Where each token or pixel has outputs, it
    is their mean.

    Args:
        task: The task.
        outputs: (N, ..., O), NaN at padding.

    Returns:
        (N,) float64; None of tasks that have no classes.
    """
    logits = outputs.double()
    if isinstance(task, MultilabelClassification):
        energy = -F.softplus(logits).sum(-1)
    elif isinstance(task, BinaryClassification):
        energy = -torch.logaddexp(logits / 2, -logits / 2).sum(-1)
    elif isinstance(task, Classification):
        energy = -logits.logsumexp(-1)
    else:
        return None
    return energy.flatten(1).nanmean(1) if energy.ndim > 1 else energy


def pool_features(features: Tensor) -> Tensor:
    """Returns one vector for each row: the mean over its tokens, nodes or pixels.

    Args:
        features: (B, D), (B, S, D) with zeros at padding, or (B, H, W, D).
    """
    if features.ndim > 3:
        return features.flatten(1, -2).mean(1)
    if features.ndim == 3:
        real = features.any(-1, keepdim=True)
        return features.sum(1) / real.sum(1).clamp(min=1)
    return features


@dataclass(frozen=True)
class FeatureDistance:
    """The Mahalanobis distance of features from those of the training rows.

    (Lee et al., "A simple unified framework for detecting out-of-distribution samples and
    adversarial attacks", NeurIPS 2018, with one mean for all classes, since tasks have classes of
    their own.) d(z) = sqrt((z - mean)' C^-1 (z - mean)) with the shrunk covariance C.

    Attributes:
        mean: (D,) The mean of the features of training rows.
        whitening: (D, D) W with W W' = C^-1.
        distances: (V,) The distances of validation rows, in ascending order.
        source: What the features come from, such as a hash of the weights.
    """

    mean: np.ndarray
    whitening: np.ndarray
    distances: np.ndarray
    source: str

    @classmethod
    def fit(cls, training: np.ndarray, validation: np.ndarray, source: str) -> "FeatureDistance":
        """Learns from the features of training and of validation rows.

        Args:
            training: (N, D).
            validation: (V, D), which tell how far rows are that training has not seen.
            source: See above.
        """
        mean = training.mean(0)
        values, vectors = np.linalg.eigh(shrink_covariance(training - mean))
        least = max(values.max(initial=0.0), 1e-12) * 1e-12
        whitening = vectors / np.sqrt(values.clip(least))
        fitted = cls(mean, whitening, np.zeros(0), source)
        return cls(mean, whitening, np.sort(fitted.measure(validation)), source)

    def measure(self, features: np.ndarray) -> np.ndarray:
        """Returns the distance of each row (N,) of features (N, D)."""
        found: np.ndarray = np.linalg.norm((features - self.mean) @ self.whitening, axis=1)
        return found

    def rank(self, distances: np.ndarray) -> np.ndarray:
        """Returns the share of validation rows that are no farther, for each distance (N,)."""
        found: np.ndarray = np.searchsorted(self.distances, distances, side="right")
        return found / len(self.distances)

    def save(self, path: Path) -> None:
        """Writes a file of plain arrays."""
        file = io.BytesIO()
        np.savez(
            file,
            mean=self.mean,
            whitening=self.whitening,
            distances=self.distances,
            source=np.frombuffer(self.source.encode(), np.uint8),
        )
        write_atomically(path, lambda out: out.write(file.getvalue()))

    @classmethod
    def load(cls, path: Path) -> "FeatureDistance":
        """Reads the file of :meth:`save`, which runs no code.

        Raises:
            UserError: It is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in ARRAYS}
        except Exception as error:  # the library has no narrower type
            raise UserError(f"{path} is damaged: delete it, it is made anew ({error})") from None
        mean, whitening, distances = (arrays[name] for name in ARRAYS[:3])
        size = mean.shape[0] if mean.ndim == 1 else -1
        right = whitening.shape == (size, size) and distances.ndim == 1 and len(distances) > 0
        floats = all(values.dtype == np.float64 for values in (mean, whitening, distances))
        if not (right and floats and arrays["source"].dtype == np.uint8):
            raise UserError(f"{path} is damaged: delete it, it is made anew")
        source = arrays["source"].tobytes().decode(errors="replace")
        return cls(mean, whitening, distances, source)


def shrink_covariance(centred: np.ndarray) -> np.ndarray:
    """Returns the covariance of features, shrunk towards a multiple of the identity.

    C = (1 - s) S + s tr(S) / D I with the share s that makes the expected error least (Ledoit and
    Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of
    Multivariate Analysis 2004).

    Args:
        centred: (N, D) features without their mean.
    """
    count, size = centred.shape
    covariance = centred.T @ centred / count
    scale = np.trace(covariance) / size
    target = scale * np.eye(size)
    distance = ((covariance - target) ** 2).sum() / size

    # sum over rows of |x x' - S|^2, without a matrix for each row
    squares = (centred**2).sum(1)
    error = ((squares**2).sum() / count - (covariance**2).sum()) / (size * count)
    share = min(error, distance) / distance if distance > 0 else 1.0
    shrunk: np.ndarray = (1 - share) * covariance + share * target
    return shrunk
