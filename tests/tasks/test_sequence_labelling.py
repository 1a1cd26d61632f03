"""A class for each token: what follows from the classes, metrics, predictions, ensembles."""

import math

import numpy as np
import pytest
import torch
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2

from src.errors import UserError
from src.tasks import MISSING, BadLabel, Classification, SequenceLabelling
from src.tasks.crf import CrfHead, compute_pair_marginals, make_identity, unpack
from src.tasks.head import Head

TAGS = ("B-P", "B-Q", "I-P", "I-Q", "O")
WORDS = SequenceLabelling(classes=("a", "b", "c"))
SPANS = SequenceLabelling(classes=TAGS)
FIELD = SequenceLabelling(classes=TAGS, crf=True)


def as_values(*labels):
    return np.array(labels, dtype=object)


def draw_batch(task, sentences=6, tokens=5, seed=0):
    """Outputs and labels; the last tokens of odd sentences are padding."""
    torch.manual_seed(seed)
    labels = torch.randint(len(task.classes), (sentences, tokens))
    labels[torch.rand(labels.shape) < 0.2] = MISSING
    outputs = 2 * torch.randn(sentences, tokens, task.out_features)
    labels[1::2, -2:] = MISSING
    if task.crf:
        outputs[1::2, -2:] = make_identity(unpack(outputs)).flatten()
    return outputs, labels


def hide(outputs):
    """Outputs as predictions have them."""
    hidden = outputs.clone()
    hidden[1::2, -2:] = math.nan
    return hidden


# -- what follows from the classes -----------------------------------------------------------------
def test_labels():
    fitted = SequenceLabelling(depth=1).fit(as_values("NOUN", None, "ADJ", "NOUN"), ["upos"])
    assert fitted.classes == ("ADJ", "NOUN")
    assert (fitted.scheme, fitted.monitor, fitted.depth) == (None, "accuracy", 1)
    assert fitted.metric_names == Classification.metric_names
    assert fitted.encode(as_values("ADJ", None)).tolist() == [0, MISSING]
    with pytest.raises(BadLabel, match="holds the class 'X'"):
        fitted.encode(as_values("ADJ", "X"))


def test_tags_make_spans():
    fitted = SequenceLabelling().fit(as_values("O", "B-P", None, "I-P"), ["ner"])
    assert (fitted.scheme, fitted.monitor) == ("IOB2-strict", "span_f1_iob2_strict")
    assert fitted.describe_score() == "F1 of spans (IOB2-strict)"
    other = SequenceLabelling(scheme="conlleval").fit(as_values("O", "B-P"), ["ner"])
    assert other.monitor == "span_f1_conlleval"
    assert other.describe_score() == "F1 of spans (conlleval)"
    by_hand = SequenceLabelling(monitor="accuracy").fit(as_values("O", "B-P"), ["ner"])
    assert by_hand.monitor == "accuracy"
    assert by_hand.describe_score() == "accuracy"
    named = SequenceLabelling(monitor="span_recall_iob2_strict").fit(as_values("O", "B-P"), ["n"])
    assert named.monitor == "span_recall_iob2_strict"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"scheme": "IOB1"}, "scheme 'IOB1' is none of IOB2-strict, conlleval"),
        ({"classes": ("B-P", "X"), "scheme": "conlleval"}, "class 'X'"),
        ({"classes": ("a", "b"), "monitor": "span_f1_conlleval"}, "monitor 'span_f1_conlleval' is"),
        ({"monitor": "span_f1"}, "monitor 'span_f1' is none of"),
        ({"pooled": True}, "use Classification for the label of a sentence"),
        ({"crf": True, "label_smoothing": 0.1}, "label_smoothing is of the loss of single tokens"),
        ({"crf": True, "class_weights": (1.0, 2.0)}, "class_weights is of the loss of single"),
    ],
)
def test_bad_settings(settings, says):
    with pytest.raises(UserError, match=says):
        SequenceLabelling(**settings)


def test_heads_and_keys():
    assert type(SPANS.head(4)) is Head
    assert type(FIELD.head(4)) is CrfHead
    assert FIELD.head(4)(torch.randn(2, 3, 4)).shape == (2, 3, FIELD.out_features)
    # three classes are three classes, whatever their names and spans
    assert SequenceLabelling(classes=(0, 1, 2), weight=3.0).loss_key() == WORDS.loss_key()
    tags = SequenceLabelling(classes=("B-P", "I-P", "O"))
    assert tags.loss_key() == WORDS.loss_key()
    assert SequenceLabelling(classes=("a", "b", "c"), depth=1).loss_key() != WORDS.loss_key()


def test_losses_without_crf_are_those_of_a_classification():
    outputs, labels = draw_batch(SPANS)
    ordinary = Classification(classes=TAGS)
    torch.testing.assert_close(SPANS.losses(outputs, labels), ordinary.losses(outputs, labels))


# -- metrics ---------------------------------------------------------------------------------------
def measure(task, outputs, labels, weights=None):
    metrics = task.assemble_metrics()
    for rows in torch.arange(len(labels)).split(2):
        own = None if weights is None else weights[rows]
        task.update_metrics(metrics, outputs[rows], labels[rows], own)
    return {name: value.item() for name, value in task.compute(metrics).items()}


@pytest.mark.parametrize("task", [SPANS, FIELD], ids=["tokens", "crf"])
def test_metrics(task):
    outputs, labels = draw_batch(task, sentences=40)
    values = measure(task, outputs, labels)
    known = labels != MISSING
    predicted = task.predict(outputs)
    accuracy = (predicted == labels)[known].double().mean()
    assert values["accuracy"] == pytest.approx(accuracy.item())
    texts = []
    for positions in (labels, predicted):
        rows = [row[mask].tolist() for row, mask in zip(positions, known, strict=True)]
        texts.append([[TAGS[k] for k in row] for row in rows])
    f1 = f1_score(*texts, mode="strict", scheme=IOB2)
    assert 0 < f1 < 1
    assert values["span_f1_iob2_strict"] == pytest.approx(f1)
    assert task.score(values) == values["span_f1_iob2_strict"]
    # weights of 1 change nothing, and a sentence of weight 2 counts as two
    assert measure(task, outputs, labels, torch.ones(40)) == pytest.approx(values)
    doubled = measure(task, outputs, labels, 1.0 + (torch.arange(40) < 10))
    rows = [*range(40), *range(10)]
    assert doubled == pytest.approx(measure(task, outputs[rows], labels[rows]))


def test_without_labels_or_spans_there_is_no_value():
    outputs, labels = draw_batch(SPANS)
    assert all(map(math.isnan, measure(SPANS, outputs, torch.full_like(labels, MISSING)).values()))
    outside = torch.full_like(labels, TAGS.index("O"))
    sure = torch.nn.functional.one_hot(outside, len(TAGS)).float()
    values = measure(SPANS, sure, outside)
    assert values["accuracy"] == 1
    assert math.isnan(values["span_f1_iob2_strict"])


def test_added_metrics_see_tokens():
    task = SequenceLabelling(classes=TAGS, metrics=("CohenKappa", "AUROC"))
    assert -1 <= measure(task, *draw_batch(task))["CohenKappa"] <= 1
    field = SequenceLabelling(classes=TAGS, crf=True, metrics=("CohenKappa",))
    assert -1 <= measure(field, *draw_batch(field))["CohenKappa"] <= 1


@pytest.mark.parametrize("task", [SPANS, FIELD], ids=["tokens", "crf"])
def test_to_a_reference_each_token_is_a_row(task):
    """The constant with the most frequent class, O: it finds no span."""
    labels = torch.tensor([4, 0, 4, MISSING, 1, 4, 4])
    outputs = torch.zeros(7, task.out_features)
    outputs[:, TAGS.index("O")] = 1.0
    loss = task.losses(outputs, labels)
    log_p = torch.eye(len(TAGS))[4].log_softmax(-1)
    torch.testing.assert_close(loss, -log_p[labels.clamp(min=0)] * (labels != MISSING))
    values = measure(task, outputs, labels)
    assert values["accuracy"] == pytest.approx(4 / 6)
    assert values["span_f1_iob2_strict"] == values["span_recall_iob2_strict"] == 0
    assert math.isnan(values["span_precision_iob2_strict"])


# -- predictions -----------------------------------------------------------------------------------
@pytest.mark.parametrize("task", [SPANS, FIELD], ids=["tokens", "crf"])
def test_a_sentence_is_decoded_as_one_text(task):
    outputs, _ = draw_batch(task)
    texts = task.decode(hide(outputs))[""]
    predicted = task.predict(outputs)
    for k, (text, positions) in enumerate(zip(texts, predicted.tolist(), strict=True)):
        kept = positions[:3] if k % 2 else positions
        assert text == " ".join(TAGS[p] for p in kept)
    labels = torch.tensor([[4, 0, MISSING], [MISSING] * 3, [2, MISSING, 4]])
    assert task.decode_targets(labels)[""] == ["O B-P", None, "I-P O"]


def test_a_crf_weighs_transitions():
    """I-P behind O cannot be, however much its emission is liked."""
    psi = torch.zeros(1, 3, 5, 5)
    psi[..., TAGS.index("I-P")] = 2.0
    psi[:, 0, :, TAGS.index("O")] = 3.0
    psi[:, 1:, TAGS.index("O"), TAGS.index("I-P")] = -9.0
    psi[:, 1:, TAGS.index("O"), TAGS.index("O")] = 0.5
    psi[:, 1:, TAGS.index("O"), TAGS.index("B-P")] = 1.0
    assert FIELD.decode(psi.flatten(-2))[""] == ["O B-P I-P"]


def test_hidden_padding_has_no_loss_and_a_fault_is_seen():
    outputs, labels = draw_batch(FIELD)
    torch.testing.assert_close(FIELD.losses(hide(outputs), labels), FIELD.losses(outputs, labels))
    broken = outputs.clone()
    broken[0, 0] = math.nan
    labels[0, 0] = 0
    assert FIELD.losses(broken, labels)[0, 0].isnan()
    training = hide(outputs).requires_grad_()
    assert FIELD.losses(training, labels).isnan().any()


# -- ensembles -------------------------------------------------------------------------------------
def probabilities(task, outputs):
    if not task.crf:
        return outputs.double().softmax(-1)
    return compute_pair_marginals(unpack(outputs.double())).sum(-2)


@pytest.mark.parametrize("task", [SPANS, FIELD], ids=["tokens", "crf"])
def test_ensembles_average_probabilities(task):
    outputs_M = torch.stack([draw_batch(task, seed=seed)[0] for seed in range(3)])
    hidden_M = torch.stack([hide(outputs) for outputs in outputs_M])
    averaged = task.average(hidden_M)
    assert averaged[1::2, -2:].isnan().all()
    p_M = torch.stack([probabilities(task, outputs) for outputs in outputs_M])
    plain = task.average(outputs_M)
    torch.testing.assert_close(probabilities(task, plain)[::2], p_M.mean(0)[::2])
    torch.testing.assert_close(probabilities(task, plain)[1::2, :3], p_M.mean(0)[1::2, :3])
    assert task.decode(averaged) == task.decode(hide(plain))

    spread = task.measure_spread(hidden_M, averaged)["spread"]
    chosen = task.predict(plain)[None, ..., None].expand(3, -1, -1, 1)
    of_tokens = p_M.gather(-1, chosen).squeeze(-1).std(0, correction=0)
    for k, value in enumerate(spread):
        tokens = 3 if k % 2 else 5
        assert value == pytest.approx(of_tokens[k, :tokens].mean().item(), rel=1e-6)


@pytest.mark.parametrize("task", [SPANS, FIELD], ids=["tokens", "crf"])
def test_networks_that_agree_keep_their_outputs(task):
    outputs = hide(draw_batch(task)[0])
    assert torch.equal(
        task.average(torch.stack([outputs] * 2)).nan_to_num(7), outputs.nan_to_num(7)
    )
    # in a field the outputs of a sentence belong together
    other = outputs.clone()
    other[0, 0] += 1.0 + torch.arange(task.out_features)
    averaged = task.average(torch.stack([outputs, other]))
    assert torch.equal(averaged[2], outputs[2])
    assert torch.equal(averaged[0, 1], outputs[0, 1]) == (not task.crf)
