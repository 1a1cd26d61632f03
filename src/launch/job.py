"""Which job this process belongs to, so that one that is started again goes on with its own run."""

import os
import socket
from collections.abc import Mapping


def job(environment: Mapping[str, str] = os.environ) -> str | None:
    """The name that a job keeps, on all its processes, when SLURM requeues it or torchrun restarts it; None: nothing would."""
    if "SLURM_JOB_ID" in environment:
        return f"slurm {environment['SLURM_JOB_ID']}"
    if "TORCHELASTIC_RUN_ID" not in environment:
        return None
    name = environment["TORCHELASTIC_RUN_ID"]
    if (
        name == "none"
    ):  # without --rdzv-id: torchrun's own process on one machine, on several the one where they meet
        on_one_machine = environment["LOCAL_WORLD_SIZE"] == environment["WORLD_SIZE"]
        name = (
            f"{socket.gethostname()}:{os.getppid()}"
            if on_one_machine
            else environment["MASTER_ADDR"]
        )
    return f"torchrun {name}"


def started_again(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is not the first attempt of its job."""
    return any(
        int(environment.get(count, 0)) > 0
        for count in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
    )
