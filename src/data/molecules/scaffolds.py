"""Splits by scaffold: molecules with one skeleton stay together, and common skeletons train."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from src.data.molecules.smiles import import_rdkit, read_molecules
from src.data.tables.splits import SIDE

if TYPE_CHECKING:
    import pandas as pd


def find_scaffolds(column: pd.Series) -> np.ndarray:
    """Returns the scaffold of each molecule as SMILES: (N,).

    It is made of the rings and what links them (Bemis and Murcko, "The properties of known drugs",
    J. Med. Chem. 1996), without chirality. Molecules without rings have ''.

    Args:
        column: (N,) SMILES.

    Raises:
        BadValue: RDKit cannot read one of them.
    """
    murcko = import_rdkit("rdkit.Chem.Scaffolds.MurckoScaffold")
    find = partial(murcko.MurckoScaffoldSmiles, includeChirality=False)
    found = [find(mol=molecule) for molecule in read_molecules(column)]
    return np.array(found, dtype=object)


def split_by_scaffold(scaffolds: np.ndarray, val: float, test: float) -> np.ndarray:
    """Splits molecules so that no scaffold is on two sides; nothing is drawn.

    Scaffolds are dealt in the order of their number of molecules, the largest first, and of equal
    ones that with the later first molecule. Each goes to train if it fits there, else to validation
    if it fits there, else to test: as MoleculeNet does (Wu et al., "MoleculeNet: a benchmark for
    molecular machine learning", Chem. Sci. 2018). So the molecules that test have rare skeletons,
    and scores are lower than on random splits.

    Args:
        scaffolds: (N,) names.
        val: Share of the molecules that validates.
        test: Share of the molecules that tests.

    Returns:
        (N,) of 'train', 'val' or 'test'.
    """
    members: dict[str, list[int]] = {}
    for row, name in enumerate(scaffolds):
        members.setdefault(name, []).append(row)
    largest_first = sorted(members.values(), key=lambda rows: (len(rows), rows[0]), reverse=True)

    # how many rows train, and how many train or validate, at most; 1e-9 is for 0.8 + 0.1
    count = len(scaffolds)
    most_train = (1 - val - test) * count + 1e-9
    most_known = (1 - test) * count + 1e-9
    side = np.full(count, "test", dtype=SIDE)
    trained = 0
    validated = 0
    for rows in largest_first:
        if trained + len(rows) <= most_train:
            side[rows] = "train"
            trained += len(rows)
        elif trained + validated + len(rows) <= most_known:
            side[rows] = "val"
            validated += len(rows)
    return side
