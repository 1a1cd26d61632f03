"""Molecules from SMILES, read by RDKit, which is an optional package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from src.data.tables.numbers import BadValue
from src.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from rdkit.Chem import Mol

SHOWN = 60  # characters of a SMILES in a message; those of large molecules have hundreds


def import_rdkit(module: str) -> ModuleType:
    """Imports a module of RDKit, such as 'rdkit.Chem'.

    Raises:
        UserError: RDKit is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise UserError("molecules are read by RDKit: pip install rdkit") from None


@contextmanager
def silence_rdkit() -> Iterator[None]:
    """Keeps RDKit from printing lines of its own about each molecule."""
    block = import_rdkit("rdkit.rdBase").BlockLogs()
    try:
        yield
    finally:
        del block


def read_molecule(smiles: object) -> Mol:
    """Reads a SMILES.

    Raises:
        UserError: RDKit does not; the message continues "column ...".
    """
    # a missing value is NaN or None
    if not isinstance(smiles, str) or not smiles:
        raise UserError("has no SMILES")
    chem = import_rdkit("rdkit.Chem")
    molecule = chem.MolFromSmiles(smiles)
    if molecule is None:
        raise UserError(f"holds '{shorten(smiles)}', which RDKit cannot read ({explain(smiles)})")
    if not molecule.GetNumAtoms():
        raise UserError(f"holds '{shorten(smiles)}', a molecule without atoms")
    return molecule


def read_molecules(column: pd.Series) -> Iterator[Mol]:
    """Reads the SMILES of a column, one after the other.

    Raises:
        BadValue: RDKit cannot read one of them.
    """
    with silence_rdkit():
        for row, smiles in enumerate(column.tolist()):
            try:
                molecule = read_molecule(smiles)
            except UserError as error:
                raise BadValue(row, f"{error}; --data.on_error skip leaves out such rows") from None
            yield molecule


def find_unreadable(column: pd.Series) -> dict[int, str]:
    """Finds the SMILES that RDKit cannot read.

    Returns:
        {position in the column, from 0: why}.
    """
    found = {}
    with silence_rdkit():
        for row, smiles in enumerate(column.tolist()):
            try:
                read_molecule(smiles)
            except UserError as error:
                found[row] = str(error)
    return found


def explain(smiles: str) -> str:
    """Says why RDKit cannot read a SMILES."""
    chem = import_rdkit("rdkit.Chem")
    raw = chem.MolFromSmiles(smiles, sanitize=False)
    if raw is None:
        return "no SMILES"
    problems = chem.DetectChemistryProblems(raw)
    return str(problems[0].Message()) if problems else "no valid molecule"


def shorten(smiles: str) -> str:
    """Returns the beginning of a long SMILES."""
    return smiles if len(smiles) <= SHOWN else f"{smiles[:SHOWN]}..."
