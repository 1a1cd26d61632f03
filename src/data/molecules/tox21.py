"""Tox21: twelve assays of toxicity, most of whose labels are there."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from src.data.download import PublicFile, find_public_file
from src.data.molecules.molecules import Molecules
from src.data.tables.sides import collect_rows

ASSAYS = [
    "NR-AR",
    "NR-AR-LBD",
    "NR-AhR",
    "NR-Aromatase",
    "NR-ER",
    "NR-ER-LBD",
    "NR-PPAR-gamma",
    "SR-ARE",
    "SR-ATAD5",
    "SR-HSE",
    "SR-MMP",
    "SR-p53",
]
SOURCE = "https://github.com/GLambard/Molecules_Dataset_Collection"
COMMIT = "beb35cd0b76db5adef6cb1fa55807e4cd309aaed"
FILE = PublicFile(
    "tox21.csv",
    f"https://raw.githubusercontent.com/GLambard/Molecules_Dataset_Collection/{COMMIT}/originals/tox21.csv",
    "7d7e7facd853a63e79ddce4e9c3fcb7a0d83a1c300b603031c0f2c64fbe77761",
)


class Tox21(Molecules):
    """Tox21 as MoleculeNet has it (Wu et al. 2018): 7,831 molecules, 12 assays, 17 % missing.

    The file is ``originals/tox21.csv`` of https://github.com/GLambard/Molecules_Dataset_Collection.
    RDKit cannot read eight of its SMILES, of aluminium compounds; these rows are left out. The
    random split is the usual one of 80 : 10 : 10, numpy's ``RandomState(seed).permutation`` of the
    rows of the file, in this order. The score is the mean AUROC of the assays.

    Args:
        root: Folder with tox21.csv, gzipped or not.
        features: How molecules become inputs, as in Molecules.
        radius: Bonds between the middle of a fingerprint's neighbourhood and its rim.
        bits: Length of a fingerprint.
        split: random or scaffold.
        targets: The assays to predict; None for all.
        tasks: {task: settings}, as in Table.
        download: Whether a file that is not there is fetched.
        folds: Number of folds; one of them tests.
        fold: The fold that tests, from 0.
        split_seed: Seed of the random split; None for that of the run, so that several seeds are
            several splits, as the field reports them.
        schema_path: A run's schema.json.
        batch_size: Rows per step over all devices together.
        eval_batch_size: Rows per evaluation step over all devices.
        num_workers: Processes that prepare batches.
        seed: Seed of the order of training batches.
    """

    def __init__(
        self,
        root: str,
        features: str | list[str] = "ecfp",
        radius: int = 2,
        bits: int = 2048,
        split: Literal["random", "scaffold"] = "random",
        targets: list[str] | None = None,
        tasks: dict[str, Any] | None = None,
        download: bool = False,
        folds: int | None = None,
        fold: int = 0,
        split_seed: int | None = 0,
        schema_path: str | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 512,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            path=find_public_file(root, FILE, SOURCE, download),
            targets=targets or ASSAYS,
            features=features,
            radius=radius,
            bits=bits,
            split=split,
            on_error="skip",
            tasks=tasks,
            id="mol_id",
            folds=folds,
            fold=fold,
            split_seed=seed if split_seed is None else split_seed,
            schema_path=schema_path,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
        )

    def assign_rows(self) -> dict[str, np.ndarray]:
        if self.by_scaffold or self.folds is not None:
            return super().assign_rows()

        # the rows that are skipped have a place in the permutation, too
        places = self.main.index.to_numpy()
        order = np.random.RandomState(self.split_seed).permutation(self.rows_in_file)
        side = np.full(len(order), "test", dtype="<U5")
        side[order[: int(0.8 * len(order))]] = "train"
        side[order[int(0.8 * len(order)) : int(0.9 * len(order))]] = "val"
        rows, notes = collect_rows(self, side[places], moved=0)
        self.column_notes += notes
        return rows
