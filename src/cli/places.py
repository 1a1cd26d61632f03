"""Where the processes of a study or a sweep run: the flags, and the executor that they choose."""

from collections.abc import Mapping
from pathlib import Path

import torch
import yaml

from src.cli.flags import Flag
from src.cli.layers import ConfigError
from src.errors import UserError
from src.files.yaml12 import load
from src.launch.executors import Executor, make_executor

PLACES = (
    Flag("parallel", int, 1, "Trials side by side, each with its share of cores, or its own GPU."),
    Flag("executor", str, "local", "Where trials run: local, slurm or ray."),
    Flag("cluster", str, None, "Settings of jobs: '{partition: gpu, timeout_min: 240}'."),
)


def read_number(given: Mapping[str, str | None], key: str, default: int) -> int:
    """Returns the value of a flag that is a whole number from 1.

    Raises:
        ConfigError: It is none.
    """
    text = given.get(key)
    if text is None:
        return default
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"--{key} is '{text}'; it must be a whole number from 1")
    return int(text)


def choose_executor(
    name: str, slots: int, folder: Path, cluster: str | None, devices: int = 1
) -> Executor:
    """Returns the executor that the flags choose.

    Args:
        name: local, slurm or ray.
        slots: Trials side by side.
        folder: Where an executor keeps its own files.
        cluster: Settings of jobs, as YAML.
        devices: Devices of one trial.

    Raises:
        UserError: There is no such executor, it does not take the settings, or is not installed.
    """
    try:
        settings = load(cluster) if cluster else {}
    except yaml.YAMLError:
        settings = None
    if not isinstance(settings, dict):
        raise UserError(
            f"--cluster {cluster}: a mapping of settings belongs there, such as "
            "'{partition: gpu, timeout_min: 240}'"
        )
    gpus = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    return make_executor(name, slots, folder, settings, gpus, devices)
