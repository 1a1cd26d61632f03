"""Rows with weights and dependent tasks: two processes give what one gives, metrics included."""

from pathlib import Path

import pytest

from tests.launching import curves, furthest, read_json, train, weights

FLAGS = (
    *("--data", "tests.toy_uses.Weights", "--model.encoder.width", 16),
    *("--trainer.max_epochs", 2, "--model.balancer", "UncertaintyWeights"),
)


@pytest.mark.slow
def test_a_run_on_two_processes_is_that_on_one(tmp_path: Path) -> None:
    one = train(tmp_path, *FLAGS, name="one")
    two = train(tmp_path, *FLAGS, "--devices", 2, "--strategy", "ddp", name="two")
    assert furthest(weights(two), weights(one)) < 1e-5

    ours, theirs = read_json(two / "metrics.json"), read_json(one / "metrics.json")
    for stage in ("validation", "test"):
        assert len(theirs[stage]) > 12
        assert ours[stage] == pytest.approx(theirs[stage], rel=1e-5, abs=1e-6, nan_ok=True)
    ours, theirs = curves(two), curves(one)
    losses = [tag for tag in theirs if tag.startswith("train/") and tag.endswith("/loss")]
    assert len(losses) == 4
    for tag in losses:
        assert ours[tag] == pytest.approx(theirs[tag], rel=1e-5, abs=1e-6)
