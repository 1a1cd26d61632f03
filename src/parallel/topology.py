"""Which devices a run gets: pure arithmetic on what was asked for and what is there."""

import os
import re
from collections.abc import Mapping
from typing import Any

import torch


def several_devices(settings: Mapping[str, Any]) -> bool:
    """Whether the Trainer's settings, as :func:`topology` left them, ask for more than one device."""
    devices, there = str(settings["devices"]), torch.cuda.device_count()
    if devices in ("auto", "-1"):
        return int(settings["num_nodes"]) > 1 or (settings["accelerator"] != "cpu" and there > 1)
    count = int(devices) if devices.isdigit() else len(re.findall(r"\d+", devices))
    return count * int(settings["num_nodes"]) > 1


def topology(asked: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Turns the Trainer's settings into settings that hold here.

    Under torchrun the number of processes is torchrun's to say: devices = LOCAL_WORLD_SIZE, nodes = WORLD_SIZE / LOCAL_WORLD_SIZE
    (Lightning's own ``auto`` is 1 on CPUs there, and fails against the world size).

    Args:
        asked: The Trainer's ``accelerator``, ``devices`` and ``num_nodes``.
        environment: Environment variables.

    Returns:
        What to change in the Trainer's settings.

    Raises:
        ValueError: No device is asked for, more GPUs than there are, or a kind of device that has no 64-bit numbers.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        local, world = int(environment["LOCAL_WORLD_SIZE"]), int(environment["WORLD_SIZE"])
        return {"devices": local, "num_nodes": world // local}
    devices, accelerator = str(asked["devices"]), str(asked["accelerator"])
    there = torch.cuda.device_count()
    if accelerator == "mps":
        raise ValueError("--accelerator mps: it has no 64-bit numbers, in which losses are added up; use --accelerator cpu")
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and there > 0)
    number = devices.lstrip("-").isdigit()
    if devices != "auto" and not (number or (on_gpu and re.fullmatch(r"[\[\]\d, ]+", devices))):
        raise ValueError(f"--devices is {devices}; it must be a number{', a list of numbers' if on_gpu else ''} or auto")
    instead = {"accelerator": "cpu"} if accelerator == "auto" and not there and torch.backends.mps.is_available() else {}
    if not number:
        return instead
    count = int(devices)
    if count < 1 and not (on_gpu and count == -1):
        raise ValueError(f"--devices is {count}; it must be at least 1{' (or -1 for all)' if on_gpu else ''}")
    if on_gpu and count > there:
        way_out = f"--devices {there}" if there else "--accelerator cpu"
        raise ValueError(f"--devices asks for {count} GPUs, but this machine has {there}; use {way_out}")
    return instead
