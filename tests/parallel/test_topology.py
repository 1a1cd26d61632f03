"""Which devices a run gets, on machines that are not here."""

import pytest
import torch

from src.parallel import topology


def asked(devices: object = 1, accelerator: str = "auto", nodes: int = 1) -> dict[str, object]:
    return {"devices": devices, "accelerator": accelerator, "num_nodes": nodes}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Makes a machine with so many CUDA GPUs, or an Apple one."""

    def make(gpus: int, apple: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)

    return make


@pytest.mark.parametrize("devices", [1, "4", "auto"])
def test_cpus_are_as_many_as_asked_for(machine, devices) -> None:
    machine(0)
    assert topology(asked(devices), {}) == {}


@pytest.mark.parametrize("devices", [1, "2", "auto", -1, "-1", [0, 1], "0,1"])
def test_gpus_that_are_there(machine, devices) -> None:
    machine(2)
    assert topology(asked(devices), {}) == {}


@pytest.mark.parametrize(
    ("gpus", "settings", "message"),
    [
        (0, asked(0), "--devices is 0; it must be at least 1"),
        (0, asked("-1"), "--devices is -1; it must be at least 1"),
        (0, asked("two"), "--devices is two; it must be a number or auto"),
        (0, asked([0, 1]), "it must be a number or auto"),
        (2, asked("two"), "it must be a number, a list of numbers or auto"),
        (2, asked(0), r"it must be at least 1 \(or -1 for all\)"),
        (2, asked(4), "asks for 4 GPUs, but this machine has 2; use --devices 2"),
        (0, asked(1, "gpu"), "asks for 1 GPUs, but this machine has 0; use --accelerator cpu"),
        (0, asked(1, "mps"), "use --accelerator cpu"),
    ],
)
def test_what_cannot_be_is_refused(machine, gpus, settings, message) -> None:
    machine(gpus)
    with pytest.raises(ValueError, match=message):
        topology(settings, {})


def test_more_cpu_processes_than_gpus(machine) -> None:
    machine(2)
    assert topology(asked(4, "cpu"), {}) == {}


def test_apple_gpus_are_left_alone(machine) -> None:
    machine(0, apple=True)
    assert topology(asked(1), {}) == {"accelerator": "cpu"}
    assert topology(asked("auto"), {}) == {"accelerator": "cpu"}


@pytest.mark.parametrize("devices", [1, "auto", 8])
def test_torchrun_says_how_many_there_are(machine, devices) -> None:
    machine(0)
    environment = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "12"}
    assert topology(asked(devices), environment) == {"devices": 4, "num_nodes": 3}
