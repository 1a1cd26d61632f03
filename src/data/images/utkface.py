"""UTKFace: portraits whose names tell age, gender and ethnicity."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from src.data.images.augmentation import Augmentation
from src.data.images.image_files import ImageFiles
from src.data.images.image_table import NAME, ImageTable
from src.data.tables.settings import TEST_FRACTION
from src.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

SOURCE = "https://susanqq.github.io/UTKFace"
GENDERS = ("male", "female")
RACES = ("white", "black", "asian", "indian", "other")


class UTKFace(ImageTable):
    """UTKFace (Zhang, Song and Qi, CVPR 2017): ``age``, ``gender`` and ``race`` of a portrait.

    The labels are in the names of the files, [age]_[gender]_[race]_[date].jpg; a few files lack one
    of them, which is missing then. The split is random, as the data set has none. The files come
    from https://susanqq.github.io/UTKFace.

    Args:
        root: Folder or .zip file with the aligned and cropped portraits.
        tasks: {task: settings}, as in Table.
        sensitive: Labels that tell groups of people, such as [race], which model.fairness compares.
        size: Height and width that images are brought to, as in ImageTable.
        augment: Changes of training images, such as Augmentation.
        on_error: What a broken image does: refuse ends the run, skip leaves its row out.
        read_first: Whether all files are read once before training.
        cache_gb: Most memory for decoded images, in GB; all of UTKFace at 64 x 64 takes 0.3.
        val_fraction: Share of the images that validates.
        test_fraction: Share of the images that tests.
        folds: Number of folds; one of them tests.
        fold: The fold that tests, from 0.
        split_seed: Seed of the split.
        schema_path: A run's schema.json.
        batch_size: Rows per step over all devices together.
        eval_batch_size: Rows per evaluation step over all devices.
        num_workers: Processes that decode images.
        seed: Seed of the order of training batches, and of their changes.
    """

    def __init__(
        self,
        root: str,
        tasks: dict[str, Any] | None = None,
        sensitive: list[str] | None = None,
        size: int | list[int] = 64,
        augment: Augmentation | None = None,
        on_error: Literal["refuse", "skip"] = "refuse",
        read_first: bool = True,
        cache_gb: float = 1.0,
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
            path=root,
            image_column=NAME,
            targets=["age", "gender", "race"],
            tasks={"age": "Regression", **(tasks or {})},
            sensitive=sensitive,
            size=size,
            augment=augment,
            on_error=on_error,
            read_first=read_first,
            cache_gb=cache_gb,
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

    def read(self, path: str) -> pd.DataFrame:
        """Reads the labels from the names of the images."""
        import pandas as pd

        names = ImageFiles(path).list_images() if Path(path).exists() else []
        if not names:
            raise UserError(f"{path}: there are no images; get UTKFace from {SOURCE}")
        labels = [parse_name(name) for name in names]
        frame = pd.DataFrame(labels, columns=["age", "gender", "race"])
        # new images need no labels
        if self.saved is None and frame["age"].isna().all():
            raise UserError(
                f"{path}: no image is named [age]_[gender]_[race]_[date].jpg, as in UTKFace: "
                f"the first is {names[0]}"
            )
        frame = frame.astype({"age": "Float64", "gender": "str", "race": "str"})
        frame.insert(0, NAME, pd.Series(names, dtype="str"))
        return frame


def parse_name(name: str) -> tuple[int | None, str | None, str | None]:
    """Returns age, gender and ethnicity as the name of a file tells them; None where it does not.

    Three files of the original lack the ethnicity, and the date stands in its place.
    """
    parts = [*Path(name).name.split("_"), "", ""]
    age = int(parts[0]) if parts[0].isdigit() and len(parts[0]) <= 3 else None
    genders = dict(zip("01", GENDERS, strict=True))
    races = dict(zip("01234", RACES, strict=True))
    return age, genders.get(parts[1]), races.get(parts[2])
