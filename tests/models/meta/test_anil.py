"""ANIL against autograd by hand, in float64."""

import pytest
import torch

from src.models.meta import ANIL
from tests.models.meta.toy import (
    REGRESSION,
    episodes_of,
    gradients_of,
    make_batch,
    make_model,
    outer_loss,
    predict,
    squared_error,
    weights_of,
)

RATE = 0.3


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("batched", [True, False])
def test_the_head_alone_adapts(first_order, batched):
    model = make_model(
        REGRESSION, ANIL, inner_lr=RATE, inner_steps=2, first_order=first_order, batched=batched
    )
    batch = make_batch(REGRESSION)
    outer_loss(model, batch).backward()

    weights = weights_of(model)
    total = 0.0
    count = 0
    for x, y, query, labels in episodes_of(batch):
        W, b, *head = weights
        for _ in range(2):
            loss = squared_error([W, b, *head], x, y)
            gradients = torch.autograd.grad(loss, head, create_graph=True)
            if first_order:
                gradients = [gradient.detach() for gradient in gradients]
            head = [w - RATE * g for w, g in zip(head, gradients, strict=True)]
        known = ~labels.isnan()
        total = total + ((predict([W, b, *head], query)[:, 0] - labels)[known] ** 2).sum()
        count += int(known.sum())
    wanted = torch.autograd.grad(total / count, weights)
    for ours, theirs in zip(gradients_of(model), wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
