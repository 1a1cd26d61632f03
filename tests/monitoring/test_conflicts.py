"""What is shown of the tasks' gradients is what they are, and looking changes nothing."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.balancing import PCGrad, StaticWeights
from tests.cli.calling import call
from tests.integration.test_resume import assert_same, checkpoint
from tests.launching import curves, launch, only_run
from tests.models.backward.test_levels import TwoFeatures, batch_of, model_of, task_losses

TOY = (
    "--data",
    "tests.toy.Toy",
    "--max_epochs",
    2,
    "--model.encoder.width",
    16,
    "--watch.figures_every",
    0,
)


@pytest.mark.parametrize("level", ["features", "parameters", "two features"])
def test_the_gramian_is_that_of_one_backward_pass_per_task(level):
    balancer = StaticWeights if level != "parameters" else partial(PCGrad, level="parameters")
    model = model_of(balancer, **({"sharing": TwoFeatures} if level == "two features" else {}))
    batch = batch_of()
    features = model.sharing(batch.inputs)
    places = (
        [features[model.names[0]]]
        if level == "features"
        else list(model.sharing.shared_parameters())
    )
    rows = []
    for loss in task_losses(model, batch, features):
        parts = torch.autograd.grad(loss, places, retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([part.flatten() for part in parts]))
    J = torch.stack(rows) / torch.tensor([model.weights[name] for name in model.names])[:, None]
    np.testing.assert_allclose(model.task_gramian(batch), J @ J.T, rtol=1e-6, atol=1e-12)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.slow
def test_looking_changes_nothing_and_shows_the_same_on_any_topology(tmp_path: Path) -> None:
    words = ("--logs", tmp_path, *TOY, "--model.encoder.dropout", 0.2)
    for name, more in (("blind", ()), ("one", ("--watch.geometry_every", 7))):
        assert call("train", *words, "--name", name, *more).code == 0
    launch("src.train", *words, "--name", "two", "--watch.geometry_every", 7, "--devices", 2)
    blind, one, two = (only_run(tmp_path / name) for name in ("blind", "one", "two"))
    assert_same(checkpoint(one, "last")["state_dict"], checkpoint(blind, "last")["state_dict"])
    ours, theirs = curves(one), curves(two)
    assert list(ours["gradient/conflicts"]) == [0, 7, 14, 21]
    assert all(0 <= value <= 1 for value in ours["gradient/conflicts"].values())
    assert ours["gradient/condition"][0] >= 1
    for tag in ("gradient/norm/labels", "gradient/condition", "gradient/conflicts"):
        assert theirs[tag] == pytest.approx(ours[tag], rel=1e-3)
    events = EventAccumulator(str(one), size_guidance={"images": 0}).Reload()
    assert [image.step for image in events.Images("gradient/cosines")] == [0, 7, 14, 21]
    assert not [tag for tag in curves(blind) if tag.startswith("gradient")]
