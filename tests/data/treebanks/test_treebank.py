import inspect
import os
import warnings
from pathlib import Path

import pytest
import torch
import yaml

from src.batch import PADDING
from src.data import Treebank
from src.errors import UserError
from src.tasks import is_labelled
from tests.data.treebanks.made_treebanks import GENRES, SIZES, WORDS, make_sentences, write_treebank
from tests.launching import ROOT

TARGETS = ["upos", "xpos", "feats", "feats.*", "deprel", "ner", "genre"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_treebank(tmp_path_factory.mktemp("treebank"))


def make(root, **settings):
    return Treebank(str(root), **{"targets": TARGETS, "entities_train": "dev", **settings})


def test_tasks_of_every_kind(root):
    tasks = make(root).tasks
    assert list(tasks) == [
        *("upos", "xpos", "feats", "feats_Definite", "feats_Number", "feats_Tense"),
        *("deprel", "ner", "genre"),
    ]
    assert tasks["feats_Number"].classes == ("Plur", "Sing", "(unseen)")
    assert tasks["genre"].classes == (*GENRES, "(unseen)")
    assert tasks["ner"].classes[:5] == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def test_a_split_has_the_words_and_labels_of_its_sentences(root):
    data = make(root)
    rows = data.split("test")
    sentences = make_sentences("test")
    assert rows.row_info["id"] == [name for name, _ in sentences]
    assert rows.row_info["words"] == [" ".join(words) for _, words in sentences]
    batch = rows[torch.arange(len(rows))]
    codes = {word: code for code, word in enumerate(data.words.words, 2)}
    upos = data.tasks["upos"].classes
    for row, (name, words) in enumerate(sentences):
        known = [codes[data.words.normalise(word)] for word in words]
        assert batch.inputs["tokens"][row, : len(words)].tolist() == known
        assert not batch.inputs["tokens"][row, len(words) :].any()
        found = [upos[k] for k in batch.targets["upos"][row] if k >= 0]
        assert found == [WORDS[word][0] for word in words]
        assert GENRES[batch.targets["genre"][row]] == name.partition("-")[0]
        assert (batch.targets["ner"][row] >= 0).sum() == len(words)
    truth = data.truth("test")
    assert truth["deprel"][""][3] == " ".join(WORDS[word][3] for word in sentences[3][1])


def test_entities_of_some_dev_documents_train_and_validate_nowhere(root):
    data = make(root, entities_share=0.5)
    train = data.split("train")
    val = data.split("val")
    ids = set(train.row_info["id"])
    assert len(train) == SIZES["train"] + 20
    assert len(val) == 20
    assert not ids & set(val.row_info["id"])
    documents = {name.rpartition("-")[0] for name in ids}
    assert not documents & {name.rpartition("-")[0] for name in val.row_info["id"]}
    batch = train[torch.arange(len(train))]
    moved = torch.tensor(["dev" in name for name in train.row_info["id"]])
    for name, target in batch.targets.items():
        labelled = is_labelled(target).flatten(1).any(1) if target.ndim > 1 else is_labelled(target)
        if name == "ner":
            assert torch.equal(labelled, moved)
        else:
            assert not labelled[moved].any()
            if name in ("upos", "genre"):
                assert labelled[~moved].all()
    # in validation all labels count
    assert all(is_labelled(target).any() for target in val[torch.arange(20)].targets.values())


def test_without_a_dev_file_some_training_documents_validate(root, tmp_path):
    for path in root.glob("*.conllu*"):
        if "-dev" not in path.name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    data = Treebank(str(tmp_path), val_fraction=0.2)
    train = data.split("train").row_info["id"]
    val = data.split("val").row_info["id"]
    assert (len(train), len(val)) == (48, 12)
    assert not set(train) & set(val)
    # what those words and labels are, training does not know
    assert set(data.words.words) == {
        data.words.normalise(form) for form in data.text.training_forms
    }


def test_words_are_hidden_in_training_as_a_function_of_seed_epoch_and_row(root):
    data = make(root, word_dropout=20.0, seed=3)
    rows = data.split("train")

    def hidden(data, epoch):
        batches = data.training_batches(rows, shuffle=True)
        batches.set_epoch(epoch)
        return {
            int(row): tokens[tokens > 0].tolist()
            for batch in map(rows.__getitem__, batches)
            for row, tokens in zip(batch.ids, batch.inputs["tokens"], strict=True)
        }

    one = hidden(data, 1)
    assert 1 in {token for tokens in one.values() for token in tokens}
    smaller = make(root, word_dropout=20.0, seed=3, batch_size=5)
    assert hidden(smaller, 1) == one
    assert hidden(data, 2) != one
    for batch in map(rows.__getitem__, data.evaluation_batches(rows)):
        assert not (batch.inputs["tokens"] == 1).any()


def test_padding_rows_have_no_labels(root):
    batch = make(root).split("val")[torch.tensor([0, PADDING])]
    assert not any(is_labelled(target[1]).any() for target in batch.targets.values())


def test_notes_say_what_a_person_should_know(root, tmp_path):
    for path in root.glob("*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    changed = tmp_path / "xx_toy-ud-test.iob2"
    text = changed.read_text()
    words = next(line for line in text.splitlines() if line.startswith("1\t"))
    changed.write_text(text.replace(words, "1\tother\tI-PER\t-\t-", 1))
    data = make(tmp_path)
    data.split("test")
    notes = "\n".join(data.notes())
    assert "task ner: SequenceLabelling (7 classes, labels of" in notes
    assert "features with one value alone are no tasks: NumType, PronType" in notes
    assert "entities of the test file: 19 of 20 sentences have them; 1 have none" in notes
    assert "1 labels I-X that continue no entity are read as B-X" in notes
    assert "sentences: 92 to train, 8 to validate, 20 to test" in notes


def test_broken_sentences_are_left_out_on_request(root, tmp_path):
    for path in root.glob("*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "xx_toy-ud-dev.conllu"
    path.write_text("1\tbroken\n\n" + path.read_text())
    # the line of the file is named, and nothing before it
    with pytest.raises(UserError, match=f"^{path} line 1: has 2 columns"):
        make(tmp_path).tasks  # noqa: B018
    data = make(tmp_path, on_error="skip")
    assert len(data.split("val")) == 8
    assert any("1 sentence is left out: " in note and "line 1" in note for note in data.notes())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"entities_share": 1.0}, "data.entities_share is 1.0; a share lies between"),
        ({"val_fraction": 0}, "data.val_fraction is 0"),
        ({"min_count": 0}, "data.min_count is 0; it must be at least 1"),
        ({"word_dropout": -1.0}, "data.word_dropout is -1.0"),
        ({"max_characters": 1}, "data.max_characters is 1"),
        ({"path": "x.conllu"}, "data.path names new sentences for python -m src.evaluate"),
        ({"genre": "("}, r"data.genre '\(' is no pattern"),
        ({"genre": "x"}, "data.genre 'x' has no group"),
    ],
)
def test_settings_are_checked(root, settings, message):
    with pytest.raises(UserError, match=message):
        make(root, **settings)


def test_entities_that_do_not_train_are_refused_with_the_way_out(root):
    with pytest.raises(UserError, match=r"'ner' has no label .* --data.entities_train dev"):
        make(root, entities_train="train").tasks  # noqa: B018
    with pytest.raises(UserError, match="names 'xner', which is no target: did you mean 'ner'"):
        make(root, tasks={"xner": {}}).tasks  # noqa: B018


def test_no_unknown_word_in_training_warns(root):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make(root, word_dropout=0.0)
    assert "training has no unknown word" in str(caught[0].message)


def test_the_config_states_every_setting():
    stated = yaml.safe_load((ROOT / "configs/data/treebank.yaml").read_text())["init_args"]
    parameters = inspect.signature(Treebank).parameters.items()
    defaults = {key: p.default for key, p in parameters if key not in ("schema_path", "seed")}
    assert stated.keys() == defaults.keys()
    for key in defaults.keys() - {"root", "targets"}:
        assert (stated[key] or None) == (defaults[key] or None), key


@pytest.mark.skipif(not os.environ.get("MTL_DATA"), reason="MTL_DATA names no folder of data sets")
def test_english_ewt():
    folder = Path(os.environ["MTL_DATA"]) / "ud_ewt"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    data = make(folder)
    assert {name: len(data.split(name)) for name in ("train", "val", "test")} == {
        "train": 14152,
        "val": 393,
        "test": 2077,
    }
    assert len(data.tasks["upos"].classes) == 18
    assert len(data.tasks["xpos"].classes) == 50
    assert int(data.split("test").lengths.sum()) == 25094
