"""Images with labels: a folder or a .zip file of images, and a table with a row for each."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
import torch
from torch import Tensor

from src.batch import Batch
from src.data.audit.finding import Finding, sort_findings, write_notes
from src.data.audit.rows_audit import find_copies, find_near_rows
from src.data.images.augmentation import Augmentation
from src.data.images.image_files import ImageFiles, holds_images
from src.data.images.lazy_images import ImageSet, LazyImages, remove_broken
from src.data.rows import Rows, Split
from src.data.tables.audit.groups import find_odd_shares
from src.data.tables.audit.repeated_rows import find_same_files
from src.data.tables.audit.table_audit import audit_labels
from src.data.tables.columns import Column
from src.data.tables.image_column import Image, find_image_column
from src.data.tables.notes import describe_table
from src.data.tables.sensitive import describe_groups
from src.data.tables.settings import TEST_FRACTION
from src.data.tables.table import Table
from src.errors import UserError
from src.tasks.labels import remove_rows

if TYPE_CHECKING:
    import pandas as pd

SIDES: tuple[Split, ...] = ("train", "val", "test")
COMPARED = 2000  # images of each split that are compared pixel by pixel
NAME = "image"  # the column of names where a folder stands for a table


class ImageTable(Table):
    """Tasks on images: a table names an image and its labels in each row.

    Images are decoded by Pillow when a batch needs them, turned as the camera was held, and brought
    to one size. Tasks, splits and the record of a run are those of a table. New images are
    predicted from a table without labels, from a folder, or from a .zip file: --data.path.

    Args:
        path: A .csv, .tsv, .parquet or .arff file with a row for each image; for prediction also a
            folder or a .zip file of images.
        root: Folder or .zip file of the images, from which the table names them; None for the
            folder of the table.
        image_column: The column that names images; None to find it.
        targets: Columns to predict, as in Table.
        tasks: {task: settings}, as in Table.
        size: Height and width that images are brought to: [64, 48], or one number for both.
        grey: Whether images are read as grey, and not as red, green and blue.
        crop: Whether the centre of images is cut out where their sides have another ratio than the
            size; otherwise they are stretched.
        mean: Mean of each channel, of pixels from 0 to 1, which is subtracted; None for the mean of
            the training images (1,000 of them).
        std: Standard deviation of each channel, which is divided by; None for that of the training
            images. [1, 1, 1] with a mean of [0, 0, 0] leaves pixels from 0 to 1.
        augment: Changes of training images, such as Augmentation.
        on_error: What an image does that is missing or broken: refuse ends the run with its row,
            skip leaves the row out, and names it.
        read_first: Whether all files are read once before training, which finds broken ones and
            copies; false for large sets on slow disks.
        cache_gb: Most memory for decoded images, in GB, which all workers share. If the images of a
            table do not fit, none is kept.
        missing: Words that mean that a label is missing, as in Table.
        missing_defaults: Whether the usual ones mean it.
        decimal: The mark before decimals.
        thousands: The mark between thousands.
        format: csv, tsv, parquet or arff; None for what the file's name says.
        delimiter: The mark between the columns of a text file.
        names: Names of the columns of a text file without a header.
        row_weight: Column with the weights of rows, as in Table.
        sensitive: Columns of people's groups, which model.fairness compares, as in Table.
        id: Column that names the rows in predictions; None for that of the images.
        group: Column of groups that must stay on one side of the split.
        stratify: Columns whose values all sides of a random split have in proportion.
        split_column: Column that says train, val or test.
        val_path: File of validation rows; otherwise they are split off.
        test_path: File of test rows; otherwise they are split off.
        val_fraction: Share of the rows that validates.
        test_fraction: Share of the rows that tests.
        folds: Number of folds; one of them tests.
        fold: The fold that tests, from 0.
        split_seed: Seed of the split.
        schema_path: A run's schema.json.
        batch_size: Rows per step over all devices together.
        eval_batch_size: Rows per evaluation step over all devices.
        num_workers: Processes that decode images.
        seed: Seed of the order of training batches, and of their changes.
    """

    column_kinds: ClassVar[tuple[type[Column], ...]] = (Image,)

    def __init__(
        self,
        path: str,
        root: str | None = None,
        image_column: str | None = None,
        targets: list[str] | dict[str, str | list[str]] | None = None,
        tasks: dict[str, Any] | None = None,
        size: int | list[int] = 64,
        grey: bool = False,
        crop: bool = True,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        augment: Augmentation | None = None,
        on_error: Literal["refuse", "skip"] = "refuse",
        read_first: bool = True,
        cache_gb: float = 1.0,
        missing: list[str] | None = None,
        missing_defaults: bool = True,
        decimal: str | None = None,
        thousands: str | None = None,
        format: str | None = None,
        delimiter: str | None = None,
        names: list[str] | None = None,
        row_weight: str | None = None,
        sensitive: list[str] | None = None,
        id: str | None = None,
        group: str | None = None,
        stratify: list[str] | None = None,
        split_column: str | None = None,
        val_path: str | None = None,
        test_path: str | None = None,
        val_fraction: float = 0.15,
        test_fraction: float = TEST_FRACTION,
        folds: int | None = None,
        fold: int = 0,
        split_seed: int = 0,
        schema_path: str | None = None,
        batch_size: int = 128,
        eval_batch_size: int = 512,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            path=path,
            targets=targets,
            tasks=tasks,
            missing=missing,
            missing_defaults=missing_defaults,
            decimal=decimal,
            thousands=thousands,
            format=format,
            delimiter=delimiter,
            names=names,
            row_weight=row_weight,
            sensitive=sensitive,
            id=id,
            group=group,
            stratify=stratify,
            split_column=split_column,
            val_path=val_path,
            test_path=test_path,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            folds=folds,
            fold=fold,
            split_seed=split_seed,
            schema_path=schema_path,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        self.root = root
        self.image_column = image_column
        self.size = check_size(size)
        self.grey = grey
        self.crop = crop
        self.mean = mean
        self.std = std
        check_statistics(mean, std, 1 if grey else 3)
        self.augment = augment
        self.on_error = on_error
        self.read_first = read_first
        self.cache_gb = cache_gb

    def read(self, path: str) -> pd.DataFrame:
        """Reads a table; a folder or .zip file of images is one with a row for each."""
        if not holds_images(path):
            return super().read(path)
        import pandas as pd

        column = NAME if self.saved is None else self.saved["inputs"][0]["column"]
        names = ImageFiles(path).list_images()
        if not names:
            raise UserError(f"{path}: there are no images in it")
        return pd.DataFrame({column: pd.Series(names, dtype="str")})

    # -- inputs ------------------------------------------------------------------------------------
    @cached_property
    def columns(self) -> list[Column]:
        """The column of images, which are where the settings say now."""
        column = cast(Image, super().columns[0])
        # predictions name the images, where no other column names the rows
        self.id = self.id or column.column
        return [replace(column, **self._settings_of_files())]

    def _settings_of_files(self) -> dict[str, Any]:
        return {
            "path": self.root or "",
            "on_error": self.on_error,
            "read_first": self.read_first,
            "cache_gb": self.cache_gb,
        }

    def read_columns(self) -> list[Column]:
        frame = self.main
        targets = {column for columns in self.targets.values() for column in columns}
        others = [str(name) for name in frame.columns if name not in targets]
        name = self.image_column or find_image_column(frame, others, self.path)
        column = Image(
            name,
            height=self.size[0],
            width=self.size[1],
            channels=1 if self.grey else 3,
            crop=self.crop,
            **self._settings_of_files(),
        )
        if self.mean is not None and self.std is not None:
            return [replace(column, mean=tuple(self.mean), std=tuple(self.std))]
        return [column.fit(frame[name], self.path, self.rows["train"])]

    def find_images(self, role: str) -> ImageSet:
        """Returns the images of the rows of a file."""
        return self._lazy_images(role).sets[0]

    def _lazy_images(self, role: str) -> LazyImages:
        return cast(LazyImages, self.encode_inputs_of(role))

    # -- splits ------------------------------------------------------------------------------------
    def make_rows(self, role: str, rows: np.ndarray, labelled: bool = True) -> Rows:
        made = super().make_rows(role, rows, labelled)
        return ImageRows(made.inputs, made.targets, made.extras, made.row_info, made.weights)

    def keep_usable(self, role: str, rows: np.ndarray) -> np.ndarray:
        return rows[self._lazy_images(role).usable[rows]]

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Changes training images, where they are."""
        if self.augment is not None and self.trainer is not None and self.trainer.training:
            images = cast(Tensor, batch.inputs)
            epoch = self.trainer.current_epoch
            batch.inputs = self.augment(images, batch.ids, self.seed, epoch)
        return batch

    # -- the run's data ----------------------------------------------------------------------------
    def schema(self) -> dict[str, Any]:
        """Returns the schema of a table; each file's entry has a hash of names and sizes, too."""
        if self.saved is None:
            for role, record in self.table_files.records.items():
                record["images"] = hash_sizes(self.find_images(role))
        return super().schema()

    def check_files(self, all_there: bool = True) -> None:
        super().check_files(all_there)
        if self.saved is None or self.is_new:
            return
        for role, record in self.saved["files"].items():
            path = self.table_files.paths[role]
            if not all_there and not Path(path).exists():
                continue
            if record.get("images") != hash_sizes(self.find_images(role)):
                raise UserError(
                    f"{self.root or path}: the images are not the ones that the run began with: "
                    "names or sizes have changed; restore them, or say where they are now: "
                    "--data.root"
                )

    # -- notes -------------------------------------------------------------------------------------
    def notes(self) -> list[str]:
        """Returns the tasks and why they are of their kind, the images, and what is suspicious."""
        if self.saved is not None:
            return describe_table(self, {})
        reader = self.task_columns.reader
        notes = [*describe_table(self, reader.reasons), *reader.notes, *self.column_notes]
        return [*notes, *self.remarks, *describe_groups(self), *write_notes(self.audit())]

    def audit(self, thorough: bool = False) -> list[Finding]:
        """Returns the findings on images and labels; near copies are looked for in pixels."""
        hashes: dict[Split, np.ndarray] = {}
        pixels: dict[Split, Tensor | dict[str, Tensor]] = {}
        for side in SIDES:
            rows = self.split(side)
            hashes[side] = cast(LazyImages, rows.inputs).hash_rows()
            if thorough:
                few = min(len(rows), COMPARED)
                pixels[side] = rows[torch.arange(few) * len(rows) // max(few, 1)].inputs
        findings = [
            *find_same_files(self),
            *find_copies(hashes, "images"),
            *find_odd_shares(self),
            *audit_labels(self),
            *(find_near_rows(pixels, "images") if thorough else []),
        ]
        return sort_findings(findings)


class ImageRows(Rows):
    """A split of images; where one proves broken as it is decoded, the row's labels are missing.

    So the batches are the same as without the break, on any number of devices.
    """

    def __getitem__(self, ids: Tensor) -> Batch:
        """Returns the rows ``ids``; padding repeats row 0 with all labels missing."""
        batch = super().__getitem__(ids)
        broken = remove_broken(cast(Tensor, batch.inputs))
        if broken is not None:
            batch.targets = {name: remove_rows(y, broken) for name, y in batch.targets.items()}
            for weight in batch.weights.values():
                weight[broken] = 0
        return batch


def hash_sizes(images: ImageSet) -> str:
    """Returns a hash of the names and sizes of a table's images."""
    lines = "\n".join(f"{name}\t{size}" for name, size in images.sizes.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def check_size(size: int | list[int]) -> tuple[int, int]:
    """Returns the height and width that a setting means.

    Raises:
        UserError: It means none.
    """
    sides = [size, size] if isinstance(size, int) else size
    if len(sides) != 2 or min(sides) < 1:
        raise UserError(f"data.size is {size}; it is one number of pixels, or [height, width]")
    return sides[0], sides[1]


def check_statistics(mean: list[float] | None, std: list[float] | None, channels: int) -> None:
    """Checks the mean and standard deviation that settings name.

    Raises:
        UserError: There is one without the other, or none for each channel.
    """
    if (mean is None) != (std is None):
        raise UserError("data.mean and data.std belong together: set both, or neither")
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != channels:
            raise UserError(f"data.{name} has {len(values)} numbers for {channels} channels")
    if std is not None and min(std) <= 0:
        raise UserError(f"data.std is {std}; each number must be above 0")
