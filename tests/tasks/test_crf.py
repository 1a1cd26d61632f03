"""A linear-chain CRF against the enumeration of all paths, in float64."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.tasks import MISSING
from src.tasks.crf import (
    FAR,
    CrfHead,
    compute_pair_marginals,
    crf_losses,
    fill_padding,
    find_best_paths,
    make_identity,
    mix_chains,
    unpack,
)

CASES = {
    "seed": st.integers(0, 2**31),
    "tokens": st.integers(1, 5),
    "classes": st.integers(1, 4),
}


def draw_psi(seed, tokens, classes, sentences=3, scale=3.0):
    """Log potentials as a head makes them: those of the first token do not know a class before."""
    draw = torch.Generator().manual_seed(seed)
    shape = (sentences, tokens, classes, classes)
    psi = scale * torch.randn(shape, generator=draw, dtype=torch.float64)
    psi[:, 0] = psi[:, 0, :1]
    return psi


def draw_labels(seed, psi, missing=0.3):
    draw = torch.Generator().manual_seed(seed + 1)
    shape = psi.shape[:2]
    labels = torch.randint(psi.shape[-1], shape, generator=draw)
    labels[torch.rand(shape, generator=draw) < missing] = MISSING
    return labels


def weigh_paths(psi):
    """All paths (P, S), and their log weights (B, P): the definition."""
    sentences, tokens, classes, _ = psi.shape
    paths = torch.tensor(list(itertools.product(range(classes), repeat=tokens)))
    weights = torch.zeros(sentences, len(paths), dtype=psi.dtype)
    for s in range(tokens):
        before = paths[:, s - 1] if s else torch.zeros_like(paths[:, 0])
        weights = weights + psi[:, s, before, paths[:, s]]
    return paths, weights


def reference_loss(psi, labels):
    """-log of the share of the paths that agree with the labels (B,)."""
    paths, weights = weigh_paths(psi)
    agrees = ((paths == labels[:, None]) | (labels[:, None] == MISSING)).all(-1)
    return weights.logsumexp(-1) - weights.masked_fill(~agrees, -math.inf).logsumexp(-1)


@settings(deadline=None, max_examples=20)
@given(**CASES)
def test_losses_and_gradients_against_all_paths(seed, tokens, classes):
    psi = draw_psi(seed, tokens, classes).requires_grad_()
    labels = draw_labels(seed, psi)
    losses = crf_losses(psi, labels)
    wanted = reference_loss(psi, labels)
    known = labels != MISSING
    counted = known.any(1)
    torch.testing.assert_close(losses.sum(1)[counted], wanted[counted])
    # evenly over the labelled tokens
    assert losses[~known].abs().sum() == 0
    for row, mask in zip(losses, known, strict=True):
        torch.testing.assert_close(row[mask], row[mask].mean().expand(int(mask.sum())))

    (gradient,) = torch.autograd.grad(losses.sum(), psi)
    (expected,) = torch.autograd.grad(wanted[counted].sum(), psi, materialize_grads=True)
    torch.testing.assert_close(gradient, expected)


def test_gradcheck():
    psi = draw_psi(0, 4, 3).requires_grad_()
    labels = torch.tensor([[0, 1, 2, 1], [0, MISSING, 2, MISSING], [MISSING, MISSING, 1, 0]])
    assert torch.autograd.gradcheck(lambda x: crf_losses(x, labels), psi)


@settings(deadline=None, max_examples=20)
@given(**CASES)
def test_paths_and_marginals_against_all_paths(seed, tokens, classes):
    psi = draw_psi(seed, tokens, classes)
    paths, weights = weigh_paths(psi)
    torch.testing.assert_close(find_best_paths(psi), paths[weights.argmax(-1)])

    marginals = compute_pair_marginals(psi)
    p = weights.softmax(-1)
    for s in range(tokens):
        before = paths[:, s - 1] if s else torch.zeros_like(paths[:, 0])
        for i in range(classes):
            for j in range(classes):
                passes = (before == i) & (paths[:, s] == j)
                torch.testing.assert_close(marginals[:, s, i, j], p[:, passes].sum(-1))


@settings(deadline=None, max_examples=20)
@given(**CASES, length=st.integers(1, 5))
def test_padding_changes_nothing(seed, tokens, classes, length):
    """At the end of a sentence, and in front of it."""
    psi = draw_psi(seed, tokens, classes)
    labels = draw_labels(seed, psi)
    padding = make_identity(psi).expand(3, length, -1, -1)
    none = torch.full((3, length), MISSING)
    losses = crf_losses(psi, labels)
    behind = torch.cat([psi, padding], 1)
    torch.testing.assert_close(
        crf_losses(behind, torch.cat([labels, none], 1))[:, :tokens], losses, rtol=1e-12, atol=1e-12
    )
    torch.testing.assert_close(
        crf_losses(torch.cat([padding, psi], 1), torch.cat([none, labels], 1))[:, length:],
        losses,
        rtol=1e-12,
        atol=1e-12,
    )
    assert (find_best_paths(behind)[:, :tokens] == find_best_paths(psi)).all()
    hidden = torch.cat([psi, torch.full_like(padding, torch.nan)], 1)
    torch.testing.assert_close(fill_padding(hidden), behind)


def test_a_sentence_of_padding_has_no_loss_and_no_gradient():
    psi = make_identity(torch.zeros(1, 3, 3)).expand(1, 4, 3, 3).clone().requires_grad_()
    losses = crf_losses(psi, torch.full((1, 4), MISSING))
    losses.sum().backward()
    assert losses.tolist() == [[0.0] * 4]
    assert psi.grad.abs().sum() == 0


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_long_sentences_have_finite_gradients_in_fp32(scale):
    exact = draw_psi(3, 160, 5, scale=scale).requires_grad_()
    labels = draw_labels(3, exact, missing=0.1)
    crf_losses(exact, labels).sum().backward()
    psi = exact.detach().float().requires_grad_()
    losses = crf_losses(psi, labels)
    losses.sum().backward()
    torch.testing.assert_close(losses.double(), crf_losses(exact, labels), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(psi.grad.double(), exact.grad, rtol=0, atol=1e-4)


def test_head():
    torch.manual_seed(0)
    head = CrfHead(4, 3).double()
    with torch.no_grad():
        head.starts.copy_(torch.tensor([1.0, 2, 3]))
        head.transitions.copy_(torch.arange(9.0).view(3, 3))
    features = torch.randn(2, 5, 4, dtype=torch.float64)
    features[1, 3:] = 0
    features[0, 0] = 0
    psi = unpack(head(features))
    emissions = head[0](features)
    for row, s in ((0, 2), (0, 3), (1, 1), (1, 2)):
        wanted = head.transitions + emissions[row, s]
        torch.testing.assert_close(psi[row, s], wanted)
    # the first real token, behind padding or not
    for row, s in ((0, 1), (1, 0)):
        torch.testing.assert_close(psi[row, s], (head.starts + emissions[row, s]).expand(3, 3))
    for row, s in ((0, 0), (1, 3), (1, 4)):
        assert psi[row, s].tolist() == [[0, FAR, FAR], [FAR, 0, FAR], [FAR, FAR, 0]]


def test_without_transitions_it_is_a_softmax_per_token():
    torch.manual_seed(0)
    head = CrfHead(4, 3).double()
    features = torch.randn(2, 5, 4, dtype=torch.float64)
    labels = torch.randint(3, (2, 5))
    losses = crf_losses(unpack(head(features)), labels).sum(1)
    wanted = -head[0](features).log_softmax(-1).gather(-1, labels[..., None]).sum((1, 2))
    torch.testing.assert_close(losses, wanted)


def test_head_sums_in_fp32():
    head = CrfHead(4, 3).bfloat16()
    assert head(torch.randn(2, 5, 4).bfloat16()).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert CrfHead(4, 3)(torch.randn(2, 5, 4)).dtype == torch.float32


@settings(deadline=None, max_examples=20)
@given(**CASES)
def test_the_mean_of_chains_has_the_mean_of_their_marginals(seed, tokens, classes):
    psi_M = torch.stack([draw_psi(seed + k, tokens, classes) for k in range(3)])
    psi_M[:, 1, -1] = make_identity(psi_M)  # a shorter sentence
    mixed = mix_chains(psi_M)
    wanted = torch.stack([compute_pair_marginals(psi) for psi in psi_M]).mean(0)
    torch.testing.assert_close(compute_pair_marginals(mixed), wanted)
    # probabilities as they are: the sum over all paths is 1
    torch.testing.assert_close(weigh_paths(mixed)[1].exp().sum(1), torch.ones(3).double())
    alone = mix_chains(psi_M[:1])
    labels = draw_labels(seed, psi_M[0], missing=0)
    labels[1, -1] = MISSING
    torch.testing.assert_close(crf_losses(alone, labels), crf_losses(psi_M[0], labels))
