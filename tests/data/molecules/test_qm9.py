import json
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rdkit import Chem

from src.data import QM9
from src.data.molecules.qm9 import extract
from tests.cli.calling import call
from tests.data.molecules.made_molecules import write_qm9
from tests.launching import only_run, read_json


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_qm9(tmp_path_factory.mktemp("qm9"))


@pytest.fixture
def root(made, tmp_path):
    for name in ("gdb9.sdf", "gdb9.sdf.csv", "uncharacterized.txt"):
        (tmp_path / name).write_bytes((Path(made) / name).read_bytes())
    return tmp_path


def test_units_and_rows(root):
    data = QM9(str(root))
    assert " ".join(data.tasks) == "mu alpha homo lumo r2 zpve U0 U H G Cv"
    frame = pd.read_csv(root / "gdb9.sdf.csv")
    kept = ~frame["mol_id"].isin(["gdb_3", "gdb_7"])
    assert {name: len(rows) for name, rows in data.rows.items()} == {
        "train": 48,
        "val": 5,
        "test": 5,
    }
    for name, column, factor in (
        ("mu", "mu", 1.0),
        ("lumo", "lumo", 27211.386246),
        ("U0", "u0_atom", 43.36414),
        ("Cv", "cv", 1.0),
    ):
        expected = frame[column][kept].to_numpy() * factor
        task = data.tasks[name]
        found = task.in_units(data.encode_targets_of("train", name)[:, None].double())[:, 0]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert task.mean[0] == pytest.approx(expected[data.rows["train"]].mean())
    assert any("left out 2 molecules" in note for note in data.notes())


def test_geometry(root):
    data = QM9(str(root), cutoff=3.0, radial=7)
    assert (data.input_shape.nodes, data.input_shape.edges) == (5, 12)
    rows = data.split("predict")
    molecules = list(Chem.SDMolSupplier(f"{root}/gdb9.sdf", removeHs=False, sanitize=False))
    names = rows.row_info["id"]
    assert names[:4] == ["gdb_1", "gdb_2", "gdb_4", "gdb_5"]
    batch = rows[torch.arange(58)].inputs
    centres = np.linspace(0, 3, 7)
    for k, name in enumerate(names):
        molecule = molecules[int(name.removeprefix("gdb_")) - 1]
        numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
        assert batch["node_mask"][k].sum() == len(numbers)
        places = batch["nodes"][k, : len(numbers)].argmax(-1)
        assert [(1, 6, 7, 8, 9)[place] for place in places] == numbers

        # each pair within the cutoff once in each direction, with its bond and its length
        distances = Chem.Get3DDistanceMatrix(molecule)
        near = {(i, j) for i, j in np.argwhere(distances < 3).tolist() if i != j}
        real = batch["edges"][k, :, 0] >= 0
        edges = batch["edges"][k][real].tolist()
        assert {tuple(edge) for edge in edges} == near
        assert len(edges) == len(near)
        for (i, j), features in zip(edges, batch["edge_features"][k][real], strict=True):
            bond = molecule.GetBondBetweenAtoms(i, j)
            kind = 4 if bond is None else int(bond.GetBondTypeAsDouble()) - 1
            assert features[:5].tolist() == [float(c == kind) for c in range(5)]
            gaussians = np.exp(-((distances[i, j] - centres) ** 2) / (2 * 0.5**2))
            np.testing.assert_allclose(features[5:], gaussians, atol=1e-5)
        assert not batch["edge_features"][k][~real].any()


def test_a_moved_and_turned_molecule_is_the_same(root):
    before = QM9(str(root)).split("train")[torch.arange(48)].inputs["edge_features"]
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    with Chem.SDWriter(f"{root}/new.sdf") as writer:
        writer.SetKekulize(False)
        for molecule in Chem.SDMolSupplier(f"{root}/gdb9.sdf", removeHs=False, sanitize=False):
            conformer = molecule.GetConformer()
            for atom, position in enumerate(conformer.GetPositions() @ turn + 1):
                conformer.SetAtomPosition(atom, position)
            writer.write(molecule)
    (root / "new.sdf").rename(root / "gdb9.sdf")
    after = QM9(str(root)).split("train")[torch.arange(48)].inputs["edge_features"]
    torch.testing.assert_close(after, before, rtol=0, atol=2e-3)  # four decimals in the file


# -- broken files ----------------------------------------------------------------------------------
def test_molecules_that_do_not_belong_to_the_rows(root):
    text = (root / "gdb9.sdf").read_text()
    (root / "gdb9.sdf").write_text(text.replace("gdb_5\n", "gdb_6\n", 1))
    with pytest.raises(ValueError, match=r"row 5: .*'gdb_5', but molecule 5 of .* is gdb_6"):
        QM9(str(root)).split("train")
    records = text.split("$$$$\n")
    (root / "gdb9.sdf").write_text("$$$$\n".join(records[:50]) + "$$$$\n")
    with pytest.raises(ValueError, match=r"row 51: .*ends after 50 molecules"):
        QM9(str(root)).split("train")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (" C   0", " P   0", "atom 1 has the atomic number 15, none of 1, 6, 7, 8, 9"),
        (" C   0", " Xq  0", "is no molecule that RDKit can read"),
        ("V2000", "V20", "is no molecule that RDKit can read"),
    ],
)
def test_a_broken_molecule_is_named_with_its_line(root, old, new, says):
    records = (root / "gdb9.sdf").read_text().split("$$$$\n")
    line = sum(record.count("\n") + 1 for record in records[:4]) + 1
    records[4] = records[4].replace(old, new, 1)
    (root / "gdb9.sdf").write_text("$$$$\n".join(records))
    with pytest.raises(ValueError, match=f"gdb9.sdf line {line}: molecule 5 {says}"):
        QM9(str(root)).split("train")


def test_a_broken_number_is_named_with_its_row(root):
    lines = (root / "gdb9.sdf.csv").read_text().splitlines()
    lines[9] = lines[9].replace(lines[9].split(",")[7], "many", 1)
    (root / "gdb9.sdf.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"gdb9.sdf.csv row 9: column '\w+' holds 'many'"):
        QM9(str(root)).tasks  # noqa: B018
    header = (root / "gdb9.sdf.csv").read_text().replace("u0_atom", "u0atom", 1)
    (root / "gdb9.sdf.csv").write_text(header)
    with pytest.raises(ValueError, match=r"lacks QM9's column 'u0_atom'"):
        QM9(str(root)).tasks  # noqa: B018


def test_files_that_are_missing_or_not_whole(root):
    text = (root / "uncharacterized.txt").read_text()
    (root / "uncharacterized.txt").write_text("cut off\n")
    with pytest.raises(ValueError, match=r"uncharacterized.txt: has 1 lines"):
        QM9(str(root))
    (root / "uncharacterized.txt").write_text(text.replace("       7", "   seven"))
    with pytest.raises(ValueError, match=r"uncharacterized.txt line 11: begins with no number"):
        QM9(str(root))
    (root / "uncharacterized.txt").unlink()
    assert any("uncharacterized.txt is not there" in note for note in QM9(str(root)).notes())
    (root / "gdb9.sdf").unlink()
    with pytest.raises(ValueError, match=r"gdb9.sdf is not beside it"):
        QM9(str(root)).split("train")
    (root / "gdb9.sdf.csv").unlink()
    with pytest.raises(ValueError, match=r"gdb9.sdf.csv.gz is there; get http.*gdb9.tar.gz"):
        QM9(str(root))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"cutoff": 0.0}, "data.cutoff 0 must be above 0"),
        ({"radial": 0}, "data.radial 0 at least 1"),
        ({"targets": ["u0"]}, "'u0', which QM9 does not have: did you mean 'U0'"),
    ],
)
def test_settings_that_cannot_be(root, settings, says):
    with pytest.raises(ValueError, match=says):
        QM9(str(root), **settings)


def test_the_archive_is_fetched_and_unpacked(root, monkeypatch):
    away = root / "away"
    away.mkdir()
    (root / "uncharacterized.txt").rename(away / "uncharacterized.txt")

    def fetch(url, path, md5):
        assert path == away / "gdb9.tar.gz"
        with tarfile.open(path, "w:gz") as opened:
            for name in ("gdb9.sdf", "gdb9.sdf.csv"):
                opened.add(root / name, f"folder/{name}")
        return path

    monkeypatch.setattr("src.data.molecules.qm9.fetch", fetch)
    data = QM9(str(away), download=True)
    for name in ("gdb9.sdf", "gdb9.sdf.csv"):
        assert (away / name).read_bytes() == (root / name).read_bytes()
    assert len(data.rows["train"]) == 48


def test_an_archive_that_is_damaged_or_another(root):
    archive = root / "gdb9.tar.gz"
    archive.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"gdb9.tar.gz: cannot be unpacked"):
        extract(archive, "other.sdf")
    with tarfile.open(archive, "w:gz") as opened:
        opened.add(root / "gdb9.sdf", "gdb9.sdf")
    with pytest.raises(ValueError, match=r"gdb9.tar.gz: has no other.sdf"):
        extract(archive, "other.sdf")


# -- a run -----------------------------------------------------------------------------------------
def test_changed_molecules_are_refused(root):
    data = QM9(str(root), targets=["mu"])
    (root / "schema.json").write_text(json.dumps(data.schema()))
    assert data.fingerprint()["structures"]["path"].endswith("gdb9.sdf")
    assert str(root / "gdb9.sdf") in data.files()
    QM9(str(root), targets=["mu"], schema_path=f"{root}/schema.json").check_files()
    records = (root / "gdb9.sdf").read_text().split("$$$$\n")
    records[10] = records[10].replace("0.", "1.", 1)
    (root / "gdb9.sdf").write_text("$$$$\n".join(records))
    again = QM9(str(root), targets=["mu"], schema_path=f"{root}/schema.json")
    with pytest.raises(
        ValueError, match=r"gdb9.sdf: is not the file that the run began with: .*1 a"
    ):
        again.check_files()


def test_the_energy_of_atoms_and_distances_is_learnt(tmp_path):
    root = write_qm9(tmp_path, count=240, excluded=())
    ended = call(
        *("train", "--data", "QM9", "--data.root", root, "--data.targets", "[U0,mu]"),
        *("--data.batch_size", 32, "--lr", 0.005, "--max_epochs", 30, "--logs", tmp_path / "logs"),
        *("--model.encoder", "MessagePassing", "--model.encoder.pool", "sum"),
        *("--model.encoder.width", 32, "--model.encoder.depth", 2),
    )
    assert ended.code == 0, ended.err
    run = only_run(tmp_path / "logs" / "qm9")
    metrics = read_json(run / "metrics.json")["test"]
    assert metrics["test/U0/r2"] > 0.95
    assert metrics["test/mu/r2"] > 0.95
    assert call("evaluate", "--run", run).code == 0
    ended = call("predict", "--run", run, "--out", tmp_path / "out.csv")
    assert ended.code == 0, ended.err
    found = pd.read_csv(tmp_path / "out.csv")
    truth = pd.read_csv(f"{root}/gdb9.sdf.csv")["u0_atom"] * 43.36414
    assert np.corrcoef(found["U0"], truth)[0, 1] > 0.97
