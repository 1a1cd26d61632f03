"""Tables with texts and images, from training to predictions, and on several devices."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from src.cli.defaults import state_settings
from src.cli.settings import list_settings
from src.data import Table
from src.models.encoders import Pretrained
from tests.cli.calling import call, refused
from tests.data.several_inputs import (
    BAD,
    FILL,
    GOOD,
    IMAGES,
    SENTENCES,
    SMALL,
    TEXT,
    write_table,
)
from tests.launching import curves, furthest, only_run, train, weights

# Adam would make steps of the rounding in gradients that are 0, as of the biases of keys
STEPS = (
    *("--model.encoder.dropout", 0.2, "--max_epochs", 2),
    *("--model.optimizer", "SGD", "--lr", 0.1),
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("several"))


def words(table: Path, targets: str = "[mood,bright,hours]") -> tuple[object, ...]:
    data = ("--data", "Table", "--data.path", table, "--data.targets", targets)
    return (*data, "--data.batch_size", 16)


@pytest.fixture(scope="module")
def fused(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on numbers, categories, texts and images, with dropout."""
    logs = tmp_path_factory.mktemp("fused")
    more = (*TEXT, *IMAGES, *SMALL, *STEPS)
    ended = call("train", *words(table), *more, "--reference", "linear", "--logs", logs)
    assert ended.code == 0, ended.err
    assert "inputs: 1 numeric and 1 categorical columns, text 'comment', image 'photo'" in ended.out
    assert "linear: read the table columns alone, not comment, photo" in ended.out
    return only_run(logs / "table")


def test_a_text_alone_tells_the_label(table: Path, tmp_path: Path) -> None:
    more = (*SENTENCES, "--max_epochs", 30, "--logs", tmp_path)
    ended = call("train", *words(table, "[mood]"), *more)
    assert ended.code == 0, ended.err
    run = only_run(tmp_path / "table")
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test"]["test/mood/auroc"] > 0.95


def test_new_rows_are_predicted_with_unknown_words_and_without_texts(
    fused: Path, table: Path, tmp_path: Path
) -> None:
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))[:3]
    rows[0]["comment"] = "Überraschung 😀 " + "long " * 200
    rows[1]["comment"] = ""
    new = table.parent / "new.csv"
    with new.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["age", "city", "comment", "photo"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    out = tmp_path / "predictions.csv"
    ended = call("predict", "--run", fused, "--data.path", new, "--out", out)
    assert ended.code == 0, ended.err
    assert "1 of 3 rows have a 'comment' of more than 128 tokens" in ended.out + ended.err
    with out.open(newline="") as file:
        predicted = list(csv.DictReader(file))
    assert [row["mood"] in ("good", "bad") for row in predicted] == [True] * 3


def test_evaluation_reads_the_run_as_it_was(fused: Path) -> None:
    before = json.loads((fused / "metrics.json").read_text())["test"]
    ended = call("evaluate", "--run", fused)
    assert ended.code == 0, ended.err
    assert f"{before['test/score']:.4f}" in ended.out


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_devices_train_as_one(fused: Path, table: Path, tmp_path: Path, strategy: str) -> None:
    more = (*TEXT, *IMAGES, *SMALL, *STEPS)
    run = train(tmp_path, *words(table), *more, "--devices", 2, "--strategy", strategy)
    assert furthest(weights(run), weights(fused)) < 1e-5
    one, several = curves(fused), curves(run)
    for tag in (tag for tag in one if tag.startswith("train/") and tag.endswith("/loss")):
        assert several[tag] == pytest.approx(one[tag], rel=1e-5)


@pytest.mark.slow
def test_texts_of_encoders_side_by_side_drop_the_same_on_two_devices(
    table: Path, tmp_path: Path
) -> None:
    more = (*SENTENCES, "--model.sharing", "SoftSharing", *STEPS)
    assert call("train", *words(table), *more, "--logs", tmp_path, "--name", "one").code == 0
    run = train(tmp_path, *words(table), *more, "--devices", 2, name="two")
    assert furthest(weights(run), weights(only_run(tmp_path / "one"))) < 1e-5


def test_a_resumed_run_ends_with_the_same_bits(table: Path, tmp_path: Path) -> None:
    # a schedule would depend on the number of steps
    still = ("--model.scheduler", "null", "--model.encoder.dropout", 0.2, "--logs", tmp_path)
    more = (*words(table), *SENTENCES, *still)
    assert call("train", *more, "--trainer.max_steps", 12, "--name", "whole").code == 0
    assert call("train", *more, "--trainer.max_steps", 7, "--name", "half").code == 0
    first = only_run(tmp_path / "half")
    ended = call("train", "--resume", first, "--trainer.max_steps", 12)
    assert ended.code == 0, ended.err
    whole = weights(only_run(tmp_path / "whole"))
    again = weights(first)
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[key], again[key]) for key in whole)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--data.text", "[age]"), ["column 'age' holds numbers, not texts"]),
        (("--data.text", "[coment]"), ["data.text names 'coment'", "did you mean 'comment'?"]),
        (("--data.text", "[mood]"), ["data.text names 'mood', which is a target"]),
        (("--data.text", "[photo]", "--data.images", "[photo]"), ["both name 'photo'"]),
        ((*TEXT, "--data.vocabulary", 100), ["data.vocabulary is 100", "at least 300"]),
        ((*TEXT, "--data.max_tokens", 0), ["data.max_tokens is 0"]),
        ((*TEXT, "--data.tokenizer", "./none"), ["data.tokenizer ./none", "there is no"]),
        (TEXT, ["several inputs (table, comment)", "--model.encoder Fusion"]),
        ((*TEXT, "--data.inputs", "[]"), ["sequences of tokens", "--model.encoder Transformer"]),
        (("--data.inputs", "[]"), ["no input column is left"]),
        (("--data.images", "[city]"), ["row 1", "image Lima", "no such file"]),
        (
            (*TEXT, "--model.encoder", "Fusion", "--model.encoder.text", "ConvNet"),
            ["input 'comment'", "--model.encoder.text Transformer"],
        ),
        (
            (*TEXT, "--model.encoder", "Fusion", "--model.encoder.text", "Transfomer"),
            ["model.encoder.text: unknown class 'Transfomer'; did you mean 'Transformer'?"],
        ),
        (("--model.encoder", "Fusion"), ["Fusion reads several inputs", "--model.encoder MLP"]),
    ],
)
def test_what_cannot_be_read(
    table: Path, tmp_path: Path, flags: tuple[object, ...], says: list[str]
) -> None:
    refused(call("train", *words(table, "[mood]"), *flags, "--logs", tmp_path), says)


def test_a_photo_that_is_not_there_is_named_with_its_row(table: Path, tmp_path: Path) -> None:
    with table.open(newline="") as file:
        rows = list(csv.reader(file))
    rows[7][3] = "photos/lost.png"
    broken = table.parent / "broken.csv"
    with broken.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    flags = (*IMAGES, "--model.encoder", "Fusion", "--logs", tmp_path)
    says = ["broken.csv row 7", "photos/lost.png", "--data.on_error skip"]
    refused(call("train", *words(broken, "[mood]"), *flags), says)

    skipped = ("--data.on_error", "skip", "--max_epochs", 1)
    ended = call("train", *words(broken, "[mood]"), *flags, *skipped)
    assert ended.code == 0, ended.err
    assert "1 of 120 images are left out: row 7 photos/lost.png" in ended.out
    counts = re.search(r"rows: (\d+) to train, (\d+) to validate, (\d+) to test", ended.out)
    assert counts is not None
    assert sum(map(int, counts.groups())) == 119


def test_images_that_have_changed_are_not_those_of_the_run(table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    path = write_table(folder)
    flags = (*IMAGES, "--data.inputs", "[]", "--model.encoder", "ConvNet", "--max_epochs", 1)
    ended = call("train", *words(path, "[bright]"), *flags, "--logs", tmp_path / "logs")
    assert ended.code == 0, ended.err
    run = only_run(tmp_path / "logs" / "table")
    moved = folder.rename(tmp_path / "moved")
    again = ("--data.path", moved / "table.csv")
    assert call("evaluate", "--run", run, *again).code == 0
    (moved / "photos" / "3.png").unlink()
    refused(call("evaluate", "--run", run, *again), ["no such file", "3.png"])


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    """A folder with a small RoBERTa and its tokenizer, whose padding is token 1."""
    transformers = pytest.importorskip("transformers")
    known = ["<s>", "<pad>", "</s>", "<unk>", *GOOD, *BAD, *FILL[:20]]
    tokenizer = Tokenizer(WordLevel({w: k for k, w in enumerate(known)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.RobertaConfig(vocab_size=len(known), intermediate_size=16, **sizes)
    transformers.RobertaModel(config).save_pretrained(tmp_path / "backbone")
    tokenizer.save(str(tmp_path / "backbone" / "tokenizer.json"))
    return tmp_path / "backbone"


def test_a_pretrained_backbone_reads_the_texts_by_its_own_tokenizer(
    backbone: Path, table: Path
) -> None:
    data = Table(str(table), targets=["mood"], text=["comment"], inputs=[], tokenizer=str(backbone))
    batch = data.split("train")[torch.arange(9)]
    assert isinstance(batch.inputs, dict)
    encoder = Pretrained(data.input_shape, str(backbone)).eval()
    z = encoder(batch.inputs)
    assert z.shape == (9, 16)

    # the model itself, which pads with token 1
    ours = batch.inputs["tokens"]
    theirs = ours.clone()
    theirs[ours == 0] = 1
    theirs[ours == 1] = 0
    transformers = pytest.importorskip("transformers")
    model = transformers.RobertaModel.from_pretrained(backbone).eval()
    mask = (ours > 0).long()
    with torch.no_grad():
        last = model(input_ids=theirs, attention_mask=mask).last_hidden_state
    mean = (last * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(z, mean, rtol=1e-5, atol=1e-5)


def test_a_text_setting_without_a_default_stays_text() -> None:
    name = {"name": "/models/bert"}
    assert state_settings(name, list_settings(Pretrained, 1), set()) == name
