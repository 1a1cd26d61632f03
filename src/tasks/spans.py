"""Spans in tagged sentences: entities as runs of B-X, I-X and O."""

import re
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from src.tasks.labels import Label, is_labelled
from src.tasks.metric_classes import TaskMetric

Scheme = Literal["IOB2-strict", "conlleval"]

SCHEMES: tuple[Scheme, ...] = ("IOB2-strict", "conlleval")
OUTSIDE, BEGINS, GOES_ON = 0, 1, 2

_TAG = re.compile(r"(?P<outside>O)|(?P<prefix>[BI])(-(?P<type>.+))?")


def find_bad_tag(classes: Sequence[Label]) -> Label | None:
    """Returns the first class that is none of O, B-X and I-X; None where all are."""
    for label in classes:
        if not (isinstance(label, str) and _TAG.fullmatch(label)):
            return label
    return None


def look_like_tags(classes: Sequence[Label]) -> bool:
    """Returns whether all classes are O, B-X or I-X, and one of them is B-X."""
    return find_bad_tag(classes) is None and any(str(c).startswith("B-") for c in classes)


def read_tags(classes: Sequence[Label]) -> tuple[list[int], list[int]]:
    """Returns for each class whether it is outside, begins a span or goes on, and its type.

    Types are numbers from 0; that of O is -1.
    """
    roles = []
    types: dict[str | None, int] = {}
    numbers = []
    for label in classes:
        found = _TAG.fullmatch(str(label))
        assert found is not None
        if found["outside"]:
            roles.append(OUTSIDE)
            numbers.append(-1)
            continue
        roles.append(BEGINS if found["prefix"] == "B" else GOES_ON)
        numbers.append(types.setdefault(found["type"], len(types)))
    return roles, numbers


def find_spans(roles: Tensor, types: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """Finds the spans of sentences.

    A span goes on as long as I-X follows B-X or I-X of its type. In IOB2-strict it begins at B-X
    alone, and an I-X that follows nothing of its type is in no span. In conlleval it begins there,
    too.

    Args:
        roles: (B, S) ``OUTSIDE``, ``BEGINS`` or ``GOES_ON``.
        types: (B, S) types, -1 outside.
        scheme: The definition.

    Returns:
        Where a span begins (B, S), bool, and the position behind the last one of a span that
        begins there (B, S).
    """
    length = roles.shape[-1]
    follows = torch.zeros_like(roles, dtype=torch.bool)
    follows[:, 1:] = (roles[:, 1:] == GOES_ON) & (types[:, 1:] == types[:, :-1])

    # an I-X that goes on from an I-X that is in no span is in none itself
    begins = roles == BEGINS
    if scheme == "conlleval":
        begins = (roles != OUTSIDE) & ~follows

    # the nearest position to the right at which nothing goes on
    places = torch.arange(length, device=roles.device).expand_as(roles)
    stops = places.masked_fill(follows, length)
    behind = torch.full_like(stops[:, :1], length)
    stops = torch.cat([stops[:, 1:], behind], 1)
    ends = stops.flip(-1).cummin(-1).values.flip(-1)
    return begins, ends


def move_labelled_first(predicted: Tensor, gold: Tensor) -> tuple[Tensor, Tensor]:
    """Moves the tokens without label behind the others, whose order stays; both (B, S)."""
    order = (~is_labelled(gold)).byte().argsort(dim=-1, stable=True)
    return predicted.gather(-1, order), gold.gather(-1, order)


class SpanCounts(TaskMetric):
    """Counts gold spans, predicted spans and correct ones: alike in begin, end and type.

    Tokens without label are left out before spans are read, as though they were not there. So the
    pieces of a word, where its first piece alone has a label, do not cut a span.

    Args:
        classes: O, B-X and I-X, in the order of the positions.
        scheme: The definition of a span.
    """

    spans: Tensor
    roles: Tensor
    types: Tensor

    def __init__(self, classes: Sequence[Label], scheme: Scheme) -> None:
        super().__init__()
        self.scheme = scheme
        roles, types = read_tags(classes)
        # one entry more, for tokens without label
        self.register_buffer("roles", torch.tensor([*roles, OUTSIDE]), persistent=False)
        self.register_buffer("types", torch.tensor([*types, -1]), persistent=False)
        self.add_state("spans", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self, predicted_tags: Tensor, gold_tags: Tensor, sentence_weights: Tensor | None = None
    ) -> None:
        """Adds sentences.

        Args:
            predicted_tags: (B, S) class positions.
            gold_tags: (B, S) class positions, -100 where missing.
            sentence_weights: (B,) What each span of a sentence counts; None: 1.
        """
        predicted, gold = move_labelled_first(predicted_tags, gold_tags)
        known = is_labelled(gold)
        outside = len(self.roles) - 1
        found = []
        for positions in (gold, predicted):
            tags = positions.where(known, outside)
            found.append((*find_spans(self.roles[tags], self.types[tags], self.scheme), tags))

        (begins, ends, tags), (predicted_begins, predicted_ends, predicted_tags) = found
        same_type = self.types[tags] == self.types[predicted_tags]
        correct = begins & predicted_begins & (ends == predicted_ends) & same_type
        counts_3B = torch.stack([begins, predicted_begins, correct]).sum(-1).double()
        if sentence_weights is not None:
            counts_3B *= sentence_weights
        self.spans += counts_3B.sum(-1)

    def compute(self) -> Tensor:
        """Returns the numbers of gold, predicted and correct spans over all batches and ranks."""
        return self.spans


def compute_span_metrics(counts: Tensor) -> dict[str, Tensor]:
    """Computes precision, recall and F1 = 2 correct / (gold + predicted) of spans.

    Args:
        counts: The numbers of gold, predicted and correct spans.

    Returns:
        NaN for a ratio with nothing below the line.
    """
    gold, predicted, correct = counts.unbind()
    return {
        "precision": correct / predicted,
        "recall": correct / gold,
        "f1": 2 * correct / (gold + predicted),
    }
