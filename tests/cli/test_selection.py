"""The importance of inputs: exact for a linear model, and as the command prints and writes it."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from src.batch import Batch, InputShape
from src.cli.selection_rows import (
    draw_samples,
    find_columns,
    permute_column,
    read_constants,
)
from src.cli.selection_scores import Scores
from src.errors import UserError
from src.models.feature_selection import InputColumn
from src.tasks import Regression
from tests.cli.calling import call, refused, table, words_for_table

TABLE = InputShape((3,), (4, 2), columns=("age", "age", "hours", "job", "sex"))


def test_importance_of_a_linear_model_is_exact():
    """R2 falls by b^2 sum x^2 / SS without a column, and by b^2 sum (x - x')^2 / SS permuted."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3))
    x -= x.mean(0)
    weights = np.array([2.0, -1.0, 0.0])
    y = x @ weights + 1e-3 * rng.normal(size=300)
    rows = Batch(torch.tensor(x), {"y": torch.tensor(y)}, torch.arange(300))
    task = Regression(mean=(0.0,), std=(1.0,))
    score = partial(
        Scores,
        lambda inputs: {"y": (inputs @ torch.tensor(weights))[:, None]},
        {"y": task},
        rows,
        draw_samples(0, 300, 4),
    )
    total = ((y - y.mean()) ** 2).sum()
    (plain,) = score(iter([rows.inputs])).whole["y"]
    for k, column in enumerate(find_columns(InputShape((3,)))):
        closed = score(iter([read_constants(rows.inputs, column).put_into(rows.inputs)]))
        fall = plain - closed.whole["y"][0]
        assert fall == pytest.approx(weights[k] ** 2 * (x[:, k] ** 2).sum() / total, abs=2e-3)

        permuted = list(permute_column(rows.inputs, column, 0, 4))
        falls = [plain - value for value in score(iter(permuted)).whole["y"]]
        for own, value in zip(permuted, falls, strict=True):
            gap = ((x[:, k] - own[:, k].numpy()) ** 2).sum()
            assert value == pytest.approx(weights[k] ** 2 * gap / total, abs=2e-3)


def test_all_numbers_of_a_column_move_together():
    inputs = TABLE.example(8)
    age, _, job, _ = find_columns(TABLE)
    (changed,) = permute_column(inputs, age, 3, 1)
    pairs = {tuple(row) for row in inputs["dense"][:, :2].tolist()}
    assert {tuple(row) for row in changed["dense"][:, :2].tolist()} == pairs
    assert not torch.equal(changed["dense"][:, :2], inputs["dense"][:, :2])
    assert torch.equal(changed["dense"][:, 2], inputs["dense"][:, 2])
    assert torch.equal(changed["categorical"], inputs["categorical"])

    (changed,) = permute_column(inputs, job, 3, 1)
    assert torch.equal(changed["categorical"][:, 1], inputs["categorical"][:, 1])
    assert changed["categorical"][:, 0].bincount().tolist() == (
        inputs["categorical"][:, 0].bincount().tolist()
    )


def test_a_constant_is_the_mean_or_the_commonest_word_of_training():
    training = {
        "dense": torch.tensor([[1.0, 0.0, 5.0], [3.0, 1.0, 5.0]]),
        "categorical": torch.tensor([[2, 1], [2, 0]]),
    }
    inputs = TABLE.example(3)
    age, _, job, _ = find_columns(TABLE)
    changed = read_constants(training, age).put_into(inputs)
    assert changed["dense"][:, :2].tolist() == [[2.0, 0.5]] * 3
    changed = read_constants(training, job).put_into(inputs)
    assert changed["categorical"][:, 0].tolist() == [2, 2, 2]


def test_a_text_is_permuted_whole_and_has_no_constant():
    inputs = {"table/dense": torch.randn(4, 2), "note/tokens": torch.arange(8).view(4, 2)}
    column = InputColumn("note", "note", whole=True)
    (changed,) = permute_column(inputs, column, 0, 1)
    assert sorted(changed["note/tokens"].tolist()) == inputs["note/tokens"].tolist()
    assert changed["note/tokens"].tolist() != inputs["note/tokens"].tolist()
    assert read_constants(inputs, column) is None


@pytest.mark.parametrize(
    ("shape", "word"),
    [
        (InputShape(tokens=9), "tokens"),
        (InputShape(nodes=3), "graphs"),
        (InputShape((5, 3)), "sequences"),
        (InputShape((1, 8, 8)), "channel 1"),
    ],
)
def test_what_has_no_columns_is_refused(shape, word):
    with pytest.raises(UserError, match=f"the run reads {word}: there is nothing to leave out"):
        find_columns(shape)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with gates, of which the one of city is shut by a strong penalty."""
    folder = tmp_path_factory.mktemp("selection")
    (folder / "table.csv").write_text(table(60, age2=[(i * 13) % 31 for i in range(60)]))
    words = (*words_for_table(folder), "--model.select", "StochasticGates", "--no_test")
    ended = call("train", *words, "--model.select.strength", 0.02, "--name", "gates")
    assert ended.code == 0, ended.err
    return next((folder / "logs" / "gates").iterdir()), ended


def test_training_ends_with_a_table_and_a_configuration(run):
    folder, ended = run
    shown = pd.read_csv(folder / "selection.csv", index_col="task")
    assert list(shown.columns) == ["age", "age2", "city", "grade"]
    assert ((shown > 0) & (shown < 1)).all(axis=None)
    assert "inputs by chance to be open, at the end of training" in ended.out + ended.err
    assert f"python -m src.train --config {folder / 'selected.yaml'}" in ended.out + ended.err


def test_the_configuration_trains_on_the_open_columns(run, tmp_path):
    folder, _ = run
    settings = folder / "selected.yaml"
    words = ("--config", settings, "--logs", tmp_path, "--no_test", "--data.inputs", "[age, city]")
    ended = call("train", *words)
    assert ended.code == 0, ended.err
    (other,) = (tmp_path / "gates").iterdir()
    schema = json.loads((other / "schema.json").read_text())
    assert [column["column"] for column in schema["inputs"]] == ["age", "city"]
    assert not (other / "selection.csv").exists()


def test_the_command_prints_and_writes_importance(run, tmp_path):
    folder, _ = run
    out = tmp_path / "importance.csv"
    ended = call("select", "--run", folder, "--repeats", 3, "--out", out, "--split", "train")
    assert ended.code == 0, ended.err
    frame = pd.read_csv(out)
    assert set(frame["method"]) == {"permutation", "constant"}
    assert set(frame["column"]) == {"age", "city", "grade", "age2"}
    assert (frame["low"] <= frame["high"]).all()
    assert "share their importance" in ended.out

    again = call("select", "--run", folder, "--repeats", 3, "--out", tmp_path / "b.json")
    assert again.code == 0, again.err
    assert len(json.loads((tmp_path / "b.json").read_text())["importance"]) == len(frame)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--repeats", 1), "--repeats is 1"),
        (("--split", "all"), "--split is 'all'"),
        (("--method", "shap"), "--method is 'shap'"),
        (("--out", "x.txt"), "unknown kind of file"),
        (("--devices", 2), "one device"),
    ],
)
def test_bad_settings_are_refused(run, words, says):
    refused(call("select", "--run", run[0], *words), [says])


def test_an_unknown_input_is_refused(run):
    words = ("--config", run[0] / "selected.yaml", "--data.inputs", "[age, citty]")
    refused(call("train", *words), ["data.inputs names 'citty'", "did you mean 'city'?"])
