"""Attributions of one number to the features of each row, by captum's methods.

(Kokhlikyan et al., "Captum: A unified and generic model interpretability library for PyTorch",
arXiv 2009.07896.)
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from src.analysis.explanations.path import InputPath, Inputs
from src.errors import UserError
from src.rng import make_generator

Method = Literal["IntegratedGradients", "FeatureAblation", "GradientShap", "Permutation"]
METHODS: tuple[Method, ...] = get_args(Method)
WITH_GRADIENTS = ("IntegratedGradients", "GradientShap")
# the attributions of a row sum to the difference from the baseline
COMPLETE = ("IntegratedGradients", "GradientShap")
PERMUTATIONS = 10
# the streams of random numbers under the seed
BASELINES, POINTS, ORDERS = range(3)


@dataclass(frozen=True)
class Explained:
    """A number of a network, as a function of where on its path each feature of a row stands.

    Attributes:
        path: The rows, with their path.
        run: Inputs -> outputs (M, O) of the task, with gradients.
        read: Outputs (M, O), and the outputs of the same rows as they are -> the number (M,).
        plain: (N, O) The outputs of the rows as they are.
        size: Rows that run at once.
        advance: Is called once for each call of the network.
    """

    path: InputPath
    run: Callable[[Inputs], Tensor]
    read: Callable[[Tensor, Tensor], Tensor]
    plain: Tensor
    size: int
    advance: Callable[[], None] = lambda: None

    def at(self, positions: Tensor, rows: Tensor, baselines: Tensor | None = None) -> Tensor:
        """Returns the number (M,) at points (M, F) on the paths of some rows."""
        inputs, path = self.path.at(positions, rows, baselines)
        with path:
            outputs = self.run(inputs)
        self.advance()
        return self.read(outputs, self.plain[rows])

    def in_parts(self, positions: Tensor, rows: Tensor, baselines: Tensor | None = None) -> Tensor:
        """Returns the number (M,) at many points, some of them at a time, without gradients."""
        found = []
        for part in torch.arange(len(rows)).split(self.size):
            own = None if baselines is None else baselines[part]
            with torch.no_grad():
                found.append(self.at(positions[part], rows[part], own))
        return torch.cat(found)

    def exchange(self, origins: Tensor) -> Tensor:
        """Returns the number (N,) of the rows with features (N, F) that come from other rows."""
        found = []
        with torch.no_grad():
            for part in torch.arange(len(origins)).split(self.size):
                outputs = self.run(self.path.exchange(origins[part]))
                self.advance()
                found.append(self.read(outputs, self.plain[part]))
        return torch.cat(found)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the network."""
        return self.plain.dtype


def import_captum() -> None:
    """Imports captum.

    Raises:
        UserError: It is not installed.
    """
    try:
        import captum.attr  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError("src.explain needs the package captum: pip install captum") from error


def attribute(
    explained: Explained, method: Method, seed: int, steps: int = 50, baselines: int = 1
) -> Tensor:
    """Returns attributions (N, F) of a number to the features of each row.

    IntegratedGradients (Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", ICML
    2017): a_j = the integral over s from 0 to 1 of df/ds_j, all features at s. GradientShap
    (Lundberg and Lee, NeurIPS 2017; Erion et al., "expected gradients", 2021): its mean over
    baselines that are training rows, at random s. FeatureAblation: how much the number falls with
    one feature at the baseline. Permutation: how much it falls with the feature of another row, a
    mean over ``PERMUTATIONS``.

    Args:
        explained: The number.
        method: The method.
        seed: Seed of what is drawn.
        steps: Points on the path of each row, for the methods with gradients.
        baselines: K; GradientShap draws from them, the others use the first.
    """
    import_captum()
    count, features = len(explained.path), len(explained.path.features)
    ones = torch.ones(count, features, dtype=explained.dtype)
    match method:
        case "IntegratedGradients":
            return integrate_gradients(explained, ones, steps)
        case "GradientShap":
            return draw_gradients(explained, ones, seed, steps, baselines)
        case "FeatureAblation":
            return ablate(explained, ones)
        case "Permutation":
            return permute(explained, seed)


def integrate_gradients(explained: Explained, ones: Tensor, steps: int) -> Tensor:
    """Integrates gradients along the path, by Gauss-Legendre quadrature."""
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(explained.at)
    found = []
    for rows in torch.arange(len(ones)).split(max(1, explained.size // steps)):
        values = method.attribute(
            ones[rows], torch.zeros_like(ones[rows]), additional_forward_args=(rows,), n_steps=steps
        )
        found.append(values.detach())
    return torch.cat(found)


def draw_gradients(
    explained: Explained, ones: Tensor, seed: int, steps: int, baselines: int
) -> Tensor:
    """Averages gradients at random points of the paths from baselines that are drawn."""
    from captum.attr import GradientShap

    generator = make_generator(seed, BASELINES)

    def at(positions: Tensor, rows: Tensor) -> Tensor:
        drawn = torch.randint(baselines, (len(rows),), generator=generator)
        return explained.at(positions, rows, drawn)

    method = GradientShap(at)
    found = []
    with draw_from(seed):
        for rows in torch.arange(len(ones)).split(max(1, explained.size // steps)):
            values = method.attribute(
                ones[rows],
                torch.zeros_like(ones[:1]),
                n_samples=steps,
                additional_forward_args=(rows,),
            )
            found.append(values.detach())
    return torch.cat(found)


def ablate(explained: Explained, ones: Tensor) -> Tensor:
    """Puts one feature after the other to the baseline."""
    from captum.attr import FeatureAblation

    rows = torch.arange(len(ones))
    method = FeatureAblation(explained.in_parts)
    with torch.no_grad():
        return method.attribute(ones, torch.zeros_like(ones), additional_forward_args=(rows,))


def permute(explained: Explained, seed: int) -> Tensor:
    """Deals one feature after the other out to other rows."""
    from captum.attr import FeaturePermutation

    rows, features = len(explained.path), len(explained.path.features)
    # the number of the row that each feature comes from is what is permuted
    origins = torch.arange(rows)[:, None].expand(-1, features)
    total = torch.zeros(rows, features, dtype=torch.float64)
    for repeat in range(PERMUTATIONS):
        generator = make_generator(seed, ORDERS, repeat)

        def deal(x: Tensor, mask: Tensor, generator: torch.Generator = generator) -> Tensor:
            order = torch.randperm(len(x), generator=generator)
            return x[order].where(mask.bool(), x)

        method = FeaturePermutation(lambda x: explained.exchange(x.long()), perm_func=deal)
        total += method.attribute(origins.clone())
    return (total / PERMUTATIONS).to(explained.dtype)


@contextmanager
def draw_from(seed: int) -> Iterator[None]:
    """Lets a library that draws from global generators draw by the seed."""
    before = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # the legacy generator is what the library reads
        np.random.seed(int(torch.randint(2**32, (), generator=make_generator(seed, POINTS))))
        try:
            yield
        finally:
            np.random.set_state(before)
