"""Nuclei of cells under the microscope: four tasks of four kinds from one map of instances."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from src.data.pixels.dense import Dense
from src.data.pixels.maps import read_map
from src.data.pixels.settings import merge_settings
from src.data.pixels.sources import ArraySource, list_files, open_arrays
from src.errors import UserError

SOURCE = "https://bbbc.broadinstitute.org/BBBC038 (stage1_train.zip)"
SIDE = 256  # height and width of the images that are taken


class Nuclei(Dense):
    """The Data Science Bowl 2018 (Caicedo et al., Nature Methods 2019), fluorescence, 256 x 256.

    The tasks are ``foreground``, whether a pixel is of a nucleus; ``boundary``, whether it is of a
    nucleus and one of its four neighbours is not of the same one; ``distance``, how far it is from
    the nearest pixel outside its nucleus, in pixels, 0 in the background; and ``count``, the number
    of nuclei in the image.

    Ids are sorted, and the first 80 % of ``RandomState(0).permutation`` train, the next 10 %
    validate and the last 10 % test.

    Args:
        root: Folder with stage1_train as published, a folder with images/ and masks/ for each
            image; its grey images of 256 x 256 are taken. Or a folder with one .npz file, of the
            arrays images (N, H, W), instances (N, H, W), 0 for the background and 1 ... n for
            nuclei, and ids (N,).
        tasks: {task: settings} besides the ones here, as in Dense.
        targets: Which of the four tasks; None takes all.
        standardise: Whether the pixels of each image get mean 0 and standard deviation 1, since
            some are much darker than others.
        flip: Whether half of the training images are mirrored.
        turn: Whether training images are turned by quarters and mirrored.
        schema_path: A run's schema.json.
        batch_size: Images per step over all devices together.
        eval_batch_size: Images per evaluation step over all devices.
        num_workers: Processes that prepare batches.
        seed: Seed of the order of training batches, and of their random changes.
    """

    def __init__(
        self,
        root: str,
        tasks: dict[str, Any] | None = None,
        targets: list[str] | None = None,
        standardise: bool = True,
        flip: bool = False,
        turn: bool = True,
        schema_path: str | None = None,
        batch_size: int = 16,
        eval_batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        defaults = {
            "foreground": {
                "class_path": "Segmentation",
                "classes": ["background", "nucleus"],
                "background": "background",
            },
            "boundary": {
                "class_path": "Segmentation",
                "classes": ["elsewhere", "boundary"],
                "background": "elsewhere",
            },
            "distance": {"class_path": "DenseRegression"},
            "count": {"class_path": "Regression"},
        }
        settings = merge_settings(defaults, tasks)
        if targets is not None:
            named = {*targets, *(tasks or {})}
            settings = {name: own for name, own in settings.items() if name in named}
        super().__init__(
            root,
            targets=targets,
            tasks=settings,
            standardise=standardise,
            flip=flip,
            turn=turn,
            schema_path=schema_path,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
        )

    def advise(self) -> str:
        return f"; get {SOURCE}, and name the folder that holds stage1_train"

    def open(self, path: Path) -> ArraySource:
        """Reads the images, and makes the labels from the maps of instances."""
        file, ids, images, instances = read_instances(path, self.advise())
        order = np.argsort(ids)
        instances = instances[order]
        arrays = {
            "image": images[order],
            "foreground": (instances > 0).astype(np.uint8),
            "boundary": np.stack([find_boundary(nuclei) for nuclei in instances]),
            "distance": np.stack([measure_distance(nuclei) for nuclei in instances]),
            "count": np.array([count_nuclei(nuclei) for nuclei in instances], dtype=np.float32),
        }
        return ArraySource(file, arrays, names=[ids[row] for row in order])

    def split_names(self, names: list[str], val: float, test: float) -> np.ndarray:
        """Returns the side of each image, as published results split them."""
        rows = len(names)
        order = np.random.RandomState(0).permutation(rows)  # as others draw it
        side = np.full(rows, "test", dtype="<U5")
        side[order[: int(0.8 * rows)]] = "train"
        side[order[int(0.8 * rows) : int(0.9 * rows)]] = "val"
        return side


# -- files -----------------------------------------------------------------------------------------
def read_instances(root: Path, advice: str) -> tuple[Path, list[str], np.ndarray, np.ndarray]:
    """Reads images and their maps of instances.

    Returns:
        Where they come from, ids, images (N, H, W) and instances (N, H, W).

    Raises:
        UserError: They are not there, or broken.
    """
    found = [root] if root.is_file() else sorted(root.glob("*.npz"))
    if len(found) > 1:
        raise UserError(f"{root}: has {len(found)} .npz files; name one of them")
    if found:
        source = open_arrays(found[0], "images")
        for name in ("instances", "ids"):
            source.refuse_missing(name)
        arrays = source.arrays
        ids = [str(name) for name in arrays["ids"]]
        return found[0], ids, arrays["images"], arrays["instances"]

    folder = root / "stage1_train" if (root / "stage1_train").is_dir() else root
    read = list(read_published(folder))
    if not read:
        raise UserError(f"{root}: has no images of {SIDE} x {SIDE}{advice}")
    ids = [name for name, _, _ in read]
    images = np.stack([image for _, image, _ in read])
    return folder, ids, images, np.stack([instances for _, _, instances in read])


def read_published(folder: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields (id, image, instances) of the grey images of 256 x 256 in stage1_train.

    Raises:
        UserError: A file is broken, or of another size than its image.
    """
    for place in sorted(folder.iterdir()):
        files = list_files(place / "images") if place.is_dir() else {}
        for path in files.values():
            image = read_map(path, is_label=False)
            grey = image if image.ndim == 2 else image[..., 0]
            if grey.shape != (SIDE, SIDE) or (image.ndim == 3 and np.ptp(image, axis=-1).any()):
                continue
            instances = np.zeros(grey.shape, dtype=np.uint16)
            masks = list_files(place / "masks").values()
            for number, mask in enumerate(masks, start=1):
                nucleus = read_map(mask, is_label=True)
                if nucleus.shape[:2] != grey.shape:
                    raise UserError(
                        f"{mask}: is {nucleus.shape[0]} x {nucleus.shape[1]}, where its image is "
                        f"{SIDE} x {SIDE}"
                    )
                instances[(nucleus if nucleus.ndim == 2 else nucleus[..., 0]) > 0] = number
            yield place.name, grey, instances


# -- labels ----------------------------------------------------------------------------------------
def find_boundary(instances: np.ndarray) -> np.ndarray:
    """Returns 1 for pixels of a nucleus with a neighbour, of four, that is not of the same one.

    The edge of an image is no boundary.
    """
    boundary = np.zeros(instances.shape, dtype=bool)
    for axis in (0, 1):
        differ = np.diff(instances.astype(np.int64), axis=axis) != 0
        boundary |= np.pad(differ, [(0, 1) if axis == k else (0, 0) for k in (0, 1)])
        boundary |= np.pad(differ, [(1, 0) if axis == k else (0, 0) for k in (0, 1)])
    return (boundary & (instances > 0)).astype(np.uint8)


def measure_distance(instances: np.ndarray) -> np.ndarray:
    """Returns the Euclidean distance to the nearest pixel outside of the own nucleus, in pixels.

    It is 0 in the background. What lies beyond the edge of an image does not count as outside.

    Raises:
        UserError: scipy is not installed.
    """
    try:
        from scipy.ndimage import distance_transform_edt, find_objects
    except ModuleNotFoundError:
        raise UserError("Nuclei needs scipy for distances: pip install scipy") from None
    distance = np.zeros(instances.shape, dtype=np.float32)
    for number, box in enumerate(find_objects(instances.astype(np.int32)), start=1):
        if box is None:
            continue
        # a pixel more on each side, where it is not the edge
        rows, columns = (slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        own = instances[rows, columns] == number
        if not own.all():
            distance[rows, columns] += distance_transform_edt(own)
    return distance


def count_nuclei(instances: np.ndarray) -> int:
    """Returns the number of nuclei."""
    return len(np.setdiff1d(instances, 0))
