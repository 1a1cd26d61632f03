"""Synthetic data of known difficulty, on which claims about balancing can be tried."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from src.batch import InputShape
from src.data.datamodule import MultiTaskDataModule, Rows, Split, standard_split
from src.errors import UserError
from src.tasks import Regression, Task

# the streams of random numbers under data_seed
PRIVATE_DIRECTIONS, FREQUENCY_DIRECTIONS, INPUTS, NOISE, MISSING = range(5)


class Synthetic(MultiTaskDataModule):
    """T regression tasks ``task1`` ... ``taskT`` on normal inputs x ~ N(0, I_D).

    The labels are y_t = s_t (f_t(x) + n_t e) with noise e ~ N(0, 1). f_t has mean 0 and variance 1
    over x:

        f_t(x) = sqrt(a) x_0 + sqrt(1 - a) <u_t, h(x)>
        h_k(x) = sin(w <q_k, x>) / sqrt((1 - exp(-2 w^2)) / 2),   k = 1 ... D - 1

    with a = ``shared`` and w = ``frequency``. The q_k are orthonormal, and orthogonal to the axis
    of x_0, so that the h_k are independent, with mean 0 and variance 1. The directions u_t are unit
    vectors, and each two of them have the same cosine:

        <u_s, u_t> = r = -conflict / (T - 1) if conflict > 0, else -conflict.

    At ``conflict`` 0 the private terms are independent, and at -1 they are the same. At 1 they are
    as far apart as T directions can be: two are opposite, three are at 120 degrees. Without noise,
    the labels of two tasks correlate by a + (1 - a) r. The best R2 is 1 / (1 + n_t^2).

    With ``groups``, there is a direction for each group in place of one for each task: tasks of a
    group have the same f and so agree, and G in place of T sets the cosine between two groups. At
    ``shared`` 0 and ``conflict`` 0, groups have nothing in common.

    A head of its own could undo an opposite sign, and with ``shared`` 0 it learns to. The shared
    term, which is linear and learnt first, aligns the heads. What is then left to learn pulls the
    features of all tasks along <u_t, h>, in conflict.

    The labels are not standardised: the losses of task t are of the order of s_t^2. 60 % of the
    rows train, 20 % validate and 20 % test.

    Args:
        tasks: Number of tasks T; there are at most ``features`` - 1 directions, one for each task
            or group.
        rows: Number of rows of all splits together.
        features: Size D of the input.
        conflict: How far the private terms of the tasks oppose each other, in [-1, 1].
        shared: Share of the signal's variance that all tasks have in common, in [0, 1].
        frequency: How nonlinear the private terms are. Near 0 they are linear; a linear model
            explains 85 % of their variance at 1, and 15 % at 2.
        scales: Scale s_t of the labels per task; or one number, the ratio of each task's scale to
            that of the task before.
        noise: Standard deviation n_t of the noise relative to the signal's, one for all or per
            task.
        missing: Share of the labels that are missing at random, one for all or per task.
        groups: Number of groups G, of sizes that differ by one at most; or their sizes, one after
            the other; None makes each task its own.
        data_seed: Seed of all random draws, and of the split. It is not the run's seed.
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
        groups: int | list[int] | None = None,
        data_seed: int = 0,
        batch_size: int = 64,
        eval_batch_size: int = 1024,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed)
        check("tasks", tasks, tasks >= 1, "at least 1")
        check("rows", rows, rows >= 5, "at least 5")
        sizes = group_sizes(groups, tasks)
        unit = "tasks" if groups is None else "groups"
        wanted = f"at least {len(sizes) + 1} for {unit} + 1"
        check("features", features, features > len(sizes), wanted)
        # the group of each task, as the number of its direction
        self.group_of = np.repeat(np.arange(len(sizes)), sizes)
        self.rows = rows
        self.features = features
        self.conflict = conflict
        self.shared = shared
        self.frequency = frequency
        self.data_seed = data_seed
        # one number is the ratio of neighbours; a wrong one is kept for the check below
        if not isinstance(scales, Sequence):
            scales = [scales**t for t in range(tasks)] if scales > 0 else [scales] * tasks
        self.scales = np.array(as_list("scales", scales, tasks))
        self.noise = np.array(as_list("noise", noise, tasks))
        self.missing = np.array(as_list("missing", missing, tasks))
        self._check_settings()

    def _check_settings(self) -> None:
        """Checks the range of each setting."""
        scales, noise, missing = self.scales, self.noise, self.missing
        check("data_seed", self.data_seed, self.data_seed >= 0, "at least 0")
        check("conflict", self.conflict, -1 <= self.conflict <= 1, "in [-1, 1]")
        check("shared", self.shared, 0 <= self.shared <= 1, "in [0, 1]")
        check("frequency", self.frequency, 0 < self.frequency < np.inf, "above 0")
        check("scales", scales, bool(((scales > 0) & np.isfinite(scales)).all()), "above 0")
        check("noise", noise, bool(((noise >= 0) & np.isfinite(noise)).all()), "at least 0")
        check("missing", missing, bool(((missing >= 0) & (missing < 1)).all()), "in [0, 1)")

    @cached_property
    def directions(self) -> np.ndarray:
        """The directions u_t: (T, D - 1).

        They are the rows of C^(1/2) B, with B orthonormal and C the matrix of their cosines. Tasks
        of a group have the same row.
        """
        T = int(self.group_of[-1]) + 1
        cosine = -self.conflict / (T - 1) if T > 1 and self.conflict > 0 else -self.conflict
        root = np.full((T, T), 1 / T)

        # C = (1 - r) I + r 11' has the eigenvalue 1 + (T - 1) r along 1, and 1 - r across
        if T > 1:
            along = max(1 + (T - 1) * cosine, 0) ** 0.5 * root
            root = along + (1 - cosine) ** 0.5 * (np.eye(T) - root)
        return (root @ self._rotation(PRIVATE_DIRECTIONS)[:T])[self.group_of]

    def _rotation(self, stream: int) -> np.ndarray:
        """Draws an orthonormal matrix (D - 1, D - 1)."""
        size = self.features - 1
        rng = np.random.default_rng([self.data_seed, stream])
        return np.linalg.qr(rng.standard_normal((size, size)))[0]

    def hidden(self, x: np.ndarray) -> np.ndarray:
        """Returns the features h (N, D - 1) of the private terms, for inputs x (N, D)."""
        scale = (-np.expm1(-2 * self.frequency**2) / 2) ** 0.5
        return np.sin(self.frequency * x[:, 1:] @ self._rotation(FREQUENCY_DIRECTIONS)) / scale

    def signal(self, x: np.ndarray) -> np.ndarray:
        """Returns the tasks f (N, T) without noise and scale, for inputs x (N, D)."""
        private = (1 - self.shared) ** 0.5 * self.hidden(x) @ self.directions.T
        return self.shared**0.5 * x[:, :1] + private

    @cached_property
    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """All rows: x (N, D), and y (N, T) with NaN where a label is missing."""
        # each has a stream of its own: a change of the noise leaves the inputs as they are
        streams = (INPUTS, NOISE, MISSING)
        inputs, noise, gone = (np.random.default_rng([self.data_seed, s]) for s in streams)
        shape = self.rows, len(self.scales)
        x = inputs.standard_normal((self.rows, self.features))
        y = self.scales * (self.signal(x) + self.noise * noise.standard_normal(shape))
        return x, np.where(gone.random(shape) < self.missing, np.nan, y)

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """One regression per task.

        With mean 0 and standard deviation 1, the losses see the scales of the labels.
        """
        T = len(self.scales)
        return {f"task{t + 1}": Regression(mean=(0.0,), std=(1.0,)) for t in range(T)}

    @property
    def input_shape(self) -> InputShape:
        """A vector."""
        return InputShape((self.features,))

    def split(self, name: Split) -> Rows:
        """Returns a split; prediction takes the test rows."""
        rows = standard_split(self.rows, self.data_seed)["test" if name == "predict" else name]
        x, y = (torch.from_numpy(values).float()[rows] for values in self.table)
        targets = dict(zip(self.tasks, y.unbind(1), strict=True))
        return Rows(x, targets, row_info={"id": rows.tolist()})


def as_list(key: str, value: float | Sequence[float], tasks: int) -> list[float]:
    """Returns one number per task, from such a list or from one number for all tasks.

    Raises:
        UserError: The list is of another length.
    """
    values = [float(v) for v in value] if isinstance(value, Sequence) else [float(value)] * tasks
    if len(values) != tasks:
        raise UserError(f"data.{key} is a list of {len(values)}, but there are {tasks} tasks")
    return values


def group_sizes(groups: int | Sequence[int] | None, tasks: int) -> list[int]:
    """Returns the number of tasks in each group; without groups each task is one.

    Raises:
        UserError: There are more groups than tasks, or sizes do not add up to the tasks.
    """
    if groups is None:
        return [1] * tasks
    if isinstance(groups, Sequence):
        right = all(size >= 1 for size in groups) and sum(groups) == tasks
        check("groups", np.array(groups), right, f"sizes whose sum is {tasks}, the tasks")
        return list(groups)
    check("groups", groups, 1 <= groups <= tasks, f"from 1 to {tasks}, the tasks, or a list")
    return [len(part) for part in np.array_split(np.arange(tasks), groups)]


def check(key: str, value: float | np.ndarray, is_right: bool, wanted: str) -> None:
    """Refuses a setting that is out of range.

    Raises:
        UserError: It is.
    """
    if not is_right:
        shown = ", ".join(f"{number:g}" for number in np.atleast_1d(value))
        raise UserError(f"data.{key} is {shown}; it must be {wanted}")
