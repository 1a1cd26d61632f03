"""Sentences from files with a word a line: CoNLL-U treebanks, and IOB2 files of entities.

The format is at https://universaldependencies.org/format.html. A kept library, conllu 6, takes
five times as long for a treebank, since it builds a dict of each word, and its errors name no line.
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import numpy as np

from src.errors import UserError

OnError = Literal["refuse", "skip"]

# the columns of a CoNLL-U file by number
FORM, UPOS, XPOS, FEATS, DEPREL = 1, 3, 4, 5, 7
COLUMNS = {"upos": UPOS, "xpos": XPOS, "feats": FEATS, "deprel": DEPREL}
NOT_A_WORD = re.compile(r"\d+[-.]\d+")  # a token of several words, or a word that was left out
FEATURES = re.compile(r"[^=|]+=[^=|]+(\|[^=|]+=[^=|]+)*")
NOT_UTF8 = re.compile("[\udc80-\udcff]")


@dataclass(slots=True)
class Block:
    """The lines of one sentence.

    Attributes:
        comments: {key: value} of lines such as '# sent_id = 3'; without a '=' the value is ''.
        words: The cells of each word's line.
        lines: The number of each word's line, from 1.
    """

    comments: dict[str, str] = field(default_factory=dict)
    words: list[list[str]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


@dataclass
class Sentences:
    """The sentences of a file, column by column.

    Attributes:
        ids: The id of each sentence; one without an id has its number, from 1.
        documents: The id of each sentence's document; '' where none is known.
        forms: The words of all sentences, one after the other.
        columns: {upos, xpos, feats or deprel: as many labels}; '_' where a word has none.
        offsets: (N + 1,) The place of each sentence's first word, and the number of words.
        skipped: Why sentences were left out, one line each.
    """

    ids: list[str] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    forms: list[str] = field(default_factory=list)
    columns: dict[str, list[str]] = field(default_factory=dict)
    offsets: np.ndarray = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    skipped: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def words_of(self, sentence: int) -> list[str]:
        """Returns the words of a sentence."""
        return self.forms[self.offsets[sentence] : self.offsets[sentence + 1]]

    def append(self, other: Self) -> None:
        """Adds the sentences of another file behind these."""
        self.ids += other.ids
        self.documents += other.documents
        self.forms += other.forms
        for name, labels in other.columns.items():
            self.columns.setdefault(name, []).extend(labels)
        self.offsets = np.concatenate([self.offsets, other.offsets[1:] + self.offsets[-1]])
        self.skipped += other.skipped


def read_conllu(path: str | Path, on_error: OnError = "refuse") -> Sentences:
    """Reads a CoNLL-U file, gzipped or not, without tokens of several words and empty nodes.

    Args:
        path: The file.
        on_error: skip: leaves out a sentence that is not as the format says.

    Raises:
        UserError: The file is missing or holds no sentence, or a line is not as the format says.
    """
    found = Sentences(columns={name: [] for name in COLUMNS})
    document = ""
    lengths = []
    for block in read_blocks(path, (10, 10), on_error, found.skipped):
        document = block.comments.get("newdoc id", document)
        found.ids.append(block.comments.get("sent_id") or str(len(found.ids) + 1))
        found.documents.append(document)
        found.forms += [cells[FORM] for cells in block.words]
        for name, number in COLUMNS.items():
            found.columns[name] += [cells[number] for cells in block.words]
        lengths.append(len(block.words))
    if not lengths:
        raise UserError(f"{path}: holds no sentence; a CoNLL-U file is expected, a word a line")
    found.offsets = np.cumsum([0, *lengths])
    return found


def read_plain_text(path: str | Path) -> Sentences:
    """Reads a text file with a sentence a line and spaces between words; no word has a label."""
    found = Sentences()
    lengths = []
    for number, line in enumerate(read_lines(path), 1):
        if NOT_UTF8.search(line):
            raise UserError(f"{path} line {number}: is no UTF-8 text")
        words = line.split()
        if not words:
            continue
        found.ids.append(str(number))
        found.documents.append("")
        found.forms += words
        lengths.append(len(words))
    found.columns = {name: ["_"] * len(found.forms) for name in COLUMNS}
    found.offsets = np.cumsum([0, *lengths])
    return found


def read_blocks(
    path: str | Path, widths: tuple[int, int], on_error: OnError, skipped: list[str]
) -> Iterator[Block]:
    """Yields the sentences of a file; a blank line ends each.

    Args:
        path: The file.
        widths: The least and the largest number of columns.
        on_error: skip: leaves out a sentence that is not as the format says.
        skipped: Gets a line for each sentence that was left out.

    Raises:
        UserError: The file cannot be read, or a line is not as the format says.
    """
    block = Block()
    broken = ""
    lines = read_lines(path)
    lines.append("")
    for number, line in enumerate(lines, 1):
        if line.strip():
            # of a broken sentence the first fault is told
            fault = broken or add_line(block, line, number, widths)
            if fault and not broken:
                broken = f"{path} line {number}: {fault}"
                if on_error == "refuse":
                    raise UserError(f"{broken}; --data.on_error skip leaves such sentences out")
            continue

        if broken:
            skipped.append(broken)
        elif block.words:
            yield block
        if broken or block.words:
            block = Block()
        broken = ""


def add_line(block: Block, line: str, number: int, widths: tuple[int, int]) -> str:
    """Adds a line to a sentence; returns what is wrong with it, or ''."""
    if NOT_UTF8.search(line):
        return "is no UTF-8 text"
    if line[0] == "#":
        if block.words:
            return "is a comment within a sentence; a blank line must stand between sentences"
        key, _, value = line[1:].partition("=")
        block.comments[key.strip()] = value.strip()
        return ""

    cells = line.split("\t")
    least, most = widths
    if not least <= len(cells) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        return f"has {len(cells)} columns, where {wanted} with tabs between them are expected"
    name = cells[0]
    due = len(block.words) + 1
    if name != str(due):
        if NOT_A_WORD.fullmatch(name):
            return ""
        if name == "1":
            return "begins a sentence; a blank line must stand between sentences"
        return f"has the id '{name}', where word {due} of the sentence is due"
    if not cells[FORM].strip():
        return "has no word in its second column"
    if most > FEATS and cells[FEATS] != "_" and not FEATURES.fullmatch(cells[FEATS]):
        return f"has the features '{cells[FEATS]}', which are no list such as Case=Nom|Number=Sing"
    block.words.append(cells)
    block.lines.append(number)
    return ""


def read_lines(path: str | Path) -> list[str]:
    """Returns the lines of a text file, gzipped or not; bytes that are no UTF-8 are surrogates.

    Raises:
        UserError: It cannot be read, or is empty.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if not content.strip():
        raise UserError(f"{path}: is empty")
    text = content.decode("utf-8-sig", errors="surrogateescape")

    # splitlines would also split at other marks, which may stand within a word
    return [line.removesuffix("\r") for line in text.split("\n")]
