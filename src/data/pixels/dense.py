"""Images with labels for each of their pixels, in folders or in an .npz file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from src.batch import InputShape
from src.data.datamodule import MultiTaskDataModule, Split
from src.data.kinds import task_from_plain
from src.data.pixels.augmentation import DenseAugmentation, EpochBatches
from src.data.pixels.checks import (
    SizeCheck,
    check_augmentation,
    check_headers,
    find_broken,
    list_broken,
)
from src.data.pixels.record import DenseSchema, compute_digest
from src.data.pixels.rows import DenseRows, ImageForm
from src.data.pixels.settings import as_size
from src.data.pixels.sources import DenseSource, FolderSource, open_arrays
from src.data.pixels.tasks import declare_task, describe_task, fit_task
from src.data.rows import BatchDataset
from src.data.stream import GlobalBatches
from src.data.tables.splits import split_by_groups
from src.errors import UserError, suggest_or_list
from src.files.typed import Damaged, read_json
from src.tasks import Task


class Dense(MultiTaskDataModule):
    """Images with label maps: a class, a number or a direction for each pixel, or one an image.

    A folder has a folder of images, and beside it one for each kind of label, with files of the
    same names: ``image/a.png``, ``mask/a.png``, ``depth/a.npy``. Files are .npy, .npz with one
    array, or pictures; label images hold ids of classes, in 8 or 16 bits or as positions in a
    palette. An .npz file has an array of images, and one with as many rows for each kind of label.
    A label of a whole image is a file, or a row, of one number.

    If there are folders ``train`` and ``val`` and ``test`` in ``root`` (or train.npz ...), these
    are the sides; a side that is not there is taken from the training images. Otherwise all are
    split at random. The side of an image follows from the seed and its name.

    Without a setting whole numbers are classes (Segmentation), fractions are numbers
    (DenseRegression), three fractions a pixel are SurfaceNormals, and one number an image is a
    Regression. Images are read when a batch needs them.

    Args:
        root: The folder, or the .npz file.
        image: Name of the folder, or of the array, of the images.
        targets: Names of the folders, or arrays, of labels; {task: name} gives tasks other names.
            None takes all there are.
        tasks: {task: kind or settings}, such as {depth: {class_path: DenseRegression,
            missing_value: 0}}.
        val_folder: Folder of the validation images; None takes them from the training images.
        test_folder: Folder of the test images; None takes them from the training images.
        val_fraction: Share of the images that validates, where no folder does.
        test_fraction: Share of the images that tests, where no folder does.
        split_seed: Seed of the split; not the run's seed, so that runs are tested on one set.
        size: [height, width] that all images and maps are resized to, maps to the nearest pixel;
            None takes them as they are, of one size.
        standardise: Whether the pixels of each image get mean 0 and standard deviation 1.
        flip: Whether half of the training images are mirrored, left to right.
        turn: Whether training images are turned by quarters and mirrored, for pictures without an
            up and down.
        crop: [height, width] of a section at a random place that trains; None trains whole images.
        partial: Whether an image may lack the file of a label, which is then missing.
        on_error: skip leaves out images whose files are broken, which takes two passes over all
            files at the start, and says which; refuse ends the run at the first.
        schema_path: A run's schema.json.
        batch_size: Images per step over all devices together.
        eval_batch_size: Images per evaluation step over all devices.
        num_workers: Processes that read images.
        seed: Seed of the order of training batches, and of their random changes.
    """

    def __init__(
        self,
        root: str,
        image: str = "image",
        targets: list[str] | dict[str, str] | None = None,
        tasks: dict[str, Any] | None = None,
        val_folder: str | None = "val",
        test_folder: str | None = "test",
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        size: list[int] | None = None,
        standardise: bool = False,
        flip: bool = False,
        turn: bool = False,
        crop: list[int] | None = None,
        partial: bool = False,
        on_error: Literal["refuse", "skip"] = "refuse",
        schema_path: str | None = None,
        batch_size: int = 16,
        eval_batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed)
        for key, share in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
            if not 0 < share < 1:
                raise UserError(f"data.{key} is {share}; a share lies in (0, 1)")
        if val_fraction + test_fraction >= 1:
            raise UserError(
                f"data.val_fraction {val_fraction} and data.test_fraction {test_fraction} leave "
                "nothing to train on"
            )
        self.root = Path(root)
        if not self.root.exists():
            raise UserError(f"{root}: there is no such folder or file{self.advise()}")
        self.image = image
        self.targets = targets
        self.settings = tasks or {}
        self.folders = {"val": val_folder, "test": test_folder}
        self.fractions = {"val": val_fraction, "test": test_fraction}
        self.split_seed = split_seed
        self.form = ImageForm(as_size("size", size), standardise)
        self.augmentation = DenseAugmentation(flip, turn, as_size("crop", crop), seed)
        self.partial = partial
        self.on_error = on_error
        self.schema_path = schema_path
        self._broken: dict[str, dict[int, str]] = {}

    # -- what a data set of this form may change ---------------------------------------------------
    def advise(self) -> str:
        """Returns where to get a public data set, for the end of a message."""
        return ""

    def open(self, path: Path) -> DenseSource:
        """Opens a folder or a file of images and maps."""
        if path.is_file():
            return open_arrays(path, self.image)
        return FolderSource(path, self.image, self.advise())

    def split_names(self, names: list[str], val: float, test: float) -> np.ndarray:
        """Returns the side of each image: 'train', 'val' or 'test'."""
        return split_by_groups(np.array(names), val, test, self.split_seed)

    # -- rows --------------------------------------------------------------------------------------
    @cached_property
    def _saved(self) -> dict[str, Any] | None:
        """The schema of the run that is opened."""
        return None if self.schema_path is None else read_json(self.schema_path, DenseSchema)

    @property
    def is_new(self) -> bool:
        if self._saved is None:
            return False
        is_named = self.new_rows or str(self.root) != self._saved["files"]["root"]["given"]
        return is_named and not self._is_same

    @property
    def _is_same(self) -> bool:
        """Whether the run of the schema began with these files."""
        assert self._saved is not None
        record = self._saved["files"]["root"]
        return all(record[key] == value for key, value in self._digest.items())

    @cached_property
    def _found(self) -> dict[str, DenseSource]:
        """The source of each side that has a folder or file of its own; 'all' for a single one."""
        sides = {"train": self._locate("train")}
        if sides["train"] is None:
            return {"all": self.open(self.root)}
        for side, folder in self.folders.items():
            sides[side] = None if folder is None else self._locate(folder)
        return {side: self.open(path) for side, path in sides.items() if path is not None}

    def _locate(self, folder: str) -> Path | None:
        """Returns the folder, or the .npz file, of a side in ``root``; None if there is none."""
        for path in (self.root / folder, self.root / f"{folder}.npz"):
            if path.exists():
                return path
        return None

    @cached_property
    def _sides(self) -> dict[str, tuple[DenseSource, np.ndarray]]:
        """The source of each side, and the numbers of its images in it."""
        if self.is_new:
            sources = self._found
            source = sources.get("all") or sources.get("test") or sources["train"]
            rows = np.arange(len(source.names))
            return dict.fromkeys(("train", "val", "test"), (source, rows))
        rest = self._found.get("all") or self._found["train"]
        found = {}
        shares = {}
        for side, share in self.fractions.items():
            shares[side] = share
            if side in self._found:
                found[side] = self._found[side], np.arange(len(self._found[side].names))
                shares[side] = 0.0
        cut = self.split_names(rest.names, shares["val"], shares["test"])
        for side in ("train", "val", "test"):
            if side not in found:
                found[side] = rest, np.flatnonzero(cut == side)
        for side, (_, rows) in found.items():
            if not len(rows):
                raise UserError(f"{self.root}: has no images for the {side} split")
        return found

    @cached_property
    def _whole(self) -> dict[str, tuple[DenseSource, np.ndarray]]:
        """The sides without images whose files cannot be read.

        What the headers of files tell is checked for all images before the first is trained on.
        """
        partial = self.partial or self.is_new
        if self.on_error == "refuse":
            check_headers(self._sides, self.parts, self._kinds, self.form, partial)
            return self._sides
        kept = {}
        sizes = SizeCheck(self.form)
        for side, (source, rows) in self._sides.items():
            broken = find_broken(source, rows, self.parts, self._kinds, self.form, partial, sizes)
            kept[side] = source, self._drop(side, rows, broken)
        return kept

    def _drop(self, side: str, rows: np.ndarray, broken: dict[int, str]) -> np.ndarray:
        """Leaves out broken images, and notes them.

        Raises:
            UserError: None is left.
        """
        self._broken[side] = self._broken.get(side, {}) | broken
        kept = np.array([row for row in rows if row not in broken], dtype=int)
        if not len(kept):
            first = next(iter(broken.values()))
            raise UserError(f"no image of the {side} split can be read: {first}")
        return kept

    # -- tasks -------------------------------------------------------------------------------------
    @cached_property
    def parts(self) -> dict[str, str]:
        """{task: name of the folder or array of its labels}."""
        if self._saved is not None:
            return {name: record["part"] for name, record in self._saved["tasks"].items()}
        source, _ = self._sides["train"]
        chosen = source.parts if self.targets is None else self.targets
        parts = dict(chosen) if isinstance(chosen, Mapping) else {name: name for name in chosen}
        if not parts:
            raise UserError(f"{self.root}: has images, but no labels beside them{self.advise()}")
        for part in parts.values():
            source.refuse_missing(part)
        for name in self.settings:
            if name not in parts:
                raise UserError(f"data.tasks names '{name}': {suggest_or_list(name, parts)}")
        return parts

    @cached_property
    def _kinds(self) -> dict[str, Task]:
        """The tasks as they are declared, or as the first training image shows them."""
        kinds = {}
        for name, part in self.parts.items():
            try:
                if self._saved is not None:
                    kinds[name] = self._read_saved(name)
                else:
                    kinds[name] = declare_task(
                        self.settings.get(name, {}), part, *self._sides["train"]
                    )
            except UserError as error:
                raise UserError(f"data.tasks.{name} {error}") from None
        return kinds

    def _read_saved(self, name: str) -> Task:
        assert self._saved is not None
        try:
            return task_from_plain(self._saved["tasks"][name]["task"])
        except (ValueError, KeyError) as error:
            raise Damaged(str(self.schema_path), f"tasks.{name} {error}") from None

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """The tasks, with what they learn from the training images."""
        if self._saved is not None:
            return self._kinds
        fitted = {}
        for name, task in self._kinds.items():
            fitted[name] = fit_task(name, task, self.parts[name], *self._whole["train"], self.form)
        check_augmentation(self.augmentation, fitted, self.input_shape.dense)
        return fitted

    @cached_property
    def input_shape(self) -> InputShape:
        """One image."""
        if self._saved is not None:
            return InputShape(tuple(self._saved["shape"]))
        source, rows = self._whole["train"]
        return InputShape(tuple(self.form.read_image(source, rows[0]).shape))

    @cached_property
    def _splits(self) -> dict[str, DenseRows]:
        splits = {}
        for side, (source, rows) in self._whole.items():
            split = DenseRows(source, rows, self.tasks, self.parts, self.form)
            if self.on_error == "skip":
                # now that classes are known, maps may hold others
                kept = self._drop(side, rows, list_broken(split))
                split = DenseRows(source, kept, self.tasks, self.parts, self.form)
            splits[side] = split
        if not self.augmentation.does_nothing:
            splits["train"].augmentation = self.augmentation
        return splits

    def split(self, name: Split) -> DenseRows:
        """Returns a split; prediction takes the test images, or all new ones."""
        rows = self._splits["test" if name == "predict" else name]
        if self._saved is not None:
            self._refuse_other_channels(rows)
        return rows

    def _refuse_other_channels(self, rows: DenseRows) -> None:
        """Refuses images that the network of a run cannot read.

        Raises:
            UserError: They have another number of channels than its own.
        """
        channels = len(self.form.read_image(rows.source, rows.rows[0]))
        if channels != self.input_shape.dense[0]:
            raise UserError(
                f"{rows.source.describe(self.image, rows.rows[0])}: has {channels} channels, where "
                f"the images of the run have {self.input_shape.dense[0]}"
            )

    def training_batches(self, rows: BatchDataset, shuffle: bool) -> GlobalBatches:
        """Returns the sampler, which says the epoch beside row numbers where images change."""
        kind = GlobalBatches if self.augmentation.does_nothing else EpochBatches
        return kind(len(rows), self.batch_size, shuffle, self.seed)

    def describe(self, name: Split) -> str:
        rows = len(self.split(name))
        return f"{rows} new images of {self.root}" if self.is_new else super().describe(name)

    # -- the record of a run -----------------------------------------------------------------------
    @cached_property
    def _digest(self) -> dict[str, int | str]:
        return compute_digest(self.files(), self.root if self.root.is_dir() else self.root.parent)

    def files(self) -> list[str]:
        return [path for source in self._found.values() for path in source.files()]

    def fingerprint(self) -> dict[str, Any]:
        rows = {side: len(split) for side, split in self._splits.items()}
        return {"files": self.schema()["files"], "rows": rows}

    def schema(self) -> dict[str, Any]:
        tasks = {}
        for name, task in self.tasks.items():
            tasks[name] = {"part": self.parts[name], "task": task.describe()}
        where = {"given": str(self.root), "path": str(self.root.resolve())}
        return {
            "shape": list(self.input_shape.dense),
            "tasks": tasks,
            "files": {"root": {**where, **self._digest}},
        }

    def check_files(self, all_there: bool = True) -> None:
        if self._saved is None or self.is_new or self._is_same:
            return
        before = self._saved["files"]["root"]
        raise UserError(
            f"{self.root}: its files are not those that the run began with ({before['count']} with "
            f"{before['bytes']} bytes then, {self._digest['count']} with {self._digest['bytes']} "
            f"now): restore them, or name them as new images: --data.root {self.root}"
        )

    def notes(self) -> list[str]:
        """Returns the tasks, what belongs to no image, and what was skipped, one line each."""
        notes = [f"{name}: {describe_task(task)}" for name, task in self.tasks.items()]
        for source in self._found.values():
            notes += source.notes()
        if self.on_error == "skip":
            self._splits  # noqa: B018  # reads all files
        for side, broken in self._broken.items():
            if broken:
                shown = "; ".join(list(broken.values())[:5])
                more = f"; and {len(broken) - 5} more" if len(broken) > 5 else ""
                count = len(self._sides[side][1])
                notes.append(f"skipped {len(broken)} of {count} {side} images: {shown}{more}")
        return notes
