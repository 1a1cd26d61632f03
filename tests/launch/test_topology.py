"""Which devices a run gets, on machines that are not here."""

import pytest
import torch

from src.launch.topology import find_main_address, resolve_topology


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
    assert resolve_topology(asked(devices), {}) == {}


@pytest.mark.parametrize("devices", [1, "2", "auto", -1, "-1", [0, 1], "0,1"])
def test_gpus_that_are_there(machine, devices) -> None:
    machine(2)
    assert resolve_topology(asked(devices), {}) == {}


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
        resolve_topology(settings, {})


def test_more_cpu_processes_than_gpus(machine) -> None:
    machine(2)
    assert resolve_topology(asked(4, "cpu"), {}) == {}


def test_apple_gpus_are_left_alone(machine) -> None:
    machine(0, apple=True)
    assert resolve_topology(asked(1), {}) == {"accelerator": "cpu"}
    assert resolve_topology(asked("auto"), {}) == {"accelerator": "cpu"}


@pytest.mark.parametrize("devices", [1, "auto", 8])
def test_torchrun_says_how_many_there_are(machine, devices) -> None:
    machine(0)
    environment = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "12"}
    assert resolve_topology(asked(devices), environment) == {"devices": 4, "num_nodes": 3}


def slurm(nodes: int = 2, tasks: int = 4, **more: str) -> dict[str, str]:
    numbers = {"SLURM_NNODES": nodes, "SLURM_NTASKS": nodes * tasks, "SLURM_NTASKS_PER_NODE": tasks}
    return (
        {key: str(value) for key, value in numbers.items()} | {"SLURM_JOB_NAME": "multitask"} | more
    )


@pytest.mark.parametrize(("devices", "nodes"), [("auto", 1), ("auto", 2), (4, 2), ("4", 1)])
def test_slurm_says_how_many_there_are(machine, devices, nodes) -> None:
    machine(0)
    assert resolve_topology(asked(devices, nodes=nodes), slurm()) == {"devices": 4, "num_nodes": 2}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            asked(2),
            "--devices is 2, but SLURM has started 4 tasks on each node; use --devices 4 or auto",
        ),
        (asked("auto", nodes=3), "--num_nodes is 3, but SLURM has started 2; use --num_nodes 2"),
    ],
)
def test_other_numbers_than_slurms_are_refused(machine, settings, message) -> None:
    machine(0)
    with pytest.raises(ValueError, match=message):
        resolve_topology(settings, slurm())


def test_a_shell_in_an_allocation_is_no_task(machine) -> None:
    machine(0)
    assert resolve_topology(asked(2), slurm(SLURM_JOB_NAME="interactive")) == {}


def test_torchrun_comes_before_slurm(machine) -> None:
    machine(0)
    torchrun = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}
    assert resolve_topology(asked("auto"), slurm(tasks=1) | torchrun) == {
        "devices": 4,
        "num_nodes": 2,
    }


def test_nodes_that_do_not_know_where_to_meet(machine) -> None:
    machine(0)
    with pytest.raises(ValueError, match="--num_nodes is 2, but nothing says where the nodes meet"):
        resolve_topology(asked(1, nodes=2), {})
    assert resolve_topology(asked(1, nodes=2), {"MASTER_ADDR": "10.0.0.1"}) == {}


@pytest.mark.parametrize(
    ("environment", "address"),
    [({}, None), ({"MASTER_ADDR": "a"}, "a"), (slurm(SLURM_NODELIST="gpu[07-09,12]"), "gpu07")],
)
def test_where_nodes_meet(environment, address) -> None:
    assert find_main_address(environment) == address
