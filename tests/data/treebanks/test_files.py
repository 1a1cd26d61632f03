from pathlib import Path

import pytest

from src.data.treebanks import files
from src.data.treebanks.files import HASHES, find_entities, find_treebank
from src.errors import UserError


def touch(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).touch()
    return str(folder)


def test_files_are_found_by_their_names_gzipped_or_not(tmp_path):
    root = touch(
        tmp_path,
        "de_x-ud-train-b.conllu",
        "de_x-ud-train-a.conllu.gz",
        "de_x-ud-dev.conllu",
        "de_x-ud-dev.conllu.gz",
        "de_x-ud-test.conllu.gz",
        "de_x-ud-test.txt",
        "uner_de_x-ud-dev.iob2.gz",
        "README.md",
    )
    found = {
        side: [path.name for path in paths] for side, paths in find_treebank(root, False).items()
    }
    assert found == {
        "train": ["de_x-ud-train-a.conllu.gz", "de_x-ud-train-b.conllu"],
        "val": ["de_x-ud-dev.conllu"],
        "test": ["de_x-ud-test.conllu.gz"],
    }
    assert {side: len(paths) for side, paths in find_entities(root).items()} == {"val": 1}


def test_what_is_missing_is_named_with_where_to_get_it(tmp_path):
    with pytest.raises(UserError) as caught:
        find_treebank(str(tmp_path / "nowhere"), download=False)
    assert "*-ud-train.conllu and *-ud-test.conllu (or .gz) missing" in str(caught.value)
    assert "https://universaldependencies.org" in str(caught.value)
    assert "--data.download true" in str(caught.value)
    root = touch(tmp_path, "a-ud-train.conllu")
    with pytest.raises(UserError, match=r": \*-ud-test.conllu \(or .gz\) missing"):
        find_treebank(root, download=True)  # nothing is fetched beside another treebank
    touch(tmp_path, "b-ud-test.conllu")
    with pytest.raises(UserError, match=r"holds several treebanks \(a, b\)"):
        find_treebank(root, download=False)
    with pytest.raises(UserError, match=r"https://github.com/UniversalNER, or leave out ner"):
        find_entities(root)


def test_english_ewt_is_fetched_into_an_empty_folder(tmp_path, monkeypatch):
    fetched = {}

    def fetch(url, path, sha256):
        fetched[url] = sha256
        path.touch()

    monkeypatch.setattr(files, "fetch", fetch)
    found = find_treebank(str(tmp_path), download=True)
    assert fetched == HASHES
    assert [path.name for path in found["train"]] == ["en_ewt-ud-train.conllu"]
    assert find_entities(str(tmp_path)).keys() == {"val", "test"}
