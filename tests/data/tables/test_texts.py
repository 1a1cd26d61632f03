"""Columns of text: tokenizers that are learnt or brought along, and what they make of texts."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from src.data.tables.columns import from_plain, to_plain
from src.data.tables.texts import Text, fit_text, load_tokenizer, open_tokenizer, train_tokenizer
from src.errors import UserError
from tests.launching import ROOT

TEXTS = ["The cat sat on the mat", "the CAT ran", "a dog sat", "cats and dogs ran and sat"]


def column(values: Sequence[str | None]) -> pd.Series:
    return pd.Series(values, name="comment", dtype="str")


def load(text: Text, values: Sequence[str | None]) -> torch.Tensor:
    inputs, _ = text.encode(column(values), "table.csv")
    assert isinstance(inputs, dict)
    tokens = inputs["tokens"]
    assert not isinstance(tokens, torch.Tensor)
    return tokens.load()


def write_words(folder: Path, words: list[str], **more: object) -> Path:
    """A tokenizer that knows some words, as a folder."""
    tokenizer = Tokenizer(WordLevel({w: k for k, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    if more.get("template"):
        ends = [("<s>", words.index("<s>"))]
        tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=ends)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_texts_come_back_from_their_tokens_in_lower_case() -> None:
    text, note = fit_text("comment", column([*TEXTS, None]), 400, 50, None)
    tokens = load(text, TEXTS)
    tokenizer = open_tokenizer(text.tokenizer)
    for row, written in zip(tokens.tolist(), TEXTS, strict=True):
        assert tokenizer.decode([t for t in row if t]).strip() == written.lower()
    assert tokens.max() < text.shape.tokens
    assert f"{text.shape.tokens} tokens learnt from the training rows" in note


def test_words_that_training_did_not_have_are_written_in_pieces() -> None:
    text, _ = fit_text("comment", column(TEXTS), 400, 50, None)
    tokens = load(text, ["Über 東京 😀"])[0]
    assert 0 not in tokens.tolist()
    assert open_tokenizer(text.tokenizer).decode(tokens.tolist()).strip() == "über 東京 😀"


def test_a_missing_text_has_no_tokens_and_a_long_one_loses_its_end() -> None:
    text, _ = fit_text("comment", column(TEXTS), 400, 3, None)
    tokens = load(text, [None, "the cat sat on the mat", "a"])
    assert tokens.shape == (3, 3)
    assert (tokens > 0).sum(1).tolist() == [0, 3, 1]
    _, remarks = text.encode(column([None, "the cat sat on the mat", "a"]), "table.csv")
    assert remarks == [
        "1 of 3 rows have a 'comment' of more than 3 tokens, whose end is left out "
        "(--data.max_tokens)"
    ]
    assert load(text, [None, None]).tolist() == [[0], [0]]


def test_every_process_learns_the_same_tokenizer() -> None:
    code = (
        "from src.data.tables.texts import train_tokenizer; import hashlib; "
        "texts = [' '.join(f'w{i * j % 97}' for j in range(9)) for i in range(300)]; "
        "print(hashlib.sha256(train_tokenizer(texts, 700).encode()).hexdigest())"
    )
    found = set()
    for seed in ("1", "2"):
        ended = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(ended.stdout)
    assert len(found) == 1


def test_a_schema_keeps_a_column() -> None:
    text, _ = fit_text("comment", column(TEXTS), 400, 7, None)
    again = from_plain(json.loads(json.dumps(to_plain(text))), [Text])
    assert again == text
    with pytest.raises(UserError, match="is no tokenizer"):
        open_tokenizer("{}")


def test_padding_of_a_tokenizer_changes_places_with_token_0(tmp_path: Path) -> None:
    words = ["<s>", "<pad>", "<unk>", "cat", "dog"]
    folder = write_words(tmp_path / "words", words, template=True)
    text, note = fit_text("comment", column(["dog cat", "dog"]), 8000, 50, str(folder))
    assert text.padding == 1
    # <s> is 0 in the tokenizer, and 1 here
    assert load(text, ["dog cat bird", "cat"]).tolist() == [[1, 4, 3, 2], [1, 3, 0, 0]]
    assert note.startswith(f"text, 5 tokens of {folder}")


def test_tokenizers_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"there is no .*empty/tokenizer\.json"):
        load_tokenizer(str(tmp_path / "empty"))
    with pytest.raises(UserError, match="there is no"):
        load_tokenizer("./nowhere")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="is neither a folder with"):
        load_tokenizer(str(tmp_path))
    folder = write_words(tmp_path / "words", ["<unk>", "cat"])
    with pytest.raises(UserError, match="has no token of padding"):
        load_tokenizer(str(folder))


def test_a_vocabulary_is_as_large_as_asked_for_or_as_the_texts_allow() -> None:
    assert open_tokenizer(train_tokenizer(TEXTS, 300)).get_vocab_size() <= 300
    assert open_tokenizer(train_tokenizer(["ab"], 8000)).get_vocab_size() < 300
