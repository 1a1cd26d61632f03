import sys

import pandas as pd
import pytest

from src.data.molecules.smiles import find_unreadable, import_rdkit, read_molecules
from src.data.tables.numbers import BadValue
from tests.data.molecules.made_molecules import BROKEN


def test_molecules_in_order():
    found = [m.GetNumAtoms() for m in read_molecules(pd.Series(["CCO", "c1ccccc1", "[Na+].[Cl-]"]))]
    assert found == [3, 6, 2]


@pytest.mark.parametrize(
    ("smiles", "says"),
    [
        ("C1CC", r"holds 'C1CC', which RDKit cannot read \(no SMILES\)"),
        (BROKEN, r"cannot read \(Explicit valence for atom # 3 Al, 6"),
        (None, "has no SMILES"),
        (float("nan"), "has no SMILES"),
        ("", "has no SMILES"),
    ],
)
def test_a_broken_one_is_named(smiles, says, capfd):
    with pytest.raises(BadValue, match=says) as error:
        list(read_molecules(pd.Series(["CCO", smiles], dtype=object)))
    assert error.value.row == 1
    assert "--data.on_error skip" in str(error.value)

    # RDKit prints nothing of its own
    shown = capfd.readouterr()
    assert not shown.out + shown.err


def test_all_broken_ones_are_found():
    wrong = find_unreadable(pd.Series(["C", "C(", "CC", BROKEN, None], dtype=object))
    assert list(wrong) == [1, 3, 4]
    assert "'C('" in wrong[1]


def test_without_rdkit(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    monkeypatch.delitem(sys.modules, "rdkit.Chem", raising=False)
    with pytest.raises(ValueError, match="pip install rdkit"):
        import_rdkit("rdkit.Chem")
