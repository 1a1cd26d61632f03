"""Molecules as vectors: fingerprints of their neighbourhoods, and descriptors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from src.batch import InputShape
from src.data.molecules.smiles import import_rdkit, read_molecule, read_molecules, silence_rdkit
from src.data.rows import Inputs
from src.data.tables.columns import MemberColumn
from src.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

FEATURES = ("ecfp", "counts", "descriptors", "graph")

FARTHEST = 10.0  # standard deviations; some descriptors grow exponentially with a molecule's size
KEPT = 200_000  # molecules whose descriptors are remembered


@dataclass(frozen=True)
class Fingerprint(MemberColumn):
    """A column of SMILES that becomes vectors: the parts of ``features``, one after the other.

    Attributes:
        column: The column of the file.
        features: ecfp: which neighbourhoods of atoms a molecule has, as 0 and 1 (Rogers and Hahn,
            "Extended-connectivity fingerprints", J. Chem. Inf. Model. 2010); counts: how often, as
            log(1 + n); descriptors: all of RDKit's, standardised, 0 where one is not defined.
        radius: Bonds between the middle of a neighbourhood and its rim; 2 is called ECFP4.
        bits: Number of bins that neighbourhoods are hashed to.
        names: Names of the descriptors.
        mean: Their means over the training rows.
        std: Their standard deviations; 1 where all values are the same.
    """

    features: tuple[str, ...]
    radius: int
    bits: int
    names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @classmethod
    def fit(cls, column: pd.Series, features: Sequence[str], radius: int, bits: int) -> Self:
        """Learns from the SMILES of the training rows.

        Raises:
            BadValue: RDKit cannot read one of them.
        """
        name = str(column.name)
        if "descriptors" not in features:
            return cls(name, tuple(features), radius, bits)
        names = list_descriptors()
        values = find_descriptors(column, names)
        mean, std = measure_descriptors(values)
        return cls(name, tuple(features), radius, bits, names, mean, std)

    @classmethod
    def from_plain(cls, settings: Mapping[str, Any]) -> Self:
        lists = ("features", "names", "mean", "std")
        return cls(**{**settings, **{key: tuple(settings[key]) for key in lists}})

    @property
    def shape(self) -> InputShape:
        sizes = {"ecfp": self.bits, "counts": self.bits, "descriptors": len(self.names)}
        return InputShape((sum(sizes[feature] for feature in self.features),))

    def encode(self, series: pd.Series, path: str) -> tuple[Inputs, list[str]]:
        parts = []
        for feature in self.features:
            if feature == "descriptors":
                parts.append(self._standardise(find_descriptors(series, self.names)))
            else:
                parts.append(find_fingerprints(series, feature, self.radius, self.bits))
        return torch.from_numpy(np.concatenate(parts, 1)), []

    def _standardise(self, values: np.ndarray) -> np.ndarray:
        """Returns descriptors (N, F) as float32, 0 where they are not finite."""
        standard = (values - np.array(self.mean)) / np.array(self.std)
        standard = np.nan_to_num(standard, nan=0.0, posinf=0.0, neginf=0.0)
        return standard.clip(-FARTHEST, FARTHEST).astype(np.float32)


def find_fingerprints(column: pd.Series, feature: str, radius: int, bits: int) -> np.ndarray:
    """Returns the extended-connectivity fingerprints of molecules: (N, bits) float32.

    Args:
        column: (N,) SMILES.
        feature: ecfp for 0 and 1, counts for log(1 + n).
        radius: Bonds between the middle of a neighbourhood and its rim.
        bits: Number of bins.

    Raises:
        BadValue: RDKit cannot read a SMILES.
    """
    make = import_rdkit("rdkit.Chem.rdFingerprintGenerator").GetMorganGenerator
    generator = make(radius=radius, fpSize=bits)
    found = np.zeros((len(column), bits), np.float32)
    for row, molecule in enumerate(read_molecules(column)):
        if feature == "ecfp":
            found[row] = generator.GetFingerprintAsNumPy(molecule)
        else:
            found[row] = np.log1p(generator.GetCountFingerprintAsNumPy(molecule))
    return found


# -- descriptors -----------------------------------------------------------------------------------
def list_descriptors() -> tuple[str, ...]:
    """Returns the names of RDKit's descriptors."""
    return tuple(name for name, _ in import_rdkit("rdkit.Chem.Descriptors").descList)


def find_descriptors(column: pd.Series, names: tuple[str, ...]) -> np.ndarray:
    """Computes descriptors of molecules: (N, F) float64, not finite where one is not defined.

    Args:
        column: (N,) SMILES.
        names: The names of the descriptors.

    Raises:
        BadValue: RDKit cannot read a SMILES.
        UserError: This version of RDKit lacks a descriptor.
    """
    known = set(list_descriptors())
    for name in names:
        if name not in known:
            raise UserError(
                f"the run reads the descriptor '{name}', which this version of RDKit lacks: "
                "install the one that run.json names"
            )
    rows = []
    for smiles, _ in zip(column.tolist(), read_molecules(column), strict=True):
        rows.append(compute_descriptors(smiles, names))
    return np.stack(rows) if rows else np.zeros((0, len(names)))


@lru_cache(maxsize=KEPT)
def compute_descriptors(smiles: str, names: tuple[str, ...]) -> np.ndarray:
    """Computes the descriptors of a molecule: (F,).

    They are remembered: it takes 7 ms, and the training rows are asked for twice.
    """
    with silence_rdkit():
        molecule = read_molecule(smiles)
        every = dict(import_rdkit("rdkit.Chem.Descriptors").descList)
        found = np.full(len(names), np.nan)
        for place, name in enumerate(names):
            try:
                found[place] = every[name](molecule)
            except (ValueError, ArithmeticError, RuntimeError):
                # of an element that a table of the descriptor does not have
                continue
    return found


def measure_descriptors(values: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean and the standard deviation of each descriptor, (F,) and (F,).

    Values that are not finite do not count. Where all are the same, the standard deviation is 1.

    Args:
        values: (N, F)
    """
    means = []
    stds = []
    for column in values.T:
        # squares of larger values overflow
        known = column[np.isfinite(column) & (np.abs(column) < 1e100)]
        varies = len(known) > 0 and known.min() < known.max()
        means.append(float(known.mean()) if len(known) else 0.0)
        stds.append(float(known.std()) if varies else 1.0)
    return tuple(means), tuple(stds)
