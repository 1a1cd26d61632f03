"""Small files of molecules: tables of SMILES as Tox21 has them, and files of QM9's form."""

import gzip
from itertools import product
from pathlib import Path

import numpy as np
from rdkit import Chem
from rdkit.Chem.rdDistGeom import EmbedMolecule

from src.data.molecules.tox21 import ASSAYS

ENDS = ("O", "N", "Cl", "F", "C(=O)O", "N#C", "OC", "S")
RINGS = ("c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CCOC1", "CCCC")
SMILES = [f"{a}{'C' * n}{ring}" for n, ring, a in product(range(3), RINGS, ENDS)]
BROKEN = "CCO[AlH3](O)O"  # aluminium with six bonds


def write_molecules(folder: Path, name: str = "molecules.csv", broken: tuple[int, ...] = ()) -> str:
    """Writes 120 molecules with labels of rings and acids, a fifth missing, and a number of atoms.

    Args:
        folder: Where to.
        name: Of the file; gzipped where it ends in .gz.
        broken: Rows, from 1, whose SMILES no program reads.
    """
    lines = ["name,ring,acid,atoms,smiles"]
    for k, smiles in enumerate(SMILES):
        ring = "" if k % 5 == 1 else int("1" in smiles)
        acid = "" if k % 5 == 2 else int("C(=O)O" in smiles)
        atoms = Chem.MolFromSmiles(smiles).GetNumAtoms()
        written = BROKEN if k + 1 in broken else smiles
        lines.append(f"m{k},{ring},{acid},{atoms + k % 7 / 8},{written}")
    content = ("\n".join(lines) + "\n").encode()
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return str(path)


def write_tox21(folder: Path) -> str:
    """Writes tox21.csv with 100 molecules, two of which RDKit cannot read.

    Args:
        folder: Where to.
    """
    lines = [",".join([*ASSAYS, "mol_id", "smiles"])]
    for k, smiles in enumerate(SMILES[:100]):
        labels = ["" if (k + t) % 6 == 0 else str(int((k * 7 + t) % 3 == 0)) for t in range(12)]
        lines.append(",".join([*labels, f"TOX{k}", BROKEN if k in (10, 50) else smiles]))
    (folder / "tox21.csv").write_text("\n".join(lines) + "\n")
    return str(folder)


# -- QM9 -------------------------------------------------------------------------------------------
HEADER = (
    "mol_id,A,B,C,mu,alpha,homo,lumo,gap,r2,zpve,u0,u298,h298,g298,cv,"
    "u0_atom,u298_atom,h298_atom,g298_atom"
)
SMALL = ("C", "N", "O", "F", "CC", "CO", "CN", "C#C", "C=O", "C#N", "CCO", "CC=O", "OCO", "FCF")
WEIGHTS = {1: 0.5, 6: 2.0, 7: 3.0, 8: 4.0, 9: 5.0}


def made_energy(numbers: np.ndarray, positions: np.ndarray) -> float:
    """A sum of atoms' weights, and of exp(-d^2 / 2) over all pairs."""
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    pairs = np.exp(-(distances**2) / 2)[np.triu_indices(len(numbers), 1)]
    return sum(WEIGHTS[int(number)] for number in numbers) + 5 * float(pairs.sum())


def write_qm9(folder: Path, count: int = 60, excluded: tuple[int, ...] = (3, 7)) -> str:
    """Writes gdb9.sdf, gdb9.sdf.csv and uncharacterized.txt; every quantity is a made energy.

    Args:
        folder: Where to.
        count: Number of molecules.
        excluded: Molecules, from 1, that uncharacterized.txt names; without any it is not there.
    """
    rng = np.random.default_rng(0)
    records, lines = [], [HEADER]
    for k in range(count):
        molecule = Chem.AddHs(Chem.MolFromSmiles(SMALL[k % len(SMALL)]))
        EmbedMolecule(molecule, randomSeed=k)
        conformer = molecule.GetConformer()
        positions = conformer.GetPositions() * (1 + 0.2 * rng.random())
        for atom, position in enumerate(positions):
            conformer.SetAtomPosition(atom, position)
        molecule.SetProp("_Name", f"gdb_{k + 1}")
        records.append(Chem.MolToMolBlock(molecule) + "$$$$\n")
        numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
        energy = made_energy(numbers, positions.round(4))
        lines.append(",".join([f"gdb_{k + 1}", *[f"{energy * (q + 1):.6f}" for q in range(19)]]))
    (folder / "gdb9.sdf").write_text("".join(records))
    (folder / "gdb9.sdf.csv").write_text("\n".join(lines) + "\n")
    rows = [f"{number:8d}  CO  1.0  2.0" for number in excluded]
    text = [*["="] * 8, "Index  SMILES", *rows, f"{len(rows)} compounds"]
    if excluded:
        (folder / "uncharacterized.txt").write_text("\n".join(text) + "\n")
    return str(folder)
