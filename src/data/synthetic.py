"""Made data whose difficulty is known: what is said of balancing is tried on it."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from src.batch import InputShape
from src.data.datamodule import MultiTaskDataModule, Rows, Split, standard_split
from src.errors import UserError
from src.tasks import Regression, Task


class Synthetic(MultiTaskDataModule):
    """T regression tasks ``task1`` ... ``taskT`` on x ~ N(0, I_D), 60 % of the rows to train, 20 % to validate, 20 % to test.

    y_t = s_t (f_t(x) + n_t e) with noise e ~ N(0, 1), and f_t of mean 0 and variance 1 over x:

        f_t(x) = sqrt(a) x_0 + sqrt(1 - a) <u_t, h(x)>    with a = ``shared``, h_k(x) = sin(w <q_k,
        x>) / sqrt((1 - exp(-2 w^2)) / 2)    with w = ``frequency``, k = 1 ... D - 1,

    where the q_k are orthonormal and orthogonal to the axis of x_0, so that the h_k are
    independent, of mean 0 and variance 1. The directions u_t are unit vectors, each at the same
    angle to each other one:

        <u_s, u_t> = r = -conflict / (T - 1) if conflict > 0, else -conflict.

    So at ``conflict`` 0 the private parts are independent, at -1 they are one, and at 1 as far
    apart as T directions can be: two opposite, three at 120 degrees. The labels of s and t
    correlate by a + (1 - a) r before noise. The best R2 is 1 / (1 + n_t^2).

    A head of its own could undo an opposite sign, and with ``shared`` 0 learns to. The shared part,
    which is linear and learnt first, lines the heads up; what is then left to learn pulls the
    features of all tasks along <u_t, h>, in conflict.

    The labels are not standardised: the losses of task t are of the order of s_t^2.

    Args:
        tasks: Number of tasks T, at most ``features`` - 1.
        rows: Number of rows of all splits together.
        features: Size D of the input.
        conflict: How far the private parts of the tasks oppose each other, in [-1, 1].
        shared: Share of the signal's variance that all tasks have in common, in [0, 1].
        frequency: How crooked the private parts are: near 0 linear; at 1 a line explains 85 % of
            their variance, at 2 15 %.
        scales: Scale s_t of the labels per task; or one number, the ratio of each task's scale to
            that of the task before.
        noise: Standard deviation n_t of the noise as a share of the signal's, one for all or per
            task.
        missing: Share of the labels that are missing at random, one for all or per task.
        data_seed: Seed of everything that is drawn, the split included; apart from the run's seed.
        batch_size: Rows per step over all devices together.
        eval_batch_size: Rows per evaluation step over all devices together.
        num_workers: Processes that prepare batches.
        seed: Seed of the order of training batches.
    """

    def __init__(
        self,
        tasks: int = 2,
        rows: int = 4000,
        features: int = 8,
        conflict: float = 0.0,
        shared: float = 0.5,
        frequency: float = 2.0,
        scales: float | list[float] = 1.0,
        noise: float | list[float] = 0.1,
        missing: float | list[float] = 0.0,
        data_seed: int = 0,
        batch_size: int = 64,
        eval_batch_size: int = 1024,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed)
        for key, count, least in (
            ("tasks", tasks, 1),
            ("rows", rows, 5),
            ("features", features, tasks + 1),
        ):
            if count < least:
                raise UserError(
                    f"data.{key} is {count}; it must be at least {least}"
                    + " for tasks + 1" * (key == "features")
                )
        self.rows, self.features, self.conflict, self.shared, self.frequency = (
            rows,
            features,
            conflict,
            shared,
            frequency,
        )
        self.data_seed = data_seed
        if not isinstance(scales, Sequence):
            scales = [scales**t for t in range(tasks)] if scales > 0 else [scales] * tasks
        self.scales = np.array(per_task("scales", scales, tasks))
        self.noise = np.array(per_task("noise", noise, tasks))
        self.missing = np.array(per_task("missing", missing, tasks))
        checks = (
            ("data_seed", [data_seed], data_seed >= 0, "at least 0"),
            ("conflict", [conflict], -1 <= conflict <= 1, "in [-1, 1]"),
            ("shared", [shared], 0 <= shared <= 1, "in [0, 1]"),
            ("frequency", [frequency], 0 < frequency < np.inf, "above 0"),
            (
                "scales",
                self.scales.tolist(),
                (self.scales > 0).all() and np.isfinite(self.scales).all(),
                "above 0",
            ),
            (
                "noise",
                self.noise.tolist(),
                (self.noise >= 0).all() and np.isfinite(self.noise).all(),
                "at least 0",
            ),
            (
                "missing",
                self.missing.tolist(),
                ((self.missing >= 0) & (self.missing < 1)).all(),
                "in [0, 1)",
            ),
        )
        for key, values, right, wanted in checks:
            if not right:
                raise UserError(
                    f"data.{key} is {', '.join(f'{value:g}' for value in values)}; it must be {wanted}"
                )

    @cached_property
    def directions(self) -> np.ndarray:
        """(T, D - 1): the directions u_t, the rows of C^(1/2) B with B orthonormal and C the matrix of their cosines."""
        T = len(self.scales)
        cosine = -self.conflict / (T - 1) if T > 1 and self.conflict > 0 else -self.conflict
        one = np.full(
            (T, T), 1 / T
        )  # C = (1 - r) I + r 11' has the eigenvalue 1 + (T - 1) r along 1, and 1 - r across
        root = (
            (max(1 + (T - 1) * cosine, 0) ** 0.5 * one + (1 - cosine) ** 0.5 * (np.eye(T) - one))
            if T > 1
            else one
        )
        return root @ self._rotation(0)[:T]

    def _rotation(self, stream: int) -> np.ndarray:
        """A random orthonormal matrix (D - 1, D - 1)."""
        size = self.features - 1
        return np.linalg.qr(
            np.random.default_rng([self.data_seed, stream]).standard_normal((size, size))
        )[0]

    def hidden(self, x: np.ndarray) -> np.ndarray:
        """The features (N, D - 1) that the private parts are made of: x (N, D) -> h."""
        scale = (-np.expm1(-2 * self.frequency**2) / 2) ** 0.5
        return np.sin(self.frequency * x[:, 1:] @ self._rotation(1)) / scale

    def signal(self, x: np.ndarray) -> np.ndarray:
        """The tasks without noise and scale: x (N, D) -> f (N, T)."""
        return (
            self.shared**0.5 * x[:, :1]
            + (1 - self.shared) ** 0.5 * self.hidden(x) @ self.directions.T
        )

    @cached_property
    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """All rows: x (N, D), and y (N, T) with NaN where a label is missing."""
        inputs, noise, gone = (
            np.random.default_rng([self.data_seed, stream]) for stream in (2, 3, 4)
        )
        shape = self.rows, len(self.scales)
        x = inputs.standard_normal((self.rows, self.features))
        y = self.scales * (self.signal(x) + self.noise * noise.standard_normal(shape))
        return x, np.where(gone.random(shape) < self.missing, np.nan, y)

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """One regression per task, with mean 0 and std 1, so that the losses see the labels' scales."""
        return {
            f"task{t + 1}": Regression(mean=(0.0,), std=(1.0,)) for t in range(len(self.scales))
        }

    @property
    def input_shape(self) -> InputShape:
        """A vector."""
        return InputShape((self.features,))

    def split(self, name: Split) -> Rows:
        """Returns a split; to predict is to predict the test rows."""
        rows = standard_split(self.rows, self.data_seed)["test" if name == "predict" else name]
        x, y = (torch.from_numpy(part).float()[rows] for part in self.table)
        return Rows(
            x, dict(zip(self.tasks, y.unbind(1), strict=True)), beside={"id": rows.tolist()}
        )


def per_task(key: str, value: float | Sequence[float], tasks: int) -> list[float]:
    """One number for all tasks, or a list with one for each, as a list.

    Raises:
        UserError: The list is of another length.
    """
    values = [float(v) for v in value] if isinstance(value, Sequence) else [float(value)] * tasks
    if len(values) != tasks:
        raise UserError(f"data.{key} is a list of {len(values)}, but there are {tasks} tasks")
    return values
