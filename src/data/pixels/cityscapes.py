"""Cityscapes as the literature of multi-task learning preprocesses it: two tasks per pixel."""

from typing import Any

from src.data.pixels.dense import Dense
from src.data.pixels.settings import merge_settings

SOURCE = "the preprocessed files of MTAN (https://github.com/lorenmt/mtan names their address)"
# the groups of the 19 classes of Cityscapes, in the order of their ids
CLASSES = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")


class Cityscapes(Dense):
    """Streets (Cordts et al., CVPR 2016) in the form of MTAN (Liu et al., CVPR 2019).

    The tasks are ``segmentation`` into 7 classes and ``depth``, which is inverse depth
    (disparity); 2,975 images of 128 x 256 train and 500 test. The folders ``train`` and ``val``
    hold ``image``, ``label`` and ``depth``, with files 0.npy, 1.npy ... A label of -1 and a depth
    of 0 are missing.

    As with NYUv2, ``val`` tests, once, and a share of ``train`` validates; the literature reports
    its scores on ``val``, and chooses epochs there, too.

    Args:
        root: Folder with train and val.
        label: Name of the folders of labels; the copies of MTAN's authors call it label_7.
        tasks: {task: settings} besides the ones here, as in Dense.
        val_fraction: Share of the training images that validates.
        split_seed: Seed of that split.
        flip: Whether half of the training images are mirrored.
        schema_path: A run's schema.json.
        batch_size: Images per step over all devices together.
        eval_batch_size: Images per evaluation step over all devices.
        num_workers: Processes that read images.
        seed: Seed of the order of training batches, and of their random changes.
    """

    def __init__(
        self,
        root: str,
        label: str = "label",
        tasks: dict[str, Any] | None = None,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        flip: bool = False,
        schema_path: str | None = None,
        batch_size: int = 16,
        eval_batch_size: int = 64,
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
        }
        super().__init__(
            root,
            targets={"segmentation": label, "depth": "depth"},
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
