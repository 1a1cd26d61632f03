"""Works out which devices a run gets, from what was asked for, what is here, and who started it."""

import os
import re
from collections.abc import Mapping

import torch
from lightning.fabric.plugins.environments import SLURMEnvironment

from src.errors import UserError

# Set by LSF and MPI, which Lightning finds by itself.
OTHER_LAUNCHERS = {"LSB_JOBID", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}


def resolve_topology(
    asked: Mapping[str, object],
    environment: Mapping[str, str] = os.environ,
    offline: bool = False,
) -> dict[str, int | str]:
    """Turns the Trainer's settings into settings that hold here.

    Under torchrun its numbers hold: devices = LOCAL_WORLD_SIZE, nodes = WORLD_SIZE /
    LOCAL_WORLD_SIZE. Lightning's own ``auto`` is 1 on CPUs there, and fails against the world size.
    Under srun SLURM's numbers hold.

    Args:
        asked: The Trainer's ``accelerator``, ``devices``, ``num_nodes`` and ``strategy``.
        environment: Environment variables.
        offline: Whether nothing will run, so that neither GPUs nor other nodes need be here.

    Returns:
        The settings of the Trainer to change.

    Raises:
        UserError: No device is asked for, more GPUs than there are, a kind of device that has no
            64-bit numbers, other numbers than SLURM has started, or several nodes that do not know
            where to meet.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        return read_torchrun(asked, environment)
    if is_under_srun(environment) and not offline:
        return read_slurm(asked, environment)

    meets = offline or "MASTER_ADDR" in environment or OTHER_LAUNCHERS & environment.keys()
    if int(str(asked["num_nodes"])) > 1 and not meets:
        raise UserError(
            f"--num_nodes is {asked['num_nodes']}, but nothing says where the nodes meet: start "
            "with torchrun or srun, or set MASTER_ADDR, MASTER_PORT and NODE_RANK on each"
        )
    return check_devices(str(asked["devices"]), str(asked["accelerator"]), offline)


def check_devices(devices: str, accelerator: str, offline: bool) -> dict[str, int | str]:
    """Checks the devices of a machine, and returns the settings of the Trainer to change.

    Args:
        devices: The Trainer's ``devices``: a number, -1, a list of numbers or auto.
        accelerator: The Trainer's ``accelerator``.
        offline: Whether nothing will run, so that GPUs need not be here.

    Raises:
        UserError: They cannot be had.
    """
    if accelerator == "mps":
        raise UserError(
            "--accelerator mps: it has no 64-bit numbers, in which losses are added up; "
            "use --accelerator cpu"
        )
    here = torch.cuda.device_count()
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and here > 0)

    number = devices.lstrip("-").isdigit()
    listed = on_gpu and re.fullmatch(r"[\[\]\d, ]+", devices)
    if not (number or listed or devices == "auto"):
        expected = "a number, a list of numbers or auto" if on_gpu else "a number or auto"
        raise UserError(f"--devices is {devices}; it must be {expected}")
    if number:
        count = int(devices)
        if count < 1 and not (on_gpu and count == -1):
            hint = " (or -1 for all)" if on_gpu else ""
            raise UserError(f"--devices is {count}; it must be at least 1{hint}")
        if on_gpu and count > here and not offline:
            way_out = f"--devices {here}" if here else "--accelerator cpu"
            raise UserError(
                f"--devices asks for {count} GPUs, but this machine has {here}; use {way_out}"
            )

    # Lightning's auto would take Apple's GPU.
    if accelerator == "auto" and not here and torch.backends.mps.is_available():
        return {"accelerator": "cpu"}
    return {}


# -- numbers of other launchers --------------------------------------------------------------------
def read_torchrun(
    asked: Mapping[str, object], environment: Mapping[str, str]
) -> dict[str, int | str]:
    """Reads the numbers of devices and nodes under torchrun.

    Raises:
        UserError: The strategy is for one process, and torchrun has started several.
    """
    local = int(environment["LOCAL_WORLD_SIZE"])
    world = int(environment["WORLD_SIZE"])
    each = count_devices_per_process(asked)
    if each is None and world > 1:
        raise UserError(
            f"--strategy placement is one process, but torchrun has started {world}: "
            "use --strategy ddp_placement"
        )
    return {"devices": local * each, "num_nodes": world // local} if each else {}


def read_slurm(asked: Mapping[str, object], environment: Mapping[str, str]) -> dict[str, int | str]:
    """Reads the numbers of devices and nodes under srun, which starts one process for each device.

    Raises:
        UserError: Others are asked for.
    """
    nodes = int(environment.get("SLURM_NNODES", 1))
    on_average = int(environment["SLURM_NTASKS"]) // nodes
    tasks = int(environment.get("SLURM_NTASKS_PER_NODE", on_average))
    tasks *= count_devices_per_process(asked) or 1

    devices = str(asked["devices"])
    if devices not in ("auto", str(tasks)):
        raise UserError(
            f"--devices is {devices}, but SLURM has started {tasks} tasks on each node; "
            f"use --devices {tasks} or auto, or #SBATCH --ntasks-per-node={devices}"
        )
    asked_nodes = int(str(asked["num_nodes"]))
    if asked_nodes not in (1, nodes):  # 1 is the default
        raise UserError(
            f"--num_nodes is {asked_nodes}, but SLURM has started {nodes}; "
            f"use --num_nodes {nodes}, or #SBATCH --nodes={asked_nodes}"
        )
    return {"devices": tasks, "num_nodes": nodes}


def is_under_srun(environment: Mapping[str, str] = os.environ) -> bool:
    """Returns whether SLURM has started this process, by Lightning's rule: not in a shell."""
    shell = environment.get("SLURM_JOB_NAME") in ("bash", "interactive")
    return "SLURM_NTASKS" in environment and not shell


def refuse_lone_ranks(nodes: int, environment: Mapping[str, str] = os.environ) -> None:
    """Refuses a rank in the environment that no launcher has set, such as one left in a shell.

    A process that takes itself for one of several keeps quiet, writes nothing, or waits for the
    others for ever.

    Args:
        nodes: The number of machines asked for.
        environment: Environment variables.

    Raises:
        UserError: There is one.
    """
    launched = "TORCHELASTIC_RUN_ID" in environment or is_under_srun(environment)
    if launched or OTHER_LAUNCHERS & environment.keys():
        return

    # Lightning sets these two, with LOCAL_RANK and NODE_RANK, for the processes that it starts.
    by_lightning = {"MASTER_ADDR", "WORLD_SIZE"} <= environment.keys()
    ranks = ["RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"]
    if not by_lightning:
        ranks.append("LOCAL_RANK")
        if nodes == 1:
            ranks += ["NODE_RANK", "GROUP_RANK"]

    for name in ranks:
        if environment.get(name, "0") not in ("0", ""):
            way_out = "set --num_nodes" if name == "NODE_RANK" else "start the run with torchrun"
            raise UserError(
                f"{name} is {environment[name]} in the environment, but nothing has started "
                f"several processes: unset {name}, or {way_out}"
            )


def find_main_address(environment: Mapping[str, str] = os.environ) -> str | None:
    """Returns the address where the processes of several nodes meet; None if nothing says so."""
    if "MASTER_ADDR" not in environment and is_under_srun(environment):
        nodes = environment.get("SLURM_NODELIST", "127.0.0.1")
        return SLURMEnvironment.resolve_root_node_address(nodes)
    return environment.get("MASTER_ADDR")


# -- counting --------------------------------------------------------------------------------------
def count_devices_per_node(settings: Mapping[str, object]) -> int:
    """Counts the devices of a machine; 0 where all GPUs are asked for, and there is none.

    Args:
        settings: The Trainer's settings, as :func:`resolve_topology` left them.
    """
    devices = str(settings["devices"])
    if devices.isdigit():
        return int(devices)
    if devices not in ("auto", "-1"):
        return len(re.findall(r"\d+", devices))  # a list

    here = torch.cuda.device_count()
    accelerator = settings["accelerator"]
    if accelerator == "cpu" or (accelerator == "auto" and not here):
        return 1
    return here


def count_devices_per_process(asked: Mapping[str, object]) -> int | None:
    """Counts the devices of a process; None: as many as are asked for.

    A process has one device, unless the strategy lays a model over several.

    Args:
        asked: The Trainer's settings.
    """
    settings = getattr(asked.get("strategy"), "init_args", None) or {}
    count: int | None = settings.get("devices_per_replica")
    if "devices_per_replica" in settings or "placement" in settings:
        return count
    return 1
