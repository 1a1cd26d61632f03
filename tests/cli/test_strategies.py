"""Strategies by name, with their settings as flags: mistakes are one line that says the way out,
and a saved plan can be read.
"""

from pathlib import Path

import pytest

from tests.cli.calling import call, refused

TOY = ("--data", "tests.toy.Toy", "--model.encoder.width", 8, "--plan")

MISTAKES: dict[str, tuple[tuple[object, ...], list[str]]] = {
    "alone": (
        ("--strategy",),
        ["--strategy needs a name: ddp, ddp_placement, fsdp, pipeline, placement or auto"],
    ),
    "misspelt": (
        ("--strategy", "fsdb", "--devices", 2),
        ["--strategy fsdb is unknown", "did you mean 'fsdp'?"],
    ),
    "a setting without a strategy": (
        ("--strategy.tensor_parallel_size", 2),
        ["a setting of fsdp: add --strategy fsdp"],
    ),
    "a setting of none": (("--strategy.speed", 2), ["strategy.speed is a setting of no strategy"]),
    "a setting of another": (
        ("--strategy", "ddp", "--strategy.micro_batches", 2),
        ["micro_batches", "DDP knows static_graph"],
    ),
    "a wrong type": (
        ("--strategy", "fsdp", "--strategy.checkpoint", "files"),
        ["checkpoint", "'file' or 'folder'", "'files'"],
    ),
    "no time": (
        ("--strategy", "ddp", "--devices", 2, "--strategy.timeout", -5),
        ["strategy.timeout is -5", "more than 0"],
    ),
    "pieces": (
        ("--strategy", "fsdp", "--devices", 3, "--strategy.tensor_parallel_size", 2),
        ["strategy.tensor_parallel_size is 2", "3 devices", "--devices 2 or 4"],
    ),
    "no replica": (
        ("--strategy", "ddp_placement", "--devices", 2, "--strategy.devices_per_replica", 0),
        ["strategy.devices_per_replica is 0"],
    ),
    "replicas": (
        ("--strategy", "ddp_placement", "--devices", 3),
        ["--devices is 3", "replicas of 2", "--devices 2"],
    ),
    "no such device": (
        ("--strategy", "placement", "--devices", 2, "--strategy.placement.heads.number", 2),
        ["strategy.placement.heads.number is 2", "2 devices, 0 to 1"],
    ),
    "no such part": (
        ("--strategy", "placement", "--devices", 2, "--strategy.placement.heads.numbr", 1),
        ["strategy.placement", "heads.numbr", "did you mean 'heads.number'"],
    ),
    "slices": (
        ("--strategy", "pipeline", "--devices", 2, "--strategy.micro_batches", 17),
        ["strategy.micro_batches is 17", "data.batch_size is 16"],
    ),
    "gradients in a pipeline": (
        ("--strategy", "pipeline", "--devices", 2, "--model.balancer", "PCGrad"),
        ["--model.balancer PCGrad", "use --strategy ddp, fsdp or placement"],
    ),
    "stages": (
        ("--strategy", "pipeline", "--devices", 4),
        ["4 devices need a stage each", "MLP has 3", "--devices 3"],
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(tmp_path: Path, case: str) -> None:
    words, says = MISTAKES[case]
    refused(call("train", *TOY, "--logs", tmp_path, *words), says)
    assert list(tmp_path.iterdir()) == []


def test_each_strategy_tells_its_settings() -> None:
    ended = call("train", "--strategy.help", "fsdp")
    assert ended.code == 0
    assert "tensor_parallel_size" in ended.out


@pytest.mark.parametrize(("name", "devices"), [("placement", 2), ("ddp_placement", 4)])
def test_a_saved_plan_is_read_again(tmp_path: Path, name: str, devices: int) -> None:
    saved = tmp_path / "plan.yaml"
    first = call("train", *TOY, "--strategy", name, "--devices", devices, "--strategy.save", saved)
    assert f"placement written to {saved}" in first.out
    again = call("train", *TOY, "--trainer", saved)
    assert again.code == 0, again.err
    assert again.out == first.out.partition("\n")[2]
