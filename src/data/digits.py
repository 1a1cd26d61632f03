"""Four tasks of four kinds on embedded digits: real data, nothing downloaded."""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.batch import InputShape
from src.data.datamodule import MultiTaskDataModule, Rows, Split, standard_split
from src.data.folds import check_fold, deal_at_random, split_by_fold
from src.errors import UserError
from src.tasks import (
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Regression,
    Task,
)

# One image a line: its 64 pixels of 0 ... 16, then the digit. The test set of "Optical recognition
# of handwritten digits" (UCI, CC BY 4.0), in the file that scikit-learn ships.
FILE = Path(__file__).with_name("digits.csv.gz")


class Digits(MultiTaskDataModule):
    """1,797 images of 8 x 8 pixels (Alpaydin and Kaynak, UCI 1998) with four tasks.

    The tasks are ``digit``, one of ten; ``odd``, whether it is odd; ``ink``, the sum of the pixels;
    and ``quadrants``, which of the four quarters hold more ink than their median over the training
    images. 60 % of the images train, 20 % validate and 20 % test.

    Args:
        split_seed: Seed of the split. It is not the run's seed, so that runs with several seeds are
            tested on the same images.
        folds: Number of folds; one of them tests, and 20 % of the images validate.
        fold: The fold that tests, from 0.
        train_fraction: Share of the training images that train, to try what little data do; the
            others are left out.
        batch_size: Rows per step over all devices together.
        eval_batch_size: Rows per evaluation step over all devices together.
        num_workers: Processes that prepare batches.
        seed: Seed of the order of training batches.
    """

    can_fold = True

    def __init__(
        self,
        split_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        train_fraction: float = 1.0,
        batch_size: int = 64,
        eval_batch_size: int = 1024,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed)
        check_fold(folds, fold)
        self.split_seed = split_seed
        self.folds = folds
        self.fold = fold
        if not 0 < train_fraction <= 1:
            raise UserError(f"data.train_fraction is {train_fraction}; a share lies in (0, 1]")
        self.train_fraction = train_fraction

    @cached_property
    def _images(self) -> tuple[Tensor, Tensor]:
        rows = np.loadtxt(FILE, delimiter=",")
        images = torch.from_numpy(rows[:, :-1].reshape(-1, 1, 8, 8)).float() / 16
        return images, torch.from_numpy(rows[:, -1]).long()

    @cached_property
    def _splits(self) -> dict[str, Tensor]:
        rows = len(self._images[0])
        if self.folds is None:
            splits = standard_split(rows, self.split_seed)
        else:
            dealt = deal_at_random(rows, self.folds, self.split_seed)
            side = split_by_fold(dealt, self.fold, 0.2, self.split_seed)
            names = ("train", "val", "test")
            splits = {name: torch.from_numpy(np.flatnonzero(side == name)) for name in names}
        return splits | {"train": self._thin_out(splits["train"])}

    def _thin_out(self, rows: Tensor) -> Tensor:
        """Returns the rows that train; a smaller share is part of each larger one."""
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.split_seed))
        kept = max(1, round(len(rows) * self.train_fraction))
        return rows[order[:kept].sort().values]

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """The four tasks; the mean and spread of the ink are those of the training images."""
        ink = self._images[0][self._splits["train"]].sum((1, 2, 3))
        return {
            "digit": Classification(classes=tuple(range(10))),
            "odd": BinaryClassification(classes=("even", "odd")),
            "ink": Regression().fit(ink.double().numpy(), ["ink"]),
            "quadrants": MultilabelClassification(
                labels=("top left", "top right", "bottom left", "bottom right")
            ),
        }

    @property
    def input_shape(self) -> InputShape:
        """One grey image."""
        return InputShape((1, 8, 8))

    def split(self, name: Split) -> Rows:
        """Returns a split; prediction takes the test images."""
        images, digit = self._images
        quarters = images.unfold(2, 4, 4).unfold(3, 4, 4).sum((-2, -1)).flatten(1)
        median = quarters[self._splits["train"]].median(0).values
        rows = self._splits["test" if name == "predict" else name]
        targets = {
            "digit": digit,
            "odd": (digit % 2).float(),
            "ink": self.tasks["ink"].encode(images.sum((1, 2, 3)).double().numpy()),
            "quadrants": (quarters > median).float(),
        }
        labels = {task: target[rows] for task, target in targets.items()}
        return Rows(images[rows], labels, row_info={"id": rows.tolist()})
