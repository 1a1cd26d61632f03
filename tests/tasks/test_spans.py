"""Metrics of spans against seqeval, in both definitions."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, Tokens

from src.tasks import MISSING
from src.tasks.spans import SpanCounts, compute_span_metrics, find_bad_tag, look_like_tags

TAGS = ("B-P", "B-Q", "I-P", "I-Q", "O")
SENTENCES = st.lists(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans()), max_size=7),
    min_size=1,
    max_size=4,
)


def as_tensors(sentences):
    """Gold and predicted positions, padded; a token may lack its label."""
    length = max(map(len, sentences), default=0) + 1
    gold = torch.full((len(sentences), length), MISSING)
    predicted = torch.randint(5, gold.shape)
    for k, sentence in enumerate(sentences):
        for s, (label, guess, is_missing) in enumerate(sentence):
            gold[k, s] = MISSING if is_missing else label
            predicted[k, s] = guess
    return gold, predicted


def as_texts(gold, predicted):
    """What seqeval is given: the tags of the tokens that have a label."""
    pairs = []
    for labels, guesses in zip(gold, predicted, strict=True):
        known = labels != MISSING
        pairs.append([[TAGS[k] for k in row[known].tolist()] for row in (labels, guesses)])
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def count(scheme, gold, predicted):
    metric = SpanCounts(TAGS, scheme)
    # in two batches
    metric.update(predicted[:1], gold[:1])
    metric.update(predicted[1:], gold[1:])
    return metric.compute()


def entities(scheme, texts):
    """Spans as seqeval reads them."""
    found = set()
    for k, tags in enumerate(texts):
        if scheme == "conlleval":
            found |= {(k, *entity) for entity in get_entities(tags)}
        else:
            spans = Tokens(tags, IOB2).entities if tags else []
            found |= {(k, e.tag, e.start, e.end) for e in spans}
    return found


@settings(deadline=None, max_examples=50)
@given(sentences=SENTENCES)
@pytest.mark.parametrize("scheme", ["IOB2-strict", "conlleval"])
def test_against_seqeval(scheme, sentences):
    gold, predicted = as_tensors(sentences)
    texts, guesses = as_texts(gold, predicted)
    counts = count(scheme, gold, predicted)
    ours, theirs = entities(scheme, texts), entities(scheme, guesses)
    assert counts.tolist() == [len(ours), len(theirs), len(ours & theirs)]

    values = compute_span_metrics(counts)
    mode = {} if scheme == "conlleval" else {"mode": "strict", "scheme": IOB2}
    references = {"precision": precision_score, "recall": recall_score, "f1": f1_score}
    defined = {"precision": theirs, "recall": ours, "f1": ours | theirs}
    for name, reference in references.items():
        if not defined[name]:
            # seqeval warns, and says 0
            assert math.isnan(values[name])
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wanted = reference(texts, guesses, **mode)
        assert values[name].item() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(("scheme", "f1"), [("IOB2-strict", 0.0), ("conlleval", 1.0)])
def test_the_definitions_differ(scheme, f1):
    gold = torch.tensor([[TAGS.index("B-P"), TAGS.index("I-P")]])
    predicted = torch.tensor([[TAGS.index("I-P"), TAGS.index("I-P")]])
    assert compute_span_metrics(count(scheme, gold, predicted))["f1"] == f1


def test_pieces_without_label_do_not_cut_a_span():
    """The first piece of each word alone has a label; the others may be predicted as anything."""
    b, i, o = (TAGS.index(tag) for tag in ("B-P", "I-P", "O"))
    gold = torch.tensor([[b, MISSING, i, o, MISSING]])
    predicted = torch.tensor([[b, o, i, o, b]])
    assert count("IOB2-strict", gold, predicted).tolist() == [1, 1, 1]


def test_weights_of_sentences():
    gold = torch.tensor([[0, 2, 0], [0, 4, 1]])
    predicted = torch.tensor([[0, 2, 4], [0, 0, 1]])
    metric = SpanCounts(TAGS, "IOB2-strict")
    metric.update(predicted, gold, torch.tensor([0.5, 3.0]))
    assert metric.compute().tolist() == [0.5 * 2 + 3 * 2, 0.5 + 3 * 3, 0.5 + 3 * 2]


def test_tags():
    assert look_like_tags(TAGS)
    assert look_like_tags(("B-X-Y", "O"))
    assert not look_like_tags(("I-P", "O"))
    assert not look_like_tags(("B-P", "NOUN", "O"))
    assert not look_like_tags((0, 1))
    assert find_bad_tag(TAGS) is None
    assert find_bad_tag(("B", "I", "O")) is None
    assert find_bad_tag(("B-P", "E-P")) == "E-P"
