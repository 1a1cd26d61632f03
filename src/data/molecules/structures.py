"""Molecules whose atoms have positions: graphs with an edge for each pair of near atoms."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from src.batch import PADDING, InputShape
from src.data.molecules.graphs import PackedGraphs, find_places, take
from src.data.molecules.smiles import import_rdkit, silence_rdkit
from src.errors import UserError

if TYPE_CHECKING:
    from rdkit.Chem import Mol

BONDS = ("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC")
NO_BOND = len(BONDS)
FARTHEST = 6.0  # standard deviations from its centre, a Gaussian is taken for 0


@dataclass(frozen=True)
class PackedStructures(PackedGraphs):
    """Many molecules with positions; all pairs of atoms that are near each other have edges.

    The features of an edge are its bond, as 0 and 1, and its length d as ``radial`` Gaussians
    exp(-(d - c_k)^2 / (2 s^2)) with centres c_k from 0 to ``cutoff``, which are s apart (Schütt et
    al., "SchNet", NeurIPS 2017). So features do not change when a molecule is moved or turned.

    Attributes:
        positions: (nodes, 3) in angstrom.
        cutoff: Longest edge, in angstrom.
        radial: Number of Gaussians.
    """

    positions: Tensor = field(default_factory=lambda: torch.zeros(0, 3))
    cutoff: float = 10.0
    radial: int = 32

    @property
    def shape(self) -> InputShape:
        """The shape of one molecule in a batch."""
        return InputShape(nodes=sum(self.node_sizes), edges=NO_BOND + 1 + self.radial)

    def append(self, other: PackedGraphs) -> PackedStructures:
        assert isinstance(other, PackedStructures)
        both = super().append(other)
        positions = torch.cat([self.positions, other.positions])
        return PackedStructures(
            **vars(both), positions=positions, cutoff=self.cutoff, radial=self.radial
        )

    def select(self, part: str, rows: Tensor) -> Tensor:
        if part in ("nodes", "node_mask"):
            return super().select(part, rows)
        molecule, first, second, lengths = self._find_pairs(rows)

        # the place of each pair among those of its molecule
        counts = torch.bincount(molecule, minlength=len(rows))
        place = torch.arange(len(molecule)) - (counts.cumsum(0) - counts)[molecule]
        longest = int(counts.max()) if len(rows) else 0
        if part == "edges":
            edges = torch.full((len(rows), longest, 2), PADDING)
            edges[molecule, place] = torch.stack([first, second], 1)
            return edges

        features = torch.zeros(len(rows), longest, NO_BOND + 1 + self.radial)
        bonds = self._find_bonds(rows)[molecule, first, second]
        features[molecule, place, bonds] = 1.0
        features[molecule, place, NO_BOND + 1 :] = self._expand(lengths)
        return features

    def hash_graphs(self, part: str, rows: Tensor) -> np.ndarray:
        if part != "node_mask":
            return super().hash_graphs(part, rows)

        # positions belong to no part of their own
        of_positions = PackedGraphs(
            self.positions, self.edges, self.edge_features, self.node_counts, self.edge_counts
        )
        return of_positions.hash_graphs("nodes", rows)

    def _find_pairs(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns the pairs of near atoms: molecule, first and second atom, and distance, (P,)."""
        places, mask = find_places(self.node_counts, rows)
        positions = take(self.positions, places, mask)
        distances = (positions[:, :, None] - positions[:, None]).norm(dim=-1)
        near = (distances < self.cutoff) & mask[:, :, None] & mask[:, None]
        near &= ~torch.eye(mask.shape[1], dtype=torch.bool)
        molecule, first, second = near.nonzero(as_tuple=True)
        return molecule, first, second, distances[near]

    def _find_bonds(self, rows: Tensor) -> Tensor:
        """Returns the bond of each pair of atoms (B, N, N), a place in ``BONDS`` or NO_BOND."""
        longest = int(self.node_counts[rows].max())
        bonds = torch.full((len(rows), longest, longest), NO_BOND)
        places, mask = find_places(self.edge_counts, rows)
        molecule, _ = mask.nonzero(as_tuple=True)
        first, second = self.edges[places[mask]].long().unbind(1)
        bonds[molecule, first, second] = self.edge_features[places[mask], 0].long()
        return bonds

    def _expand(self, lengths: Tensor) -> Tensor:
        """Expands lengths (P,) in Gaussians (P, radial)."""
        centres = torch.linspace(0, self.cutoff, self.radial)
        spacing = self.cutoff / max(self.radial - 1, 1)
        squares = ((lengths[:, None] - centres) / spacing) ** 2

        # numbers too small for normal form would slow down all that is computed from them
        return torch.exp(-squares / 2) * (squares < FARTHEST**2)


@contextmanager
def open_binary(path: str) -> Iterator[IO[bytes]]:
    """Opens a file for reading, gzipped or not."""
    opened: Any = gzip.open if path.endswith(".gz") else open
    with opened(path, "rb") as file:
        yield file


def read_structures(path: str, elements: Sequence[int]) -> tuple[PackedStructures, list[str]]:
    """Reads the molecules of an SDF file, with all their hydrogens.

    Args:
        path: The file, gzipped or not.
        elements: The atomic numbers that may occur.

    Returns:
        The molecules, and their names.

    Raises:
        UserError: The file is missing, or holds a molecule that RDKit cannot read.
    """
    supplier = import_rdkit("rdkit.Chem").ForwardSDMolSupplier
    nodes: list[np.ndarray] = []
    positions: list[np.ndarray] = []
    edges: list[np.ndarray] = []
    bonds: list[np.ndarray] = []
    names = []
    try:
        with open_binary(path) as file, silence_rdkit():
            for record, molecule in enumerate(supplier(file, removeHs=False, sanitize=False)):
                try:
                    atoms, places, pairs, kinds = read_structure(molecule, elements)
                except UserError as error:
                    place = f"{path} line {find_line(path, record)}: molecule {record + 1}"
                    raise UserError(f"{place} {error}") from None
                nodes.append(atoms)
                positions.append(places)
                edges.append(pairs)
                bonds.append(kinds)
                names.append(molecule.GetProp("_Name"))
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read: {reason}") from None
    if not names:
        raise UserError(f"{path}: holds no molecule")
    return PackedStructures(
        nodes=torch.from_numpy(np.concatenate(nodes)[:, None]),
        edges=torch.from_numpy(np.concatenate(edges)),
        edge_features=torch.from_numpy(np.concatenate(bonds)[:, None]),
        node_counts=torch.tensor([len(each) for each in nodes]),
        edge_counts=torch.tensor([len(each) for each in edges]),
        node_sizes=(len(elements),),
        edge_sizes=(NO_BOND,),
        positions=torch.from_numpy(np.concatenate(positions)),
    ), names


def read_structure(
    molecule: Mol | None, elements: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Reads the atoms and bonds of a molecule.

    Args:
        molecule: The molecule; None where RDKit could not read it.
        elements: The atomic numbers that may occur.

    Returns:
        Places of the atoms' elements (N,), positions (N, 3), bonds in both directions (2 E, 2), and
        their kinds (2 E,).

    Raises:
        UserError: RDKit could not read it, or it has no atom, another element, another bond, or
            positions that are not finite.
    """
    if molecule is None:
        raise UserError("is no molecule that RDKit can read")
    numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
    if not numbers:
        raise UserError("has no atoms")
    for atom, number in enumerate(numbers):
        if number not in elements:
            known = ", ".join(map(str, elements))
            raise UserError(f"atom {atom + 1} has the atomic number {number}, none of {known}")
    positions = molecule.GetConformer().GetPositions()
    if not np.isfinite(positions).all():
        raise UserError("has a position that is not finite")

    pairs = []
    kinds = []
    for bond in molecule.GetBonds():
        ends = (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())
        kind = bond.GetBondType().name
        if kind not in BONDS:
            raise UserError(f"bond {bond.GetIdx() + 1} is {kind}, none of {', '.join(BONDS)}")
        pairs += [ends, ends[::-1]]
        kinds += [BONDS.index(kind)] * 2
    places = [elements.index(number) for number in numbers]
    return (
        np.array(places, dtype=np.uint8),
        positions.astype(np.float32),
        np.array(pairs, dtype=np.int16).reshape(-1, 2),
        np.array(kinds, dtype=np.uint8),
    )


def find_line(path: str, record: int) -> int:
    """Returns the line, from 1, on which a molecule of an SDF file begins; records count from 0."""
    ends = 0
    with open_binary(path) as file:
        for number, line in enumerate(file, 1):
            if ends == record:
                return number
            ends += line.startswith(b"$$$$")
    return 1


def find_sdf(path: str) -> str:
    """Returns the SDF file that belongs to a table: gdb9.sdf of gdb9.sdf.csv, gzipped or not."""
    stem = path.removesuffix(".gz").removesuffix(".csv")
    for candidate in (stem, f"{stem}.gz"):
        if Path(candidate).is_file():
            return candidate
    raise UserError(f"{path}: the molecules' file {stem} is not beside it")
