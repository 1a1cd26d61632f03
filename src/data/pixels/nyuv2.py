"""NYUv2 as the literature of multi-task learning preprocesses it: three tasks per pixel."""

from typing import Any

from src.data.pixels.dense import Dense
from src.data.pixels.settings import merge_settings

SOURCE = "the preprocessed files of MTAN (https://github.com/lorenmt/mtan names their address)"
# the 13 classes of Couprie et al., ICLR 2013, in the order of their ids
CLASSES = (
    *("bed", "books", "ceiling", "chair", "floor", "furniture", "objects"),
    *("picture", "sofa", "table", "tv", "wall", "window"),
)


class NYUv2(Dense):
    """Indoor scenes (Silberman et al., ECCV 2012) in the form of MTAN (Liu et al., CVPR 2019).

    The tasks are ``segmentation`` into 13 classes, ``depth`` in metres and ``normal``, the surface
    normals; 795 images of 288 x 384 train and 654 test. The folders ``train`` and ``val`` hold
    ``image``, ``label``, ``depth`` and ``normal``, with files 0.npy, 1.npy ... A label of -1, a
    depth of 0 and a normal of zeros are missing.

    The data set has no validation images: the literature reports its scores on ``val``, and chooses
    epochs there, too. Here ``val`` tests, once, and a share of ``train`` validates.

    The metrics are those of the literature, and count each pixel of the test images once. Code that
    averages over batches instead gives other numbers for depth, by as much as batches differ in
    their labelled pixels.

    Args:
        root: Folder with train and val.
        tasks: {task: settings} besides the ones here, as in Dense.
        val_fraction: Share of the training images that validates.
        split_seed: Seed of that split.
        flip: Whether half of the training images are mirrored; normals follow.
        schema_path: A run's schema.json.
        batch_size: Images per step over all devices together.
        eval_batch_size: Images per evaluation step over all devices.
        num_workers: Processes that read images.
        seed: Seed of the order of training batches, and of their random changes.
    """

    def __init__(
        self,
        root: str,
        tasks: dict[str, Any] | None = None,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        flip: bool = False,
        schema_path: str | None = None,
        batch_size: int = 8,
        eval_batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        defaults = {
            "segmentation": {
                "class_path": "Segmentation",
                "classes": list(CLASSES),
                "ignore_index": -1,
            },
            "depth": {"class_path": "DenseRegression", "loss": "mae", "missing_value": 0.0},
            "normal": {"class_path": "SurfaceNormals"},
        }
        super().__init__(
            root,
            targets={"segmentation": "label", "depth": "depth", "normal": "normal"},
            tasks=merge_settings(defaults, tasks),
            val_folder=None,
            test_folder="val",
            val_fraction=val_fraction,
            split_seed=split_seed,
            flip=flip,
            schema_path=schema_path,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
        )

    def advise(self) -> str:
        return f"; get {SOURCE}, and name the folder that holds train and val"
