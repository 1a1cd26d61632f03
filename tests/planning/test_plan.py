"""Plans of runs: what each device holds, and the --plan of the command line."""

import re
from pathlib import Path
from typing import Any, cast

import lightning as L
import pytest

from src.parallel import DDPPlacement, Placement
from src.planning.devices import Devices
from src.planning.measure import REST, Cost
from src.planning.memory import (
    Footprint,
)
from src.planning.plan import compute_loads, configure_offline
from tests.cli.calling import call, refused
from tests.launching import only_run, read_json
from tests.planning.toys import plan_of, text_of, toy

TOY = (
    "--data",
    "tests.toy.Toy",
    "--max_epochs",
    1,
    "--model.encoder.width",
    8,
    "--watch.figures_every",
    0,
    "--accelerator",
    "cpu",
)


def test_what_no_device_names_is_on_all() -> None:
    parts = {"sharing": Cost(0, 0, 0, 10, 0.0), "heads.a": Cost(4, 4, 0, 1, 0.0)}
    everyone: list[dict[str, float]] = [{}, {"heads.a": 1.0}]
    assert [load.total for load in compute_loads(Footprint(parts, 0.0), everyone)] == [10.0, 19.0]


@pytest.mark.parametrize(
    ("placement", "device", "held", "copies"),
    [
        ({"heads.number": "cpu"}, "cpu", "heads.number", 2),
        ({"heads": "cuda:7"}, "cuda:7", "heads.class", 2),
        ({"heads.number": "cuda:1"}, 1, "heads.number", 2),
        ({"sharing": "cuda"}, 0, "sharing.encoder.stages.0", 0),
    ],
)
def test_a_device_that_goes_by_its_name(
    placement: dict[str, Any], device: str | int, held: str, copies: int
) -> None:
    """It is a row of its own, unless it is one of the Trainer's."""
    plan = plan_of(toy(), Placement(placement), Devices(2, kind="gpu"))
    assert plan.names == ([device] if isinstance(device, str) else [])
    place = 2 if isinstance(device, str) else device
    assert [k for k, parts in enumerate(plan.holds) if held in parts] == [place]
    assert sum(load.parameters for load in plan.loads) == sum(
        p.numel() * 4 for p in toy().parameters()
    )
    assert plan.loads[place].activations == 100 * len(
        [part for part in plan.holds[place] if part not in REST]
    )
    assert [t.count for t in plan.traffic or ()] == [copies] * bool(copies)
    text = text_of(plan)
    assert "1 replica x 2 devices: 2 x GPU" in text
    assert ("carried between devices in a step: activations and their gradients" in text) == bool(
        copies
    )
    assert ("sent in a step: nothing" in text) == (not copies)
    assert "by each process" not in text
    if isinstance(device, str):
        (row,) = (line for line in text.splitlines() if line.startswith(device))
        assert ("head number" if held == "heads.number" else "8 heads") in row


def test_copies_that_share_a_device() -> None:
    """Each of two processes places its heads on the second GPU of the first process."""
    plan = plan_of(toy(), DDPPlacement(2, {"heads": "cuda:1"}), Devices(4, 2, "gpu"))
    assert [held.get("heads.class") for held in plan.holds] == [None, 2.0, None, None] * 2
    assert plan.loads[1].parameters == 2 * 4 * sum(p.numel() for p in toy().heads.parameters())
    assert plan.loads[1].activations == 2 * 8 * 100
    beside = plan_of(toy(), DDPPlacement(2, {"heads": "cuda:9"}), Devices(4, 2, "gpu"))
    assert beside.loads[-1] == plan.loads[1]


def test_several_nodes_are_not_for_placement() -> None:
    strategy = configure_offline(Placement(), Devices(2, 2), "32-true")
    with pytest.raises(ValueError, match=r"--num_nodes is 2, .* use --strategy ddp_placement"):
        strategy.check(toy())
    with pytest.raises(ValueError, match="--num_nodes is 2"):
        cast(
            Any,
            L.Trainer(
                accelerator="cpu", devices=2, num_nodes=2, strategy=Placement(), logger=False
            ),
        ).strategy.check(toy())


def test_each_batch_of_a_step_is_carried() -> None:
    once, thrice = (
        plan_of(toy(), Placement({"heads": 1}), Devices(2), micro_batches=n).traffic for n in (1, 3)
    )
    assert [t.times(3) for t in once or ()] == thrice


def test_a_plan_leaves_nothing(tmp_path: Path) -> None:
    for words in (
        (),
        ("--devices", 2),
        ("--fast_dev_run",),
        ("--devices", 2, "--strategy", "fsdp"),
    ):
        ended = call("train", *TOY, "--logs", tmp_path, "--plan", *words)
        assert ended.code == 0, ended.err
        assert "batch: 16 rows" in ended.out
        assert "encoder" in ended.out
    assert list(tmp_path.iterdir()) == []


def test_a_plan_for_devices_that_are_not_here(tmp_path: Path) -> None:
    words = ("--accelerator", "gpu", "--devices", 8, "--num_nodes", 8, "--batch_size", 1024)
    ended = call("train", *TOY[:-2], "--logs", tmp_path, "--plan", *words, "--strategy", "fsdp")
    assert ended.code == 0, ended.err
    assert "8 x 8 x GPU" in ended.out
    ended = call("train", *TOY[:-2], "--logs", tmp_path, "--plan", *words)
    assert ended.out.count("strategy") == 1
    assert "ddp was chosen, the simplest" in ended.out
    placed = (
        *words[:2],
        "--devices",
        4,
        "--strategy",
        "placement",
        "--strategy.placement.heads.number",
        "cuda:3",
    )
    ended = call("train", *TOY[:-2], "--logs", tmp_path, "--plan", *placed)
    assert ended.code == 0, ended.err
    assert re.search(r"\n3 +head number ", ended.out)
    refused(call("train", *TOY[:-2], "--logs", tmp_path, *words), ["--num_nodes is 8"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--devices", 20), ["data.batch_size is 16", "20 devices"]),
        (("--devices", "two"), ["--devices is two"]),
        (("--num_nodes", 0), ["--num_nodes is 0"]),
        (
            ("--num_nodes", 2, "--devices", 2, "--strategy", "placement"),
            ["--num_nodes is 2", "use --strategy ddp_placement"],
        ),
        (("--accelerator", "gpu", "--devices", -1), ["give a number"]),
        (
            ("--devices", 2, "--strategy", "fsdp", "--model.balancer", "AutoLambda"),
            ["AutoLambda", "use --strategy ddp"],
        ),
        (("--devices", 2, "--strategy", "fdsp"), ["did you mean 'fsdp'?"]),
    ],
)
def test_a_plan_refuses_what_a_run_would(tmp_path: Path, words: Any, says: list[str]) -> None:
    refused(call("train", *TOY, "--logs", tmp_path, "--plan", *words), says)
    assert list(tmp_path.iterdir()) == []


def test_of_a_run(tmp_path: Path) -> None:
    """One device is a line before training; a plan of a run to resume leaves the run alone."""
    ended = call("train", *TOY, "--logs", tmp_path, "--name", "x")
    assert ended.code == 0, ended.err
    (line,) = (line for line in ended.out.splitlines() if line.startswith("CPU ("))
    assert line.endswith("of weights, gradients and optimizer")
    run = only_run(tmp_path / "x")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    ended = call("train", "--resume", run, "--plan", "--devices", 2)
    assert ended.code == 0, ended.err
    assert "data 2" in ended.out
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert read_json(run / "run.json")["sessions"][-1]["status"] == "finished"
    assert call("evaluate", "--run", run).code == 0
