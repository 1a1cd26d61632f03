"""Optimizers and schedules: the same run on any topology, and to the bit after each break."""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

from tests.integration.test_resume import assert_same
from tests.launching import furthest, launch, port

pytest.importorskip("pytorch_optimizer")
optimizers = pytest.importorskip("tests.integration.optimizers")

LIMIT = 1e-5
# what 16 bits keep of a number
LIMITS = {"Muon, in 16 bits": 0.05, "Prodigy": 1e-4}
# each launch trains these together
ELSEWHERE: dict[str, tuple[str, ...]] = {
    "ddp x 2": tuple(optimizers.CASES),
    "fsdp x 2": tuple(optimizers.CASES),
    "fsdp 1 x 2 with tensor parallel": ("Muon", "schedule-free", "Prodigy"),
    "fsdp x 2 in folders": ("Muon", "schedule-free"),
    "pipeline x 2": ("Muon", "schedule-free", "Prodigy"),
}
FAST = ("Muon, stacked", "schedule-free", "plateau")
REFUSED = {"fsdp": ("Prodigy",), "pipeline": ("Prodigy",)}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Results by case, after a launch on a topology; those of one process in this one."""

    @cache
    def on(topology: str, *cases: str) -> Any:
        out = tmp_path_factory.mktemp("optimizers") / "out.pt"
        if topology == "1 process":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                optimizers.main(str(out), topology, *cases)
        else:
            words = ("--nproc_per_node", 2, "--master_port", port(29750), "-m")
            module = "tests.integration.optimizers"
            launch("torch.distributed.run", *words, module, out, topology, *cases, timeout=1800)
        return torch.load(out, weights_only=True)

    return on


def is_refused(topology: str, case: str) -> bool:
    return case in REFUSED.get(topology.split()[0], ())


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=() if c in FAST else pytest.mark.slow) for c in optimizers.CASES],
)
def test_broken_off_on_one_process(trained: Callable[..., Any], case: str) -> None:
    found = trained("1 process", case)[case]
    assert_same(found["resumed"], found["whole"], case)


def test_rates_of_tasks_fall_apart(trained: Callable[..., Any]) -> None:
    """The plateau's rates are those of groups, and differ by the end."""
    rates = trained("1 process", "plateau")["plateau"]["rates"]
    first, last = rates[0], rates[-1]
    falls = {a / b for a, b in zip(first, last, strict=True)}
    assert len(falls) > 1
    assert all(fall in (1, 2, 4) for fall in falls)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("topology", "case"), [(name, case) for name, cases in ELSEWHERE.items() for case in cases]
)
def test_the_same_elsewhere(trained: Callable[..., Any], topology: str, case: str) -> None:
    found = trained(topology, *ELSEWHERE[topology])[case]
    if is_refused(topology, case):
        assert "--strategy ddp" in found
        return
    assert not isinstance(found, str), found
    assert_same(found["resumed"], found["whole"], case)
    one = trained("1 process", case)[case]
    assert furthest(doubled(found["whole"]), doubled(one["whole"])) < LIMITS.get(case, LIMIT)
    assert found["rates"] == one["rates"]


def doubled(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: w.double() for name, w in weights.items() if w.is_floating_point()}
