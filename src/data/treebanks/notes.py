"""Descriptions of a treebank for people: its tasks, vocabularies and sentences, one line each."""

from typing import TYPE_CHECKING

from src.data.treebanks.labels import list_features
from src.data.treebanks.vocabulary import UNKNOWN
from src.tasks import Classification, is_labelled

if TYPE_CHECKING:
    from src.data.treebanks.sequences import SequenceRows
    from src.data.treebanks.treebank import Treebank


def describe_treebank(treebank: "Treebank") -> list[str]:
    """Returns a line for each task, for the vocabularies, for each note, and for the splits."""
    train = treebank.split("train")
    notes = []
    for name, task in treebank.tasks.items():
        assert isinstance(task, Classification)
        kind = type(task).__name__
        count = f"{len(task.classes)} classes, {describe_labels(train, name)}"
        notes.append(f"task {name}: {kind} ({count})")
    if "feats.*" in treebank.targets:
        _, single = list_features(treebank.text.training_labels("feats"))
        if single:
            notes.append(f"features with one value alone are no tasks: {', '.join(single)}")

    val = treebank.split("val")
    unknown = val.types.tokens[val.words[val.places]] == UNKNOWN
    notes.append(
        f"inputs: {len(treebank.words.words)} words and {len(treebank.characters.characters)} "
        f"characters of the training sentences; {unknown.double().mean():.1%} of the words to "
        "validate are unknown"
    )
    sizes = (len(treebank.split(name)) for name in ("train", "val", "test"))
    counts = "sentences: {} to train, {} to validate, {} to test".format(*sizes)
    return [*notes, *treebank.text.notes, *treebank.remarks, counts]


def describe_labels(rows: "SequenceRows", name: str) -> str:
    """Says how many training words or sentences have a label of a task."""
    if name in rows.sentence_labels:
        known = int(is_labelled(rows.sentence_labels[name]).sum())
        return f"labels of {known} of {len(rows)} sentences"
    labels = rows.labels_of_words(name)
    return f"labels of {int(is_labelled(labels).sum())} of {len(labels)} words"
