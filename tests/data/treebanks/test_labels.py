import pytest

from src.data.treebanks.conllu import read_conllu
from src.data.treebanks.labels import (
    UNSEEN,
    check_targets,
    encode_labels,
    list_features,
    make_task,
    name_tasks,
    read_labels,
)
from src.errors import UserError
from src.tasks import Classification, SequenceLabelling
from tests.data.treebanks.made_treebanks import WORDS, as_conllu, make_sentences

GENRE = "^([^-]+)-"


@pytest.fixture
def sentences(tmp_path):
    path = tmp_path / "x.conllu"
    path.write_text(as_conllu(make_sentences("train")))
    return read_conllu(path)


def test_labels_of_words_and_sentences(sentences):
    def labels(target, entities=None):
        return read_labels(target, sentences, entities, GENRE)

    forms = sentences.forms
    assert labels("upos") == [WORDS[form][0] for form in forms]
    assert None in labels("xpos")  # an interjection has '_'
    assert "_" in labels("feats")  # no features is a bundle
    numbers = {"dog": "Sing", "dogs": "Plur", "saw": "Sing", "see": "Plur"}
    names = {"house": "Sing", "Anna": "Sing", "Bonn": "Sing"}
    assert labels("feats.Number") == [(numbers | names).get(form) for form in forms]
    assert labels("ner") == [None] * len(forms)
    assert labels("ner", ["_", "O", *["B-X"] * (len(forms) - 2)])[:3] == [None, "O", "B-X"]
    genres = labels("genre")
    assert genres[:5] == ["blog"] * 4 + ["mail"]
    assert read_labels("genre", sentences, None, "^(x)")[:2] == [None, None]


def test_features_with_one_value_alone_are_no_tasks():
    bundles = ["Case=Nom|Number=Sing", "_", "Number=Plur|Typo=Yes"]
    assert list_features(bundles) == (["Number"], ["Case", "Typo"])
    assert name_tasks(["upos", "feats.*", "genre"], ["Case", "Number[psor]"]) == {
        "upos": "upos",
        "feats_Case": "feats.Case",
        "feats_Number_psor": "feats.Number[psor]",
        "genre": "genre",
    }


def test_a_task_has_the_classes_of_the_training_labels_and_one_for_others():
    task = make_task("upos", ["VERB", "NOUN", None, "VERB"], {"weight": 2})
    assert isinstance(task, SequenceLabelling)
    assert (task.classes, task.weight) == (("NOUN", "VERB", UNSEEN), 2)
    assert encode_labels(task, ["VERB", None, "X", "NOUN"]).tolist() == [1, -100, 2, 0]
    genre = make_task("genre", ["a", "b"], {})
    assert type(genre) is Classification
    assert genre.pooled


def test_entities_of_an_unknown_type_stay_spans():
    task = make_task("ner", ["O", "B-PER", None], {})
    assert task.classes == ("O", "B-PER", "I-PER", f"B-{UNSEEN}", f"I-{UNSEEN}")
    assert task.scheme == "IOB2-strict"
    assert encode_labels(task, ["I-PER", "B-ORG", "I-ORG", "O"]).tolist() == [2, 3, 4, 0]


@pytest.mark.parametrize(
    ("target", "labels", "given", "message"),
    [
        ("xpos", [None], {}, "has no label in the training sentences"),
        ("feats.Typo", [None, "Yes"], {}, "has the value Yes alone"),
        ("upos", ["X"], "Regression", "is set to Regression, but its labels are classes"),
        ("upos", ["X"], {"colour": 1}, "has no setting 'colour'"),
    ],
)
def test_tasks_that_cannot_be_are_refused(target, labels, given, message):
    with pytest.raises(UserError, match=message):
        make_task(target, labels, given)


def test_a_label_outside_of_classes_given_by_hand_is_refused():
    task = make_task("upos", ["a"], {"classes": ["a", "b"]})
    with pytest.raises(UserError, match="label 'c', which is none of its classes"):
        encode_labels(task, ["a", "c"])


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("upos", "where a list is expected"),
        ([], "where a list is expected"),
        (["pos"], "names 'pos', which no treebank has: did you mean 'xpos'"),
        (["feats."], "names 'feats.'"),
        (["ner", "upos", "ner"], "names 'ner' twice"),
    ],
)
def test_names_of_targets_are_checked(targets, message):
    with pytest.raises(UserError, match=message):
        check_targets(targets)
