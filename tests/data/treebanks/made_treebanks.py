"""A small made treebank, in the form in which public ones come."""

import gzip
import random
from pathlib import Path

# word: UPOS, XPOS, FEATS, DEPREL, entity type
WORDS = {
    "the": ("DET", "DT", "Definite=Def|PronType=Art", "det", ""),
    "A": ("DET", "DT", "Definite=Ind|PronType=Art", "det", ""),
    "dog": ("NOUN", "NN", "Number=Sing", "nsubj", ""),
    "dogs": ("NOUN", "NNS", "Number=Plur", "nsubj", ""),
    "house": ("NOUN", "NN", "Number=Sing", "obj", ""),
    "saw": ("VERB", "VBD", "Number=Sing|Tense=Past", "root", ""),
    "see": ("VERB", "VBP", "Number=Plur|Tense=Pres", "root", ""),
    "Anna": ("PROPN", "NNP", "Number=Sing", "nsubj", "PER"),
    "Bonn": ("PROPN", "NNP", "Number=Sing", "obl", "LOC"),
    "1984": ("NUM", "CD", "NumType=Card", "nummod", ""),
    ".": ("PUNCT", ".", "_", "punct", ""),
    "oh": ("INTJ", "_", "_", "discourse", ""),
}
GENRES = ("blog", "mail", "news")
SIZES = {"train": 60, "dev": 40, "test": 20}


def make_sentences(side: str) -> list[tuple[str, list[str]]]:
    """Returns ids, such as blog-train1-3, and words; each document has four sentences."""
    draw = random.Random(side)
    found = []
    for number in range(SIZES[side]):
        document = f"{GENRES[number // 4 % 3]}-{side}{number // 4}"
        words = draw.choices(list(WORDS), k=1 + number * 7 % 11)
        found.append((f"{document}-{number}", words))
    return found


def as_conllu(sentences: list[tuple[str, list[str]]]) -> str:
    """Writes sentences, each with a token of two words and an empty node."""
    blocks = []
    document = ""
    for name, words in sentences:
        lines = [f"# sent_id = {name}", f"# text = {' '.join(words)}"]
        if name.rpartition("-")[0] != document:
            document = name.rpartition("-")[0]
            lines.insert(0, f"# newdoc id = {document}")
        for place, word in enumerate(words, 1):
            if place == 1:
                lines.append("\t".join(["1-2", "both", *"________"]))
            upos, xpos, feats, deprel, _ = WORDS[word]
            cells = (str(place), word, word, upos, xpos, feats, "0", deprel, "_", "_")
            lines.append("\t".join(cells))
        lines.append("\t".join([f"{len(words)}.1", "left out", *"________"]))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n\n"


def as_iob2(sentences: list[tuple[str, list[str]]]) -> str:
    """Writes the entities of sentences; two neighbours of one type are one entity."""
    blocks = []
    for name, words in sentences:
        lines = [f"# sent_id = {name}"]
        before = ""
        for place, word in enumerate(words, 1):
            kind = WORDS[word][4]
            label = f"{'I' if kind == before else 'B'}-{kind}" if kind else "O"
            before = kind
            lines.append("\t".join((str(place), word, label, "-", "-")))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n\n"


def write_treebank(folder: Path) -> Path:
    """Writes the files of a treebank; entities are there for dev, in another order, and test."""
    folder.mkdir(exist_ok=True, parents=True)
    for side in SIZES:
        sentences = make_sentences(side)
        text = as_conllu(sentences)
        if side == "train":
            (folder / "xx_toy-ud-train.conllu.gz").write_bytes(gzip.compress(text.encode()))
            continue
        (folder / f"xx_toy-ud-{side}.conllu").write_text(text)
        (folder / f"xx_toy-ud-{side}.iob2").write_text(as_iob2(sentences[::-1]))
    return folder
