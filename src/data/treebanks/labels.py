"""The labels of a treebank, and the tasks that they make.

Classes are those of the training sentences, and one more, ``(unseen)``, for labels that training
did not have. No training label is of that class, so that a network does not learn to predict it,
and such a label counts as an error.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from src.data.kinds import build_task, parse_declaration
from src.data.tables.targets import make_task_name
from src.data.treebanks.conllu import COLUMNS, Sentences
from src.errors import UserError, suggest_or_list
from src.tasks import MISSING, Classification, SequenceLabelling, Task

UNSEEN = "(unseen)"
FEATURE = "feats."  # begins the name of a target that is one feature
TARGETS = (*COLUMNS, "feats.*", "feats.Number", "ner", "genre")

Labels = Sequence[str | None]


def check_targets(targets: object) -> None:
    """Checks the names of targets before any file is read.

    Raises:
        UserError: They are no list, or a name is not known or stands there twice.
    """
    if isinstance(targets, str) or not isinstance(targets, list | tuple) or not targets:
        raise UserError(f"data.targets is '{targets}', where a list is expected: [upos, feats]")
    for name in targets:
        if name not in TARGETS and not (str(name).startswith(FEATURE) and len(name) > len(FEATURE)):
            hint = suggest_or_list(str(name), TARGETS)
            raise UserError(f"data.targets names '{name}', which no treebank has: {hint}")
        if list(targets).count(name) > 1:
            raise UserError(f"data.targets names '{name}' twice")


def check_genre(pattern: str) -> None:
    """Checks the pattern of genres.

    Raises:
        UserError: It is no regular expression, or has no group.
    """
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise UserError(f"data.genre '{pattern}' is no pattern: {error}") from None
    if groups != 1:
        what = f"{groups} groups" if groups else "no group"
        raise UserError(f"data.genre '{pattern}' has {what}; one is expected, as in ^([a-z]+)-")


def name_tasks(targets: Sequence[str], features: Sequence[str]) -> dict[str, str]:
    """Returns {task: target}, with a task for each feature in place of 'feats.*'."""
    found = {}
    for target in targets:
        every = [f"{FEATURE}{key}" for key in features] if target == "feats.*" else [target]
        for each in every:
            found[make_task_name(each)] = each
    return found


def list_features(bundles: Labels) -> tuple[list[str], list[str]]:
    """Lists the features of words: with several values, and with one value alone.

    Args:
        bundles: The features of each word, such as 'Case=Nom|Number=Sing'.
    """
    values: dict[str, set[str]] = {}
    for bundle in set(bundles):
        for key, value in read_features(bundle or "_").items():
            values.setdefault(key, set()).add(value)
    several = sorted(key for key, known in values.items() if len(known) > 1)
    return several, sorted(set(values) - set(several))


def read_features(bundle: str) -> dict[str, str]:
    """Returns {feature: value} of a word."""
    if bundle == "_":
        return {}
    pairs = (pair.partition("=") for pair in bundle.split("|"))
    return {key: value for key, _, value in pairs}


def read_labels(
    target: str, sentences: Sentences, entities: Sequence[str] | None, genre: str
) -> Labels:
    """Returns the label of each word, or for the genre of each sentence; None where missing.

    Args:
        target: The target.
        sentences: The sentences.
        entities: The entity label of each word, '_' where it is missing; None for none at all.
        genre: A pattern whose group is the genre in a sentence's id.
    """
    if target == "genre":
        found = [re.search(genre, name) for name in sentences.ids]
        return [match[1] if match else None for match in found]
    if target == "ner":
        return replace_missing(entities or ["_"] * len(sentences.forms))
    if target == "feats":
        # no features at all is a bundle, too
        return sentences.columns["feats"]
    if target in COLUMNS:
        return replace_missing(sentences.columns[target])

    bundles = sentences.columns["feats"]
    key = target.removeprefix(FEATURE)
    values = {bundle: read_features(bundle).get(key) for bundle in set(bundles)}
    return [values[bundle] for bundle in bundles]


def replace_missing(labels: Sequence[str]) -> Labels:
    """Returns labels with None for '_'."""
    return [None if label == "_" else label for label in labels]


def make_task(target: str, labels: Labels, given: object) -> Task:
    """Makes the task of a target.

    Args:
        target: The target.
        labels: The labels of the training sentences.
        given: Its kind or settings, as the user gives them.

    Raises:
        UserError: No training sentence has such a label, or the kind does not suit.
    """
    kind, settings = parse_declaration(given)
    kind = kind or (Classification if target == "genre" else SequenceLabelling)
    if not issubclass(kind, Classification):
        raise UserError(f"is set to {kind.__name__}, but its labels are classes")
    if target == "genre":
        settings = {"pooled": True} | settings

    known = sorted({label for label in labels if label is not None})
    if not known:
        raise UserError("has no label in the training sentences")
    if len(known) == 1 and target.startswith(FEATURE):
        raise UserError(f"has the value {known[0]} alone, so that there is nothing to predict")
    if "classes" not in settings:
        settings["classes"] = [*known, UNSEEN]
        if target == "ner":
            settings["classes"] = list_tags(known)
    return build_task(kind, settings)


def list_tags(labels: Sequence[str]) -> list[str]:
    """Returns the classes of entity labels: O, then B-X and I-X of each type."""
    types = sorted({label[2:] for label in labels if label != "O"})
    return ["O", *(f"{prefix}-{name}" for name in [*types, UNSEEN] for prefix in "BI")]


def encode_labels(task: Task, labels: Labels) -> Tensor:
    """Turns labels into positions of classes; one that training did not have is ``UNSEEN``.

    Args:
        task: The task, with its classes.
        labels: N labels, None where missing.

    Returns:
        (N,) int64

    Raises:
        UserError: The classes were given by hand, and a label is none of them.
    """
    assert isinstance(task, Classification)
    places: Mapping[Any, int] = {name: code for code, name in enumerate(task.classes)}
    codes: dict[str | None, int] = {None: MISSING}
    for label in set(labels) - {None}:
        unseen = UNSEEN
        if label not in places and f"B-{UNSEEN}" in places:
            unseen = f"{str(label)[:2]}{UNSEEN}"
        code = places.get(label, places.get(unseen))
        if code is None:
            raise UserError(
                f"has the label '{label}', which is none of its classes; add it, or '{UNSEEN}'"
            )
        codes[label] = code
    return torch.tensor([codes[label] for label in labels], dtype=torch.long)
