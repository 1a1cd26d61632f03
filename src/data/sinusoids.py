"""Sinusoids: the regression benchmark of meta-learning, drawn from formulas."""

from math import pi

import torch

from src.batch import Batch, InputShape
from src.data.episodic import SIDES, EpisodeRows, EpisodicData, check_sizes
from src.data.rows import Split
from src.rng import make_generator
from src.tasks import Regression, Task

AMPLITUDE = (0.1, 5.0)
PHASE = (0.0, pi)
RANGE = (-5.0, 5.0)  # of x


class SinusoidRows(EpisodeRows):
    """Episodes of y = A sin(x - phi).

    Args:
        key: What the episodes are a function of, besides their number.
        episodes: Number of episodes.
        supports: Support rows of each.
        queries: Query rows of each.
        noise: Standard deviation of the noise on y.
    """

    def __init__(
        self, key: tuple[int, ...], episodes: int, supports: int, queries: int, noise: float
    ) -> None:
        super().__init__(episodes, supports, queries)
        self.key = key
        self.noise = noise

    def read(self, numbers: list[int]) -> Batch:
        x = torch.empty(len(numbers), self.size)
        y = torch.empty(len(numbers), self.size)
        for place, number in enumerate(numbers):
            generator = make_generator(*self.key, number)
            draws = torch.rand(2, generator=generator)
            amplitude = AMPLITUDE[0] + (AMPLITUDE[1] - AMPLITUDE[0]) * draws[0]
            phase = PHASE[0] + (PHASE[1] - PHASE[0]) * draws[1]
            x[place] = RANGE[0] + (RANGE[1] - RANGE[0]) * torch.rand(self.size, generator=generator)
            y[place] = amplitude * torch.sin(x[place] - phase)
            if self.noise:
                y[place] += self.noise * torch.randn(self.size, generator=generator)
        return Batch(x.view(-1, 1), {"y": y.flatten()}, torch.empty(0))


class Sinusoids(EpisodicData):
    """Regression of y = A sin(x - phi), another amplitude and phase in each episode.

    (Finn, Abbeel and Levine, "Model-agnostic meta-learning", ICML 2017.) A is uniform in [0.1, 5],
    phi in [0, pi] and x in [-5, 5]. An episode's loss is a mean squared error. The episodes that
    validate and test depend on no seed of a run.

    Args:
        shots: Support rows of an episode.
        queries: Query rows of an episode in training.
        test_queries: Query rows of an episode in validation and test.
        noise: Standard deviation of the noise on y.
        episodes_per_batch: Episodes per step over all devices together.
        episodes_per_epoch: Training episodes of an epoch; each epoch has new ones.
        val_episodes: Episodes that validate.
        test_episodes: Episodes that test.
        eval_batch_size: Rows per evaluation step over all devices together, in whole episodes.
        num_workers: Processes that prepare batches.
        seed: Seed of the training episodes.
    """

    def __init__(
        self,
        shots: int = 10,
        queries: int = 10,
        test_queries: int = 100,
        noise: float = 0.0,
        episodes_per_batch: int = 25,
        episodes_per_epoch: int = 5_000,
        val_episodes: int = 100,
        test_episodes: int = 600,
        eval_batch_size: int = 10_000,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        check_sizes(shots=shots, queries=queries, test_queries=test_queries)
        super().__init__(
            episodes_per_batch,
            episodes_per_epoch,
            val_episodes,
            test_episodes,
            shots + queries,
            eval_batch_size,
            num_workers,
            seed,
        )
        self.shots = shots
        self.queries = queries
        self.test_queries = test_queries
        self.noise = noise

    @property
    def tasks(self) -> dict[str, Task]:
        """One number, in its own unit."""
        return {"y": Regression(mean=(0.0,), std=(1.0,))}

    @property
    def input_shape(self) -> InputShape:
        """One number."""
        return InputShape((1,))

    def split(self, name: Split) -> SinusoidRows:
        """Returns the episodes of a split; prediction takes the test's."""
        name = "test" if name == "predict" else name
        trains = name == "train"
        key = (SIDES[name], self.seed if trains else 0)
        queries = self.queries if trains else self.test_queries
        return SinusoidRows(key, self.counts[name], self.shots, queries, self.noise)
