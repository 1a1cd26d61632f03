"""Columns of text: a tokenizer turns each value into a sequence of tokens."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from src.batch import InputShape
from src.data.rows import Inputs
from src.data.tables.columns import MemberColumn, to_words
from src.data.tables.token_sequences import Sequences
from src.errors import UserError, in_one_line

if TYPE_CHECKING:
    import pandas as pd
    from tokenizers import Tokenizer

PADDING = "[PAD]"
PADDINGS = (PADDING, "<pad>")  # how tokenizers of others name the token of padding
FEWEST = 300  # tokens: each byte is one, and some are longer
CHUNK = 10_000  # texts that are taken apart at once


@dataclass(frozen=True)
class Text(MemberColumn):
    """A column of texts: an input of tokens.

    A missing text has no tokens. Token 0 is that of padding: where the tokenizer has another one,
    the two change places.

    Attributes:
        column: The column of the file.
        tokenizer: The tokenizer, as the JSON text of the tokenizers library.
        max_tokens: Tokens of a longer text that are kept, from the first.
        padding: The tokenizer's own number for padding.
        special: Whether the tokenizer adds tokens of its own, such as [CLS].
    """

    tokenizer: str
    max_tokens: int
    padding: int = 0
    special: bool = False

    @property
    def shape(self) -> InputShape:
        """A sequence of tokens."""
        return InputShape(tokens=open_tokenizer(self.tokenizer).get_vocab_size())

    def encode(self, series: pd.Series, path: str) -> tuple[Inputs, list[str]]:
        tokens, cut = self.tokenize(series)
        notes = [self.describe_cut(cut, len(series))] if cut else []
        return {"tokens": tokens}, notes

    def describe_cut(self, cut: int, rows: int) -> str:
        """Says how many texts are too long."""
        return (
            f"{cut} of {rows} rows have a '{self.column}' of more than {self.max_tokens} tokens, "
            "whose end is left out (--data.max_tokens)"
        )

    def tokenize(self, series: pd.Series) -> tuple[Sequences, int]:
        """Returns the tokens of each text, and how many texts were too long."""
        tokenizer = open_tokenizer(self.tokenizer)
        tokenizer.enable_truncation(self.max_tokens)
        words = to_words(series)
        known = words.notna().to_numpy()
        texts = words[known].tolist()

        found: list[list[int]] = []
        cut = 0
        with without_threads():
            for first in range(0, len(texts), CHUNK):
                some = tokenizer.encode_batch(
                    texts[first : first + CHUNK], add_special_tokens=self.special
                )
                found += [encoding.ids for encoding in some]
                cut += sum(bool(encoding.overflowing) for encoding in some)

        lengths = np.zeros(len(series), np.int64)
        lengths[known] = [len(ids) for ids in found]
        tokens = np.concatenate(
            [np.zeros(0, np.int32), *(np.array(ids, np.int32) for ids in found)]
        )
        return Sequences.of_lengths(self._exchange_padding(tokens), torch.from_numpy(lengths)), cut

    def _exchange_padding(self, tokens: np.ndarray) -> torch.Tensor:
        """Gives padding the number 0, and what had it the number of padding."""
        if self.padding:
            tokens = np.where(
                tokens == 0, self.padding, np.where(tokens == self.padding, 0, tokens)
            )
        return torch.from_numpy(tokens.astype(np.int32))

    @classmethod
    def from_plain(cls, settings: Mapping[str, Any]) -> Self:
        column = cls(**settings)
        open_tokenizer(column.tokenizer)
        return column


def fit_text(
    name: str, series: pd.Series, vocabulary: int, max_tokens: int, pretrained: str | None
) -> tuple[Text, str]:
    """Learns a tokenizer from the training rows of a column, or takes one that is there.

    Args:
        name: The column.
        series: Its training rows.
        vocabulary: Most tokens of a tokenizer that is learnt.
        max_tokens: Tokens of a longer text that are kept.
        pretrained: The name of a tokenizer, or the folder where it is; None to learn one.

    Returns:
        The column; and what a person should know of it.

    Raises:
        UserError: There is no text, or no such tokenizer.
    """
    words = to_words(series).dropna()
    if not len(words):
        raise UserError("has no text in the training rows")
    if pretrained is None:
        column = Text(name, train_tokenizer(words.tolist(), vocabulary), max_tokens)
        what = "learnt from the training rows"
    else:
        column = replace(load_tokenizer(pretrained), column=name, max_tokens=max_tokens)
        what = f"of {pretrained}"
    tokens, cut = column.tokenize(series)
    known = tokens.lengths[tokens.lengths > 0].double()
    note = (
        f"text, {column.shape.tokens} tokens {what}; {known.median():.0f} tokens in the median row"
    )
    if cut:
        note += f"; {column.describe_cut(cut, len(series))}"
    return column, note


def train_tokenizer(texts: list[str], vocabulary: int) -> str:
    """Learns byte pair encoding from texts, and returns the tokenizer as JSON text.

    (Sennrich et al., "Neural machine translation of rare words with subword units", ACL 2016, over
    bytes as in Radford et al., "Language models are unsupervised multitask learners", 2019.) Texts
    become lower case, and each byte is a token, so that no word is unknown. The same texts give the
    same tokenizer in every process.
    """
    library = import_tokenizers()
    levels = library.pre_tokenizers.ByteLevel
    tokenizer = library.Tokenizer(library.models.BPE())
    steps = [library.normalizers.NFKC(), library.normalizers.Lowercase()]
    tokenizer.normalizer = library.normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = levels(add_prefix_space=True)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PADDING],
        initial_alphabet=sorted(levels.alphabet()),
        show_progress=False,
    )
    with without_threads():
        tokenizer.train_from_iterator(texts, trainer)
    return str(tokenizer.to_str())


def load_tokenizer(name: str) -> Text:
    """Loads a tokenizer, as the settings of a column without a name.

    Args:
        name: A folder with tokenizer.json, such a file, or a model on the Hugging Face hub.

    Raises:
        UserError: There is none, or it has no token of padding.
    """
    library = import_tokenizers()
    place = Path(name).expanduser()
    file = place / "tokenizer.json" if place.is_dir() else place
    try:
        if file.is_file():
            tokenizer = library.Tokenizer.from_file(str(file))
        elif place.exists() or name.startswith((".", "/", "~")):
            raise UserError(f"data.tokenizer {name}: there is no {file}")
        else:
            tokenizer = library.Tokenizer.from_pretrained(name)
    except UserError:
        raise
    except Exception as error:  # the library has no narrower type
        raise UserError(
            f"data.tokenizer {name} is neither a folder with tokenizer.json nor a model on the "
            f"hub: {in_one_line(error)}"
        ) from None

    # the column pads and cuts by itself
    padding = tokenizer.padding["pad_id"] if tokenizer.padding else None
    for token in PADDINGS:
        padding = tokenizer.token_to_id(token) if padding is None else padding
    if padding is None:
        raise UserError(f"data.tokenizer {name} has no token of padding: none of {PADDINGS}")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return Text("", str(tokenizer.to_str()), 1, padding, special=True)


@lru_cache
def open_tokenizer(content: str) -> Tokenizer:
    """Returns the tokenizer of a JSON text, which runs no code.

    Raises:
        UserError: It is none.
    """
    try:
        found: Tokenizer = import_tokenizers().Tokenizer.from_str(content)
    except UserError:
        raise
    except Exception as error:  # the library has no narrower type
        raise UserError(f"is no tokenizer: {in_one_line(error)}") from None
    return found


def import_tokenizers() -> Any:
    """Imports the tokenizers library.

    Raises:
        UserError: It is not installed.
    """
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.trainers
    except ModuleNotFoundError:
        raise UserError("data.text needs the tokenizers package: pip install tokenizers") from None
    return tokenizers


@contextmanager
def without_threads() -> Iterator[None]:
    """Keeps the library from starting threads: a process that forks later would warn of them."""
    key = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(key)
    os.environ.setdefault(key, "false")
    try:
        yield
    finally:
        if before is None:
            del os.environ[key]
