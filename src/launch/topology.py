"""Which devices a run gets: pure arithmetic on what was asked for and what is there."""

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from lightning.fabric.plugins.environments import SLURMEnvironment

from src.errors import UserError

OTHER_LAUNCHERS = {
    "LSB_JOBID",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
}  # LSF and MPI, which Lightning finds by itself


def devices_per_node(settings: Mapping[str, Any]) -> int:
    """How many of a machine's devices the Trainer's settings, as :func:`topology` left them, ask for; 0: all, and there is none."""
    devices, there = str(settings["devices"]), torch.cuda.device_count()
    if devices in ("auto", "-1"):
        return (
            1
            if settings["accelerator"] == "cpu" or (settings["accelerator"] == "auto" and not there)
            else there
        )
    return int(devices) if devices.isdigit() else len(re.findall(r"\d+", devices))


def devices_per_process(asked: Mapping[str, Any]) -> int | None:
    """How many devices a process has: one, unless the strategy lays a model over several; None: as many as are asked for."""
    settings = getattr(asked.get("strategy"), "init_args", None) or {}
    return settings.get("devices_per_replica", None if "placement" in settings else 1)


def topology(
    asked: Mapping[str, Any], environment: Mapping[str, str] = os.environ, planned: bool = False
) -> dict[str, Any]:
    """Turns the Trainer's settings into settings that hold here.

    Under torchrun the number of processes is torchrun's to say: devices = LOCAL_WORLD_SIZE, nodes =
    WORLD_SIZE / LOCAL_WORLD_SIZE (Lightning's own ``auto`` is 1 on CPUs there, and fails against
    the world size). Under srun it is SLURM's.

    Args:
        asked: The Trainer's ``accelerator``, ``devices`` and ``num_nodes``.
        environment: Environment variables.
        planned: Whether nothing will run, so that neither GPUs nor other nodes need be here.

    Returns:
        What to change in the Trainer's settings.

    Raises:
        UserError: No device is asked for, more GPUs than there are, a kind of device that has no
            64-bit numbers, other numbers than SLURM has started, or several nodes that do not know
            where to meet.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        local, world = int(environment["LOCAL_WORLD_SIZE"]), int(environment["WORLD_SIZE"])
        each = devices_per_process(asked)
        if each is None and world > 1:
            raise UserError(
                f"--strategy placement is one process, but torchrun has started {world}: use --strategy ddp_placement"
            )
        return {"devices": local * each, "num_nodes": world // local} if each else {}
    if under_srun(environment) and not planned:
        return as_slurm_says(asked, environment)
    launched = planned or "MASTER_ADDR" in environment or OTHER_LAUNCHERS & environment.keys()
    if int(asked["num_nodes"]) > 1 and not launched:
        raise UserError(
            f"--num_nodes is {asked['num_nodes']}, but nothing says where the nodes meet: start with torchrun or srun, "
            "or set MASTER_ADDR, MASTER_PORT and NODE_RANK on each"
        )
    devices, accelerator = str(asked["devices"]), str(asked["accelerator"])
    there = torch.cuda.device_count()
    if accelerator == "mps":
        raise UserError(
            "--accelerator mps: it has no 64-bit numbers, in which losses are added up; use --accelerator cpu"
        )
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and there > 0)
    number = devices.lstrip("-").isdigit()
    if devices != "auto" and not (number or (on_gpu and re.fullmatch(r"[\[\]\d, ]+", devices))):
        raise UserError(
            f"--devices is {devices}; it must be a number{', a list of numbers' if on_gpu else ''} or auto"
        )
    instead = (
        {"accelerator": "cpu"}
        if accelerator == "auto" and not there and torch.backends.mps.is_available()
        else {}
    )
    if not number:
        return instead
    count = int(devices)
    if count < 1 and not (on_gpu and count == -1):
        raise UserError(
            f"--devices is {count}; it must be at least 1{' (or -1 for all)' if on_gpu else ''}"
        )
    if on_gpu and count > there and not planned:
        way_out = f"--devices {there}" if there else "--accelerator cpu"
        raise UserError(
            f"--devices asks for {count} GPUs, but this machine has {there}; use {way_out}"
        )
    return instead


def refuse_lone_ranks(nodes: int, environment: Mapping[str, str] = os.environ) -> None:
    """Looks for a rank in the environment that no launcher has put there, such as one left over in a shell.

    A process that takes itself for one of several keeps quiet, writes nothing, or waits for the
    others for ever.

    Args:
        nodes: The number of machines asked for.
        environment: Environment variables.

    Raises:
        UserError: There is one.
    """
    if (
        "TORCHELASTIC_RUN_ID" in environment
        or under_srun(environment)
        or OTHER_LAUNCHERS & environment.keys()
    ):
        return
    by_lightning = {"MASTER_ADDR", "WORLD_SIZE"} <= environment.keys()
    ranks = ["RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"]
    ranks += [] if by_lightning else ["LOCAL_RANK"]
    ranks += ["NODE_RANK", "GROUP_RANK"] if nodes == 1 and not by_lightning else []
    for name in ranks:
        if environment.get(name, "0") not in ("0", ""):
            way_out = (
                ", or set --num_nodes"
                if name == "NODE_RANK"
                else ", or start the run with torchrun"
            )
            raise UserError(
                f"{name} is {environment[name]} in the environment, but nothing has started several processes: "
                f"unset {name}{way_out}"
            )


def under_srun(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether SLURM has started this process, as Lightning tells: a shell in an allocation goes by one of these names."""
    return "SLURM_NTASKS" in environment and environment.get("SLURM_JOB_NAME") not in (
        "bash",
        "interactive",
    )


def as_slurm_says(asked: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The numbers of devices and nodes under srun, which starts one process for each device.

    Raises:
        UserError: Others are asked for.
    """
    nodes = int(environment.get("SLURM_NNODES", 1))
    tasks = int(environment.get("SLURM_NTASKS_PER_NODE", int(environment["SLURM_NTASKS"]) // nodes))
    tasks *= devices_per_process(asked) or 1
    if str(asked["devices"]) not in ("auto", str(tasks)):
        raise UserError(
            f"--devices is {asked['devices']}, but SLURM has started {tasks} tasks on each node; use --devices {tasks} or auto, "
            f"or #SBATCH --ntasks-per-node={asked['devices']}"
        )
    if int(asked["num_nodes"]) not in (1, nodes):  # 1 is the default
        raise UserError(
            f"--num_nodes is {asked['num_nodes']}, but SLURM has started {nodes}; use --num_nodes {nodes}, "
            f"or #SBATCH --nodes={asked['num_nodes']}"
        )
    return {"devices": tasks, "num_nodes": nodes}


def main_address(environment: Mapping[str, str] = os.environ) -> str | None:
    """Where the processes of several nodes meet; None where nothing says so."""
    if "MASTER_ADDR" not in environment and under_srun(environment):
        return SLURMEnvironment.resolve_root_node_address(
            environment.get("SLURM_NODELIST", "127.0.0.1")
        )
    return environment.get("MASTER_ADDR")
