"""CelebA: portraits with 40 attributes, each a task, or all of them one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from src.data.images.augmentation import Augmentation
from src.data.images.image_table import ImageTable
from src.errors import UserError, suggest_or_list

if TYPE_CHECKING:
    import pandas as pd

SOURCE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
ATTRIBUTES = "list_attr_celeba.txt"
PARTITION = "list_eval_partition.txt"
IMAGES = "img_align_celeba"
NAME, SIDE = "image", "split"  # columns
SIDES = {"0": "train", "1": "val", "2": "test"}


class CelebA(ImageTable):
    """CelebA (Liu et al., "Deep learning face attributes in the wild", ICCV 2015), with its split.

    There are 162,770 images to train, 19,867 to validate and 19,962 to test. Each attribute is a
    yes-or-no task. The files come from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html.

    Args:
        root: Folder with list_attr_celeba.txt and list_eval_partition.txt, perhaps in Anno and
            Eval, and with the aligned images: the folder img_align_celeba, or its .zip file.
        attributes: The attributes that are tasks, such as [Smiling, Young]; None for all 40.
        multilabel: Whether all attributes are one multi-label task.
        tasks: {task: settings}, as in Table.
        sensitive: Attributes that tell groups of people, such as [Male], which model.fairness
            compares.
        size: Height and width that images are brought to, as in ImageTable.
        augment: Changes of training images, such as Augmentation.
        on_error: What a broken image does: refuse ends the run, skip leaves its row out.
        read_first: Whether all files are read once before training.
        cache_gb: Most memory for decoded images, in GB; all of CelebA at 64 x 64 pixels takes 2.5.
        schema_path: A run's schema.json.
        batch_size: Rows per step over all devices together.
        eval_batch_size: Rows per evaluation step over all devices.
        num_workers: Processes that decode images.
        seed: Seed of the order of training batches, and of their changes.
    """

    can_fold = False

    def __init__(
        self,
        root: str,
        attributes: list[str] | None = None,
        multilabel: bool = False,
        tasks: dict[str, Any] | None = None,
        sensitive: list[str] | None = None,
        size: int | list[int] = 64,
        augment: Augmentation | None = None,
        on_error: Literal["refuse", "skip"] = "refuse",
        read_first: bool = False,
        cache_gb: float = 1.0,
        schema_path: str | None = None,
        batch_size: int = 256,
        eval_batch_size: int = 1024,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        self.folder = Path(root)
        path = find_part(self.folder, ATTRIBUTES)
        chosen = choose_attributes(path, attributes)
        super().__init__(
            path=path,
            root=find_part(self.folder, IMAGES),
            image_column=NAME,
            targets={"attributes": chosen} if multilabel else list(chosen),
            tasks=tasks,
            sensitive=sensitive,
            size=size,
            augment=augment,
            on_error=on_error,
            read_first=read_first,
            cache_gb=cache_gb,
            split_column=SIDE,
            schema_path=schema_path,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
        )

    def read(self, path: str) -> pd.DataFrame:
        """Reads the attributes, 1 and 0 in place of 1 and -1, and the side of each image."""
        import pandas as pd

        header = read_header(path)
        try:
            frame = pd.read_csv(path, sep=r"\s+", skiprows=2, header=None, names=[NAME, *header])
            sides = pd.read_csv(
                find_part(self.folder, PARTITION),
                sep=r"\s+",
                header=None,
                names=[NAME, SIDE],
                dtype="str",
            )
        except ValueError as error:
            raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
        labels = frame[header]
        wrong = ~labels.isin([-1, 1])
        if wrong.to_numpy().any():
            row, column = (int(places[0]) for places in wrong.to_numpy().nonzero())
            raise UserError(
                f"{path} row {row + 1}: {header[column]} is {labels.iat[row, column]!s}, where 1 "
                "or -1 belongs"
            )
        frame[header] = (labels == 1).astype("int64")
        return frame.merge(sides.assign(**{SIDE: sides[SIDE].map(SIDES)}), on=NAME, how="left")


def find_part(folder: Path, name: str) -> str:
    """Returns the path of a part of CelebA, in its folder or in a folder of that.

    Raises:
        UserError: It is not there.
    """
    names = [name, f"{name}.zip"] if name == IMAGES else [name]
    for place in (folder, folder / "Anno", folder / "Eval", folder / "Img"):
        for candidate in names:
            path = place / candidate
            # one of the distributions has the folder twice
            if (path / name).is_dir():
                return str(path / name)
            if path.exists():
                return str(path)
    raise UserError(f"{folder}: {' or '.join(names)} is not there; get it from {SOURCE}")


def read_header(path: str) -> list[str]:
    """Returns the names of the attributes, which are in the second line.

    Raises:
        UserError: The file is another.
    """
    with open(path, encoding="utf-8") as file:
        count = file.readline().strip()
        names = file.readline().split()
    if not count.isdigit() or not names:
        raise UserError(
            f"{path}: begins with '{count[:40]}', where the number of images and then the names of "
            "the attributes belong"
        )
    return names


def choose_attributes(path: str, wanted: list[str] | None) -> list[str]:
    """Returns the attributes that are tasks.

    Raises:
        UserError: One of them does not exist.
    """
    names = read_header(path)
    for name in wanted or []:
        if name not in names:
            raise UserError(f"data.attributes names '{name}': {suggest_or_list(name, names)}")
    return wanted or names
