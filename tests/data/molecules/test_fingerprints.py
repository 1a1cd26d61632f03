import json

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem, Descriptors

from src.data.molecules.fingerprints import Fingerprint, find_fingerprints, measure_descriptors
from src.data.tables.columns import from_plain, to_plain
from tests.data.molecules.made_molecules import SMILES

COLUMN = pd.Series(SMILES[:12], name="smiles")


def test_ecfp_is_the_one_of_rdkits_older_function():
    found = find_fingerprints(COLUMN, "ecfp", 2, 1024)
    for row, smiles in zip(found, COLUMN, strict=True):
        bits = AllChem.GetMorganFingerprintAsBitVect(Chem.MolFromSmiles(smiles), 2, 1024)
        assert row.tolist() == list(bits)


def test_counts_are_logarithms():
    found = np.expm1(find_fingerprints(pd.Series(["CCCCCC", "O"]), "counts", 0, 64))
    assert sorted(found[0])[-2:] == pytest.approx([2, 4])  # two ends, four in between
    assert found[1].sum() == pytest.approx(1)


def test_descriptors_are_standardised_by_the_training_rows():
    column = Fingerprint.fit(COLUMN[:8], ["descriptors"], 2, 16)
    inputs, _ = column.encode(COLUMN, "")
    weight = [Descriptors.MolWt(Chem.MolFromSmiles(smiles)) for smiles in COLUMN]
    expected = (np.array(weight) - np.mean(weight[:8])) / np.std(weight[:8])
    place = column.names.index("MolWt")
    np.testing.assert_allclose(inputs[:, place], expected, rtol=1e-5)
    assert inputs.isfinite().all()
    assert inputs.abs().max() <= 10


def test_values_that_are_not_finite_do_not_count():
    values = np.array([[1.0, np.nan, 5.0], [3.0, np.inf, 5.0], [np.nan, np.nan, 5.0]])
    mean, std = measure_descriptors(values)
    assert mean == (2.0, 0.0, 5.0)
    assert std == (1.0, 1.0, 1.0)
    column = Fingerprint("s", ("descriptors",), 2, 16, ("a", "b", "c"), mean, std)
    assert column._standardise(values).tolist() == [[-1, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_an_atom_without_a_descriptor():
    """Gasteiger charges know no uranium."""
    series = pd.Series(["[U]", "CCO", "CCN"], name="s")
    inputs, _ = Fingerprint.fit(series, ["descriptors"], 2, 16).encode(series, "")
    assert inputs.isfinite().all()


def test_parts_stand_side_by_side():
    column = Fingerprint.fit(COLUMN, ["counts", "ecfp", "descriptors"], 1, 32)
    inputs, _ = column.encode(COLUMN, "")
    assert column.shape.dense == (64 + len(column.names),) == tuple(inputs.shape[1:])
    assert (inputs[:, 32:64] == (inputs[:, :32] > 0)).all()


def test_a_schema_keeps_it():
    column = Fingerprint.fit(COLUMN, ["descriptors"], 2, 16)
    again = from_plain(json.loads(json.dumps(to_plain(column))), (Fingerprint,))
    assert again == column


def test_a_version_without_a_descriptor():
    column = Fingerprint("s", ("descriptors",), 2, 16, ("Unheard",), (0.0,), (1.0,))
    with pytest.raises(ValueError, match="'Unheard', which this version of RDKit lacks"):
        column.encode(COLUMN, "")
