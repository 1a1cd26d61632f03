"""What a run on a treebank keeps, and how later commands read sentences with it."""

import json
from pathlib import Path

import pandas as pd
import pytest

from src.data import Treebank
from src.errors import UserError
from src.run import Run
from tests.cli.calling import call, refused
from tests.data.treebanks.made_treebanks import as_conllu, write_treebank
from tests.launching import only_run, read_json

FLAGS = (
    *("--data", "Treebank", "--data.targets", "[upos, feats.*, ner, genre]"),
    *("--data.entities_train", "dev", "--data.batch_size", 16, "--max_epochs", 2),
    *("--model.encoder", "BiLSTM", "--model.encoder.width", 16, "--lr", 0.02),
    *("--model.encoder.word_size", 8, "--model.encoder.piece_size", 8),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_treebank(tmp_path_factory.mktemp("treebank"))


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory) -> Path:
    logs = tmp_path_factory.mktemp("logs")
    done = call("train", "--logs", logs, "--name", "x", *FLAGS, "--data.root", root)
    assert done.code == 0, done.err
    return only_run(logs / "x")


def open_with(run: Path, root: Path, **settings: object) -> Treebank:
    return Treebank(
        str(root),
        targets=["upos", "feats.*", "ner", "genre"],
        entities_train="dev",
        schema_path=str(Run.open(run).schema),
        **settings,  # type: ignore[arg-type]
    )


def count_words(frame: pd.DataFrame, column: str) -> list[int]:
    return [len(str(text).split()) for text in frame[column]]


def test_another_run_takes_over_the_codes_of_words(run: Path, root: Path, tmp_path: Path) -> None:
    schema = str(Run.open(run).schema)
    # of other sentences the words would have other codes
    other = write_treebank(tmp_path)
    fewer = Treebank(str(other), targets=["upos"], min_count=5)
    assert fewer.words.words != open_with(run, root).words.words
    data = Treebank(str(other), targets=["upos"], min_count=5)
    data.start_from(schema, "RUN")
    assert data.words.words == open_with(run, root).words.words
    assert data.characters.characters == open_with(run, root).characters.characters
    cased = Treebank(str(other), targets=["upos"], lower=False)
    with pytest.raises(UserError, match=r"--data\.lower true"):
        cased.start_from(schema, "RUN")


def test_the_schema_brings_back_vocabularies_and_tasks(run: Path, root: Path) -> None:
    fresh = Treebank(str(root), targets=["upos", "feats.*", "ner", "genre"], entities_train="dev")
    data = open_with(run, root)
    assert data.words.words == fresh.words.words
    assert data.characters.characters == fresh.characters.characters
    assert data.tasks == fresh.tasks
    assert data.schema() == json.loads(json.dumps(fresh.schema()))
    assert read_json(run / "run.json")["data"]["rows"] == {"train": 92, "val": 8, "test": 20}


def test_evaluate_finds_the_test_results_again(run: Path) -> None:
    out = run / "again.json"
    assert call("evaluate", "--run", run, "--out", out).code == 0
    again = read_json(out)
    first = read_json(run / "metrics.json")["test"]
    # null where no label defines a metric
    assert {key for key in again if again[key] is None} == {
        key for key in first if first[key] is None
    }
    for key, value in first.items():
        if value is not None:
            assert again[key] == pytest.approx(value, rel=1e-6), key


def test_predictions_of_the_runs_own_sentences(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "val.csv"
    assert call("predict", "--run", run, "--split", "val", "--out", out).code == 0
    frame = pd.read_csv(out)
    assert len(frame) == 8
    counts = count_words(frame, "words")
    for name in ("upos", "ner", "feats_Number", "true.upos", "true.ner"):
        assert count_words(frame, name) == counts, name
    assert frame["id"].str.contains("-dev").all()
    assert set(frame["true.genre"]) <= {"blog", "mail", "news"}


def test_new_sentences_need_no_other_file(run: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.conllu"
    sentences = [("blog-new-1", ["A", "dog", "saw", "Bonn"])]
    new.write_text(as_conllu(sentences).replace("\tNOUN\t", "\tOTHER\t"))
    nowhere = ("--data.root", tmp_path / "nowhere", "--data.path", new)
    out = tmp_path / "new.json"
    assert call("evaluate", "--run", run, *nowhere, "--out", out).code == 0
    # a label that training did not know is an error
    assert read_json(out)["test/upos/accuracy"] <= 0.75

    table = tmp_path / "new.csv"
    assert call("predict", "--run", run, *nowhere, "--out", table).code == 0
    frame = pd.read_csv(table)
    assert frame["words"].tolist() == ["A dog saw Bonn"]
    assert len(frame["upos"][0].split()) == 4


def test_plain_text_is_predicted_a_line_a_sentence(run: Path, tmp_path: Path) -> None:
    text = tmp_path / "new.txt"
    text.write_text("the dog saw 2001 houses .\n\nAnna !\n")
    table = tmp_path / "new.csv"
    assert call("predict", "--run", run, "--data.path", text, "--out", table).code == 0
    frame = pd.read_csv(table, dtype=str)
    assert frame["id"].tolist() == ["1", "3"]
    assert count_words(frame, "ner") == [6, 2]
    words = ("--run", run, "--data.path", text, "--split", "val", "--out", tmp_path / "val.csv")
    refused(call("predict", *words), ["holds new sentences", "none of them is of the run's val"])


def test_other_files_under_the_runs_names_are_refused(
    run: Path, root: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in root.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    assert (
        call("evaluate", "--run", run, "--data.root", moved, "--out", tmp_path / "a.json").code == 0
    )
    (moved / "xx_toy-ud-test.conllu").write_text(as_conllu([("a-b-1", ["oh"])]))
    data = open_with(run, moved)
    with pytest.raises(UserError, match="is not the file that the run was trained with"):
        data.check_files()
    (moved / "xx_toy-ud-test.conllu").unlink()
    data.check_files(all_there=False)
    with pytest.raises(UserError, match=r"xx_toy-ud-test.conllu is missing, which the run"):
        data.check_files()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"words": ["x"]}, "a value is not what the run has written"),
        ({"tasks": {}}, "a value is not what the run has written"),
        ({"characters": 3}, "characters is 3"),
        ({"files": None}, "files is"),
    ],
)
def test_a_changed_schema_is_refused(
    run: Path, root: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    content = read_json(Run.open(run).schema) | change
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        Treebank(str(root), schema_path=str(path))
