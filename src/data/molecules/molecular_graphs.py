"""Molecules as graphs: atoms and bonds with the features of PyTorch Geometric."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from src.batch import InputShape
from src.data.molecules.graphs import Graph, PackedGraphs
from src.data.molecules.smiles import read_molecules
from src.data.rows import Inputs
from src.data.tables.columns import MemberColumn
from src.data.tables.numbers import BadValue
from src.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from rdkit.Chem import Mol


@dataclass(frozen=True)
class MolecularGraph(MemberColumn):
    """A column of SMILES that becomes graphs.

    An atom has its element, chirality, degree, charge, hydrogens, radical electrons, hybridisation,
    and whether it is aromatic and in a ring; a bond has its type, stereo, and whether it is
    conjugated. Each of these is a vector of 0 and 1, and nothing is learnt from the data. Hydrogens
    are no atoms of their own.
    """

    @property
    def shape(self) -> InputShape:
        features = import_features()
        return InputShape(
            nodes=sum(count_categories(features.x_map)), edges=sum(count_categories(features.e_map))
        )

    def encode(self, series: pd.Series, path: str) -> tuple[Inputs, list[str]]:
        features = import_features()
        graphs = []
        for row, molecule in enumerate(read_molecules(series)):
            try:
                graphs.append(make_graph(molecule))
            except ValueError as error:
                raise BadValue(
                    row, f"holds a molecule with an atom or bond unlike any other: {error}"
                ) from None
        sizes = (count_categories(features.x_map), count_categories(features.e_map))
        return PackedGraphs.pack(graphs, *sizes).as_inputs(), []


def import_features() -> ModuleType:
    """Imports the module of PyTorch Geometric that knows the features of atoms and bonds.

    Raises:
        UserError: It is not installed.
    """
    try:
        # it scripts some of its classes when it is imported, which torch warns of
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            from torch_geometric.utils import smiles
    except ImportError:
        raise UserError(
            "data.features graph needs PyTorch Geometric: pip install torch_geometric"
        ) from None
    module: ModuleType = smiles
    return module


def count_categories(features: Mapping[str, Sequence[Any]]) -> tuple[int, ...]:
    """Returns the number of categories of each feature."""
    return tuple(len(categories) for categories in features.values())


def make_graph(molecule: Mol) -> Graph:
    """Turns a molecule into a graph, with positions of categories as features.

    Raises:
        ValueError: An atom has a feature out of range, such as a charge of 7.
    """
    data = import_features().from_rdmol(molecule)
    return Graph(
        data.x.to(torch.uint8),
        data.edge_index.T.to(torch.int16).contiguous(),
        data.edge_attr.to(torch.uint8),
    )
