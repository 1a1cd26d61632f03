"""Every balancer takes the same steps on 1, 2 and 4 processes, and goes on to the bit after a resume."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from src.balancing import StaticWeights
from tests.cli.calling import call
from tests.integration.every_balancer import methods
from tests.integration.test_resume import assert_same, checkpoint
from tests.launch import launch, only_run
from tests.toy import RaiseAt

METHODS = methods()
NAMES = sorted({name for name, _, _ in METHODS})


@pytest.fixture(scope="session")
def states(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, bool], Any]:
    """Final weights by method, after a launch with so many processes, with accumulation or without."""

    @cache
    def after(world: int, accumulated: bool) -> Any:
        out = tmp_path_factory.mktemp("balancers") / "states.pt"
        what = ("tests.integration.every_balancer", out, world, *(["accumulated"] if accumulated else []))
        words = ("--nproc_per_node", world, "--master_port", 29600 + world, "-m", *what)
        launch("torch.distributed.run", *words)
        return torch.load(out, weights_only=True)

    return after


CASES = [pytest.param(m, 2, marks=pytest.mark.slow if m[2] > 1 else ()) for m in METHODS]
CASES += [pytest.param(m, 4, marks=pytest.mark.slow) for m in METHODS]


@pytest.mark.parametrize(("method", "world"), CASES, ids=lambda part: "-".join(map(str, part)) if isinstance(part, tuple) else part)
def test_weights_agree_on_any_number_of_processes(
    states: Callable[[int, bool], Any], method: tuple[str, str | None, int], world: int
) -> None:
    alone, together = (states(ranks, method[2] > 1) for ranks in (1, world))
    one, several, static = alone[method], together[method], alone["StaticWeights", None, method[2]]
    for key, value in several.items():
        if value.is_floating_point():
            ours, theirs = value.double().nan_to_num(0), one[key].double().nan_to_num(0)
            # a single number that happens to be near 0 carries the rounding of where it has been
            assert float((ours - theirs).norm()) <= 1e-5 * max(float(theirs.norm()), 1e-2), key
    if method[0] != "StaticWeights":
        apart = max(float((one[key] - static[key]).abs().max()) for key in static if key.startswith("sharing"))
        assert apart > 1e-4  # another method is another run


def test_every_method_is_there() -> None:
    assert len(NAMES) == 27
    assert StaticWeights.__name__ in NAMES


STATEFUL = (
    "UncertaintyWeights",
    "DynamicWeightAverage",
    "FAMO",
    "GradNorm",
    "GradVac",
    "MoCo",
    "SDMGrad",
    "ExcessMTL",
    "ImpartialLoss",
)


@pytest.mark.parametrize("name", [*STATEFUL, "PCGrad", "GradDrop", "RandomWeights"])
def test_a_run_that_breaks_goes_on_to_the_bit(tmp_path: Path, name: str) -> None:
    """Its state, and what it draws at random, are those of the run that did not break."""
    level = ("--model.balancer.level", "parameters") if name in ("MoCo", "ExcessMTL", "PCGrad") else ()
    toy = ("--data", "tests.toy.Toy", "--max_epochs", 3, "--model.encoder.width", 12, "--watch.checkpoint_every", 4)
    words = ("--logs", tmp_path, *toy, "--watch.figures_every", 0, "--model.balancer", name, *level)
    assert call("train", *words, "--name", "whole").code == 0
    with pytest.raises(RuntimeError, match="this rank broke"):
        call("train", *words, "--name", "broken", *RaiseAt.flags(33, tmp_path / "marker"))
    whole, broken = only_run(tmp_path / "whole"), only_run(tmp_path / "broken")
    assert checkpoint(broken, "last")["global_step"] == 32
    assert call("train", "--resume", broken).code == 0
    state = checkpoint(whole, "last")["state_dict"]
    assert_same(checkpoint(broken, "last")["state_dict"], state)
    if name in STATEFUL:
        assert any(key.startswith("balancer.") for key in state)


@pytest.mark.parametrize("level", ["features", "parameters"])
def test_launched_as_a_person_would(tmp_path: Path, level: str) -> None:
    toy = ("--data", "tests.toy.Toy", "--max_epochs", 1, "--model.encoder.width", 12, "--watch.figures_every", 0)
    words = ("--logs", tmp_path, *toy, "--model.balancer", "UPGrad", "--model.balancer.level", level)
    done = launch("src.train", *words, "--name", "two", "--devices", 2)
    assert f"balancer UPGrad, by gradients of the shared {level}" in done.stdout
    assert call("train", *words, "--name", "one").code == 0
    one, two = (checkpoint(only_run(tmp_path / name), "last")["state_dict"] for name in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-5, atol=1e-6)
