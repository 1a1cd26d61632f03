import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from src.data import Molecules
from src.data.molecules.molecular_graphs import make_graph
from src.data.molecules.scaffolds import find_scaffolds
from src.tasks import BinaryClassification, Regression
from tests.cli.calling import call, refused
from tests.data.molecules.made_molecules import BROKEN, SMILES, write_molecules
from tests.launching import only_run, read_json

TARGETS = ["ring", "acid", "atoms"]


@pytest.fixture
def path(tmp_path):
    return write_molecules(tmp_path, "molecules.csv.gz")


def test_tasks_inputs_and_missing_labels(path):
    data = Molecules(path, TARGETS, bits=64)
    kinds = [type(task) for task in data.tasks.values()]
    assert kinds == [BinaryClassification, BinaryClassification, Regression]
    assert data.input_shape.dense == (64,)
    sizes = [len(data.split(name)) for name in ("train", "val", "test")]
    assert sizes == [96, 12, 12]
    batch = data.split("predict")[torch.arange(120)]
    assert batch.inputs.shape == (120, 64)
    assert set(batch.inputs.unique().tolist()) == {0.0, 1.0}
    rows = data.rows["train"]
    ring = data.split("train").targets["ring"]
    assert ring.isnan().tolist() == [k % 5 == 1 for k in rows.tolist()]


@pytest.mark.parametrize("features", ["counts", ["counts", "descriptors"], "graph"])
def test_a_run_on_a_schema_reads_the_same_inputs(path, tmp_path, features):
    data = Molecules(path, ["ring"], features=features, bits=32)
    saved = tmp_path / "schema.json"
    saved.write_text(json.dumps(data.schema()))
    again = Molecules(path, features=features, bits=32, schema_path=str(saved))
    again.check_files()
    ours, theirs = (each.split("val")[torch.arange(5)].inputs for each in (data, again))
    if isinstance(ours, torch.Tensor):
        ours, theirs = {"": ours}, {"": theirs}
    assert all(torch.equal(ours[part], theirs[part]) for part in ours)
    assert again.input_shape == data.input_shape
    assert again.tasks == data.tasks


def test_molecules_as_graphs(path):
    data = Molecules(path, ["ring"], features="graph")
    every = data.split("predict")
    batch = every[torch.tensor([0, 119])].inputs
    assert batch["nodes"].shape[-1] == data.input_shape.nodes
    assert batch["edge_features"].shape[-1] == data.input_shape.edges

    # phenol: seven heavy atoms, seven bonds in two directions, one of them of the oxygen
    alone = every[torch.tensor([0])].inputs
    assert alone["nodes"][0, :, 8].tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert alone["nodes"][0, :, 6].sum() == 6
    assert alone["edges"].shape == (1, 14, 2)
    assert (alone["edges"] == 0).sum() == 2
    assert (alone["nodes"].sum(-1) == 9).all()  # one category of each feature
    assert (alone["edge_features"].sum(-1) == 3).all()


def test_an_atom_of_a_salt_has_no_bond():
    from rdkit import Chem

    graph = make_graph(Chem.MolFromSmiles("[Na+]"))
    assert graph.nodes.shape == (1, 9)
    assert graph.edges.shape == (0, 2)
    assert graph.edge_features.shape == (0, 3)


# -- splits ----------------------------------------------------------------------------------------
def test_scaffolds_stay_on_one_side(path):
    data = Molecules(path, ["atoms"], split="scaffold", val_fraction=0.2, test_fraction=0.2)
    names = find_scaffolds(pd.Series(SMILES))
    sides = {name: set(names[rows]) for name, rows in data.rows.items()}
    assert all(sides.values())
    assert not sides["train"] & sides["test"]
    assert not sides["train"] & sides["val"]
    assert not sides["val"] & sides["test"]

    # nothing is drawn
    other = Molecules(
        path, ["ring"], split="scaffold", val_fraction=0.2, test_fraction=0.2, split_seed=5
    )
    assert all(np.array_equal(other.rows[name], rows) for name, rows in data.rows.items())


def test_folds_of_scaffolds(path):
    tested = []
    for fold in range(3):
        data = Molecules(path, ["atoms"], split="scaffold", folds=3, fold=fold)
        names = find_scaffolds(pd.Series(SMILES))
        test = data.rows["test"]
        assert not set(names[test]) & set(names[data.rows["train"]])
        tested += test.tolist()
    assert sorted(tested) == list(range(120))


# -- broken files ----------------------------------------------------------------------------------
def test_a_broken_smiles_is_named(tmp_path):
    path = write_molecules(tmp_path, broken=(9, 80))
    for settings in ({}, {"features": "graph"}, {"features": "descriptors"}, {"split": "scaffold"}):
        data = Molecules(path, ["atoms"], **settings)
        with pytest.raises(ValueError, match=r"molecules.csv row (9|80): column 'smiles'") as error:
            data.split("train")
        assert f"'{BROKEN}', which RDKit cannot read (Explicit valence" in str(error.value)
        assert "\n" not in str(error.value)


def test_broken_rows_are_skipped_and_counted(tmp_path):
    path = write_molecules(tmp_path, broken=(9, 80))
    data = Molecules(path, TARGETS, on_error="skip", bits=16)
    assert sum(len(rows) for rows in data.rows.values()) == 118
    (note,) = [note for note in data.notes() if "left out" in note]
    assert "left out 2 of 120 rows" in note
    assert "9, 80; row 9 holds 'CCO[AlH3]" in note

    # the others keep their numbers
    ids = data.split("predict").row_info["id"]
    assert ids == [k for k in range(1, 121) if k not in (9, 80)]
    broken = (tmp_path / "molecules.csv").read_text().replace("m119,", "m119,x", 1)
    (tmp_path / "molecules.csv").write_text(broken)
    data = Molecules(path, TARGETS, on_error="skip", bits=16)
    with pytest.raises(ValueError, match=r"molecules.csv row 120: column 'ring' holds 'x0'"):
        data.tasks  # noqa: B018


def test_a_file_of_broken_rows_alone(tmp_path):
    path = write_molecules(tmp_path, broken=tuple(range(1, 121)))
    with pytest.raises(ValueError, match=r"row 1: column 'smiles' .*no other row of the file"):
        Molecules(path, ["atoms"], on_error="skip").tasks  # noqa: B018


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"smiles": "smile"},
            "lacks the column 'smile', which data.smiles names: did you mean 'smiles'",
        ),
        ({"features": "ecpf"}, "names 'ecpf', which is none: did you mean 'ecfp'"),
        ({"features": ["graph", "ecfp"]}, "graph cannot stand beside ecfp"),
        ({"features": ["ecfp", "ecfp"]}, "each of its parts once"),
        ({"features": []}, "at least one"),
        ({"bits": 0}, "data.bits 0"),
        ({"split": "scaffold", "group": "name"}, "scaffold and data.group cannot both"),
    ],
)
def test_settings_that_cannot_be(path, settings, says):
    with pytest.raises(ValueError, match=says):
        Molecules(path, ["atoms"], **settings).tasks  # noqa: B018


def test_without_pytorch_geometric(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_geometric.utils", None)
    with pytest.raises(ValueError, match="pip install torch_geometric"):
        Molecules(path, ["atoms"], features="graph")


# -- commands --------------------------------------------------------------------------------------
def test_train_evaluate_and_predict(tmp_path):
    path = write_molecules(tmp_path, broken=(5,))
    words = ("--data", "Molecules", "--data.path", path, "--data.targets", "[ring,acid]")
    more = ("--data.on_error", "skip", "--data.bits", 64, "--max_epochs", 15, "--lr", 0.01)
    ended = call("train", *words, *more, "--model.encoder.width", 16, "--logs", tmp_path / "logs")
    assert ended.code == 0, ended.err
    run = only_run(tmp_path / "logs" / "molecules")
    assert read_json(run / "metrics.json")["test"]["test/score"] > 0.9

    ended = call("evaluate", "--run", run, "--out", tmp_path / "out.json")
    assert ended.code == 0, ended.err
    recorded = read_json(run / "metrics.json")["test"]
    expected = {key: value for key, value in recorded.items() if value is not None}
    found = read_json(tmp_path / "out.json")
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-6)

    # new molecules, without labels
    (tmp_path / "new.csv").write_text("smiles\nOc1ccccc1\nC(\nCCCCCCO\n")
    ended = call(
        *("predict", "--run", run, "--data.path", tmp_path / "new.csv"),
        *("--out", tmp_path / "new-predictions.csv"),
    )
    assert ended.code == 0, ended.err
    assert "left out 1 of 3 rows" in ended.out + ended.err
    found = pd.read_csv(tmp_path / "new-predictions.csv")
    assert found["id"].tolist() == [1, 3]
    assert found["ring"].tolist() == [1, 0]


def test_an_encoder_for_other_inputs_is_refused(tmp_path, path):
    words = ("train", "--data", "Molecules", "--data.path", path, "--data.targets", "[atoms]")
    logs = ("--logs", tmp_path / "logs", "--max_epochs", 1)
    ended = call(*words, "--data.features", "graph", *logs)
    refused(ended, ["MLP reads vectors", "graphs", "--model.encoder MessagePassing"])
    ended = call(*words, "--model.encoder", "MessagePassing", *logs)
    refused(ended, ["MessagePassing reads graphs", "--data.features graph"])
