"""Inputs of a table with texts and images: their names, shapes and hashes, and its record."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from src.batch import InputShape, inputs_of
from src.data import Table
from src.data.tables.input_encoding import find_table_inputs
from src.data.tables.members import find_images
from src.data.tables.record import hash_rows
from src.errors import UserError
from tests.data.several_inputs import write_table


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_table(tmp_path_factory.mktemp("members"), 60))


def open_table(path: str, **settings: object) -> Table:
    settings = {"targets": ["mood", "hours"], "drop": ["bright"], **settings}
    return Table(path, **settings)  # type: ignore[arg-type]


ALL = {"text": ["comment"], "images": ["photo"], "image_size": 8}


def test_each_text_and_image_is_an_input_beside_the_table(path: str) -> None:
    table = open_table(path, **ALL)
    shape = table.input_shape
    names = [name for name, _ in shape.members]
    assert names == ["table", "comment", "photo"]
    of_table, comment, photo = (own for _, own in shape.members)
    assert of_table == InputShape((1,), (4,))
    assert comment.tokens > 256
    assert photo == InputShape((3, 8, 8))

    batch = table.split("train")[torch.arange(5)]
    assert isinstance(batch.inputs, dict)
    found = {key: tuple(values.shape) for key, values in batch.inputs.items()}
    length = found.pop("comment/tokens")[1]
    assert found == {
        "table/dense": (5, 1),
        "table/categorical": (5, 1),
        "photo/dense": (5, 3, 8, 8),
    }
    # the batch ends where its longest text does
    assert (batch.inputs["comment/tokens"] > 0).sum(1).max() == length
    alone = open_table(path, drop=["bright", "comment", "photo"]).split("train")
    of_both = inputs_of("table", batch.inputs)
    assert isinstance(of_both, dict)
    expected = alone[torch.arange(5)].inputs
    assert isinstance(expected, dict)
    for key, values in expected.items():
        assert torch.equal(of_both[key], values), key


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        ({"text": ["comment"], "inputs": []}, {"tokens"}),
        ({"text": ["comment", "city"], "inputs": []}, {"comment/tokens", "city/tokens"}),
        ({**ALL, "inputs": []}, {"comment/tokens", "photo/dense"}),
        ({"text": ["comment"], "inputs": ["age", "comment"]}, {"table/dense", "comment/tokens"}),
        ({"images": ["photo"], "image_size": 8, "inputs": []}, {""}),
    ],
)
def test_one_input_alone_has_no_name(path: str, settings: dict[str, object], keys: set) -> None:
    table = open_table(path, **settings)
    inputs = table.split("val")[torch.arange(2)].inputs
    shape = table.input_shape
    assert bool(shape.members) == any("/" in key for key in keys)
    if keys == {""}:
        assert isinstance(inputs, torch.Tensor)
        assert shape == InputShape((3, 8, 8))
        return
    assert isinstance(inputs, dict)
    found = {key for key, values in inputs.items() if values.numel()}
    assert found == keys
    example = shape.example()
    assert isinstance(example, dict)
    assert example.keys() <= inputs.keys()


def test_a_record_brings_back_the_same_inputs(path: str, tmp_path: Path) -> None:
    table = open_table(path, **ALL)
    (tmp_path / "schema.json").write_text(json.dumps(table.schema()))
    again = open_table(path, **ALL, schema_path=str(tmp_path / "schema.json"))
    again.check_files()
    assert again.columns == table.columns
    assert again.input_shape == table.input_shape
    for name in ("train", "val", "test"):
        ours, theirs = table.split(name), again.split(name)
        ids = torch.arange(len(ours))
        one, other = ours[ids], theirs[ids]
        assert isinstance(one.inputs, dict)
        assert isinstance(other.inputs, dict)
        assert all(torch.equal(one.inputs[key], other.inputs[key]) for key in one.inputs)


def test_a_row_is_known_by_each_of_its_inputs(path: str, tmp_path: Path) -> None:
    table = open_table(path, **ALL)
    hashes = hash_rows(table.encode_inputs_of("train"))
    assert len(np.unique(hashes)) == 60
    lines = Path(path).read_text().splitlines()
    # another word in row 5
    lines[5] = lines[5].replace("word", "other", 1)
    changed = Path(path).with_name("changed.csv")
    changed.write_text("\n".join(lines) + "\n")
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(table.schema()))
    other = open_table(str(changed), **ALL, schema_path=str(schema))
    differs = hash_rows(other.encode_inputs_of("train")) != hashes
    assert np.flatnonzero(differs).tolist() == [4]


def test_parts_of_several_inputs_are_found(path: str) -> None:
    table = open_table(path, **ALL)
    inputs = table.encode_inputs_of("train")
    assert find_table_inputs(inputs).keys() == {"dense", "categorical"}
    assert find_images(inputs).keys() == {"photo/dense"}
    assert (
        find_table_inputs(open_table(path, text=["comment"], inputs=[]).encode_inputs_of("train"))
        == {}
    )


def test_inputs_have_names_that_are_keys_and_differ(tmp_path: Path) -> None:
    lines = [f"{'a b c'[: k % 5]},t{k},word{k % 3},{k}" for k in range(30)]
    path = tmp_path / "names.csv"
    path.write_text("\n".join(["a.b,table,a b,y", *lines]) + "\n")
    table = Table(str(path), targets=["y"], text=["table", "a b"], inputs=[])
    assert [name for name, _ in table.input_shape.members] == ["table_", "a_b"]
    with pytest.raises(UserError, match=r"'a\.b' and 'a b' would both be inputs named 'a_b'"):
        Table(str(path), targets=["y"], text=["a.b", "a b"], inputs=[]).input_shape  # noqa: B018
