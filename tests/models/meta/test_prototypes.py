"""Prototypes against their definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from src.errors import UserError
from src.models.meta import Prototypes
from src.models.meta.prototypes import measure_distances
from src.tasks import BinaryClassification, Ordinal
from tests.models.meta.toy import (
    CLASSES,
    REGRESSION,
    E,
    Q,
    S,
    episodes_of,
    gradients_of,
    make_batch,
    make_model,
    outer_loss,
    weights_of,
)


@settings(max_examples=30, deadline=None)
@given(
    arrays("int64", (2, 6), elements=st.sampled_from([-100, 0, 1, 2])), st.integers(0, 2**32 - 1)
)
def test_distances_are_those_to_the_mean_of_each_class(labels, seed):
    generator = torch.Generator().manual_seed(seed)
    support = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    query = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    found = measure_distances(support, torch.from_numpy(labels), query, 3)
    for e in range(2):
        for c in range(3):
            own = support[e][torch.from_numpy(labels[e]) == c]
            prototype = own.mean(0) if len(own) else torch.zeros(4, dtype=torch.float64)
            expected = ((query[e] - prototype) ** 2).sum(-1)
            torch.testing.assert_close(found[e, :, c], expected)


def test_its_gradient_is_that_by_hand():
    model = make_model(CLASSES, Prototypes, scale=0.5)
    batch = make_batch(CLASSES)
    outer_loss(model, batch).backward()

    weights = weights_of(model)[:2]
    total = 0.0
    count = 0
    for x, y, query, labels in episodes_of(batch):
        z, of_query = (torch.tanh(rows @ weights[0].T + weights[1]) for rows in (x, query))
        logits = []
        for c in range(2):
            own = z[y == c]
            prototype = own.mean(0) if len(own) else torch.zeros(3, dtype=torch.float64)
            logits.append(-0.5 * ((of_query - prototype) ** 2).sum(-1))
        losses = torch.nn.functional.cross_entropy(
            torch.stack(logits, -1), labels, reduction="none"
        )
        total = total + losses.sum()
        count += int((labels >= 0).sum())
    wanted = torch.autograd.grad(total / count, weights)
    for ours, theirs in zip(gradients_of(model), wanted, strict=False):
        torch.testing.assert_close(ours, theirs)
    assert gradients_of(model)[2] is None


def test_a_binary_task_is_one_of_two_classes():
    binary = {"c": BinaryClassification(classes=("no", "yes"))}
    batch = make_batch(CLASSES)
    two = make_model(CLASSES, Prototypes).run(batch)[0].view(E, S + Q, 2)
    batch.extras["label"] = batch.extras["label"].double()
    batch.extras["label"][batch.extras["label"] < 0] = float("nan")
    batch.targets["c"] = batch.extras["label"]
    one = make_model(binary, Prototypes).run(batch)[0].view(E, S + Q, 1)
    torch.testing.assert_close(one[..., 0], two[..., 1] - two[..., 0])


def test_numbers_have_no_classes():
    with pytest.raises(UserError, match="task 'y' is a Regression: use MAML, ANIL or Reptile"):
        Prototypes(REGRESSION)
    with pytest.raises(UserError, match="is a Ordinal"):
        Prototypes({"o": Ordinal(classes=(1, 2, 3))})
