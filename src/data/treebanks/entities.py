"""Labels of named entities from IOB2 files, joined to the sentences of a treebank by their ids."""

from dataclasses import dataclass, field
from pathlib import Path

from src.data.treebanks.conllu import FORM, Block, OnError, Sentences, read_blocks
from src.errors import UserError

TAG = 2  # the column of the label


@dataclass
class Entities:
    """The entity labels of a file.

    Attributes:
        tags: {sentence id: (words, labels)}.
        mended: Where a label I-X that continues no entity was read as B-X.
        skipped: Why sentences were left out, one line each.
    """

    tags: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)
    mended: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def read_iob2(path: str | Path, on_error: OnError = "refuse") -> Entities:
    """Reads a file with the columns id, word, label, as Universal NER has them.

    Args:
        path: The file, gzipped or not.
        on_error: skip: leaves out a sentence that is not as the format says.

    Raises:
        UserError: The file is missing or holds no sentence, or a line is not as the format says.
    """
    found = Entities()
    for block in read_blocks(path, (3, 5), on_error, found.skipped):
        words = [cells[FORM] for cells in block.words]
        fault, labels = check_labels(path, block, found.mended)
        name = block.comments.get("sent_id", "")
        if not name:
            fault = f"{path} line {block.lines[0]}: begins a sentence without a '# sent_id = ...'"
        elif name in found.tags:
            fault = f"{path} line {block.lines[0]}: the sentence id '{name}' stands there twice"
        if fault and on_error == "refuse":
            raise UserError(f"{fault}; --data.on_error skip leaves such sentences out")
        if fault:
            found.skipped.append(fault)
        else:
            found.tags[name] = (words, labels)
    if not found.tags:
        raise UserError(f"{path}: holds no sentence; an IOB2 file is expected, a word a line")
    return found


def check_labels(path: str | Path, block: Block, mended: list[str]) -> tuple[str, list[str]]:
    """Returns what is wrong with the labels of a sentence, or '', and the labels.

    Args:
        path: The file.
        block: The sentence.
        mended: Gets a line for each label I-X that continues no entity; it becomes B-X.
    """
    labels: list[str] = []
    for cells, line in zip(block.words, block.lines, strict=True):
        label = cells[TAG]
        kind = label[2:]
        if label != "O" and (label[:2] not in ("B-", "I-") or not kind):
            return f"{path} line {line}: has the label '{label}', which is not O, B-X or I-X", []
        if label[:2] == "I-" and (not labels or labels[-1][2:] != kind):
            before = labels[-1] if labels else "nothing"
            mended.append(f"{path} line {line}: {label} follows {before}")
            label = f"B-{kind}"
        labels.append(label)
    return "", labels


def join_entities(sentences: Sentences, entities: Entities) -> tuple[list[str], int, int]:
    """Gives each word of a treebank its entity label, '_' in sentences without labels.

    Args:
        sentences: The treebank.
        entities: The labels.

    Returns:
        The labels of all words, the number of sentences that have them, and the number of
        sentences whose words differ in the two files and so have none.
    """
    labels: list[str] = []
    joined = 0
    different = 0
    for number, name in enumerate(sentences.ids):
        words = sentences.words_of(number)
        theirs, tags = entities.tags.get(name, ([], []))
        if words == theirs:
            joined += 1
            labels += tags
            continue
        different += bool(theirs)
        labels += ["_"] * len(words)
    return labels, joined, different
