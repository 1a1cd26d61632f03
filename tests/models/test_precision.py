"""Every balancer under every precision that is offered."""

from functools import cache, partial
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch.optim import SGD

import src.balancing
from src.balancing import AutoLambda, Balancer
from src.balancing.gradients import CpuBalancer
from src.models import MultiTaskModel
from src.models.encoders import MLP
from tests.models.backward.test_levels import QUIET
from tests.toy import Toy

PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed")
KINDS: dict[str, Any] = {
    name: kind
    for name, kind in sorted(vars(src.balancing).items())
    if isinstance(kind, type) and issubclass(kind, Balancer) and not kind.__abstractmethods__
}
CASES = {
    f"{name} {level}" if level else name: partial(kind, level=level) if level else kind
    for name, kind in KINDS.items()
    for level in (kind.levels if issubclass(kind, CpuBalancer) else (None,))
}


def trained(balancer, precision, steps, lr=0.01):
    """A model after some steps; fp16 with losses scaled as on a GPU, which the Trainer by itself
    refuses on a CPU.
    """
    data = Toy()
    scaled = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=64.0))
    settings = {"plugins": scaled} if precision == "16-mixed" else {"precision": precision}
    model = MultiTaskModel(
        data.tasks,
        data.input_shape,
        partial(MLP, width=12),
        balancer=balancer,
        optimizer=partial(SGD, lr=lr),
        scheduler=None,
    )
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        limit_val_batches=0,
        use_distributed_sampler=False,
        **settings,
        **QUIET,
    )
    trainer.fit(model, data)
    return model


@cache
def after_three_steps(case, precision):
    """The losses of the third step (T,), and the types of the parameters."""
    model = trained(CASES[case], precision, 3)
    return model.step.losses_T.double().numpy(), {p.dtype for p in model.parameters()}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", list(CASES))
def test_every_balancer_under_every_precision(case, precision):
    """The losses of the third step are those of double precision, up to rounding."""
    losses, types = after_three_steps(case, precision)
    assert types == {torch.float64 if precision == "64-true" else torch.float32}
    tolerance = 1e-4 if precision.endswith("true") else 0.03
    exact = after_three_steps(case, "64-true")[0]
    assert exact.max() > 1
    np.testing.assert_allclose(losses, exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_auto_lambda_looks_ahead_in_full_precision(precision):
    """With a step that is so long that the gradient of the other batch turns round."""
    slopes = []

    class Noted(AutoLambda):
        def learn_from_lookahead(self, slopes_T, rate):
            slopes.append(slopes_T.double())

    for kind in ("64-true", precision):
        trained(partial(Noted, first=1.0), kind, 1, lr=2.0)
    exact, found = slopes
    assert exact.abs().max() > 1e-3
    np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-3 * float(exact.abs().max()))
