"""The command src.explain on a table, images and texts, and what it refuses."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from src.cli.explaining.explain import choose_tasks
from src.errors import UserError
from tests.cli.calling import call, columns, refused, table, words_for_table

pytest.importorskip("captum")
METHODS = ("IntegratedGradients", "FeatureAblation", "GradientShap", "Permutation")


def train(folder, name, *words):
    """Trains a run in a moment, and returns its folder."""
    ended = call("train", *words, "--logs", folder / "logs", "--name", name, "--no_test")
    assert ended.code == 0, ended.err
    return next((folder / "logs" / name).iterdir())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a table with a number that is missing at times, and words."""
    folder = tmp_path_factory.mktemp("explain")
    ages = columns()["age"]
    (folder / "table.csv").write_text(table(60, age=[None, *ages[1:]]))
    return train(folder, "table", *words_for_table(folder))


def test_attributions_of_a_table_are_written_in_its_own_words(run):
    ended = call("explain", "--run", run, "--split", "train", "--rows", 20)
    assert ended.code == 0, ended.err
    folder = run / "explain"
    income = pd.read_csv(folder / "income.csv")
    assert len(income) == 20
    assert set(income["predicted"]) <= {"low", "high"}
    assert set(income["input.city"]) <= {"Rome", "Oslo", "Lima"}
    inputs = [name for name in income.columns if name.startswith("attribution.")]
    assert sorted(inputs) == [f"attribution.{name}" for name in ("age", "city", "grade")]

    # attributions add up, in logits and in hours
    for name in ("income", "hours"):
        frame = pd.read_csv(folder / f"{name}.csv")
        total = frame[inputs].sum(axis=1)
        np.testing.assert_allclose(total, frame["value"] - frame["baseline"], rtol=1e-2, atol=1e-2)
    hours = pd.read_csv(folder / "hours.csv")
    np.testing.assert_allclose(hours["value"], hours["predicted"], rtol=1e-3)

    record = json.loads((folder / "explain.json").read_text())
    assert record["method"] == "IntegratedGradients"
    assert set(record["tasks"]) == {"income", "hours"}
    assert record["tasks"]["hours"]["outputs"][0]["completeness"]["mean"] < 1e-2
    assert len(record["tasks"]["hours"]["deletion"]["shares"]) == 4
    assert (folder / "explain.html").read_text().count("data:image/png") == 2
    assert list(run.glob("events.*.explain-explain"))
    assert "log odds of 'low'" in ended.out or "log odds of 'high'" in ended.out


@pytest.mark.parametrize("method", METHODS[1:])
def test_every_method_explains_one_task(run, tmp_path, method):
    words = ("--method", method, "--task", "hours", "--steps", 10, "--out", tmp_path / "out")
    ended = call("explain", "--run", run, "--split", "train", *words)
    assert ended.code == 0, ended.err
    found = pd.read_csv(tmp_path / "out" / "hours.csv")
    assert len(found) == 42
    assert not (tmp_path / "out" / "income.csv").exists()
    check = json.loads((tmp_path / "out" / "explain.json").read_text())["tasks"]["hours"]
    complete = check["outputs"][0]["completeness"]
    assert (complete is not None) == (method == "GradientShap")
    if complete:
        assert complete["mean"] < 1


def test_the_same_call_writes_the_same_numbers(run, tmp_path):
    texts = []
    for place in ("a", "b"):
        words = ("--method", "GradientShap", "--task", "hours", "--rows", 8, "--steps", 5)
        ended = call("explain", "--run", run, *words, "--out", tmp_path / place, "--split", "train")
        assert ended.code == 0, ended.err
        texts.append((tmp_path / place / "hours.csv").read_text())
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--task", "incom"), ("--task is 'incom'", "income")),
        (("--method", "Saliency"), ("--method is 'Saliency'", "IntegratedGradients")),
        (("--method", "GradientShap", "--baseline", "mean"), ("--baseline has no effect",)),
        (("--baseline", "black"), ("--baseline is 'black'", "mean", "zero")),
        (("--rows", 1), ("--rows is 1", "at least 2")),
        (("--steps", 0), ("--steps is 0",)),
        (("--split", "all"), ("--split is 'all'",)),
        (("--classes", "every"), ("--classes is 'every'", "each")),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, tuple) else str(value),
)
def test_wrong_settings_are_refused(run, words, says):
    refused(call("explain", "--run", run, *words), says)


def test_captum_is_optional(run, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "captum.attr", None)
    refused(call("explain", "--run", run), ("pip install captum",))


def test_help_says_what_is_out_of_scope():
    ended = call("explain", "--help")
    assert ended.code == 0
    assert "counterfactuals are out of scope" in " ".join(ended.out.split())
    assert "--method" in ended.out


def test_images_have_heat_maps(tmp_path):
    words = ("--model.encoder.width", 8, "--max_epochs", 1, "--accelerator", "cpu")
    run = train(tmp_path, "digits", *words)
    words = ("--rows", 10, "--steps", 10, "--task", "quadrants")
    ended = call("explain", "--run", run, *words)
    assert ended.code == 0, ended.err
    maps = np.load(run / "explain" / "quadrants.image.npy")
    assert maps.shape == (10, 4, 8, 8)
    frame = pd.read_csv(run / "explain" / "quadrants.csv")
    assert len(frame) == 40
    of_first = frame[frame["output"] == "top left"]
    np.testing.assert_allclose(
        maps[:, 0].sum((1, 2)), of_first["attribution.sum"], rtol=1e-4, atol=1e-5
    )
    gap = of_first["attribution.sum"] - (of_first["value"] - of_first["baseline"])
    assert gap.abs().max() < 0.02


def test_texts_have_a_weight_for_each_token(tmp_path):
    rows = [(f"a {'good' if k % 2 else 'bad'} film", "up" if k % 2 else "down") for k in range(60)]
    frame = pd.DataFrame(rows, columns=["comment", "mood"])
    frame.to_csv(tmp_path / "texts.csv", index=False)
    words = ("--data", "Table", "--data.path", tmp_path / "texts.csv", "--data.targets", "[mood]")
    encoder = ("--model.encoder", "Transformer", "--model.encoder.width", 8)
    more = ("--model.encoder.depth", 1, "--model.encoder.pool", "mean", "--max_epochs", 1)
    run = train(tmp_path, "texts", *words, "--data.text", "[comment]", *encoder, *more)
    ended = call("explain", "--run", run, "--rows", 6)
    assert ended.code == 0, ended.err
    found = pd.read_csv(run / "explain" / "mood.csv")
    assert set(found["token"]) >= {"film"}
    assert (found.groupby("id")["position"].max() >= 3).all()
    total = found.groupby("id")["attribution"].sum()
    first = found.groupby("id").first()
    np.testing.assert_allclose(total, first["value"] - first["baseline"], rtol=1e-2, atol=1e-3)
    assert "<mark" in (run / "explain" / "explain.html").read_text()
    refused(call("explain", "--run", run, "--method", "Permutation"), ("FeatureAblation",))


def test_labels_of_places_are_left_out_or_refused():
    outputs = {"mask": torch.zeros(2, 3, 4), "age": torch.zeros(2, 1)}
    assert choose_tasks(None, outputs) == ["age"]
    for chosen in (
        partial(choose_tasks, "mask", outputs),
        partial(choose_tasks, None, {"mask": outputs["mask"]}),
    ):
        with pytest.raises(UserError, match="task 'mask' labels each token or pixel"):
            chosen()
