"""Which job this process belongs to, so that one that is started again goes on with its own run."""

import os
import socket
from collections.abc import Mapping


def name_job(environment: Mapping[str, str] = os.environ) -> str | None:
    """Returns the name of this process's job; None if nothing would start it again.

    All processes of a job have its name, and keep it when SLURM requeues the job or torchrun
    restarts it.
    """
    if "SLURM_JOB_ID" in environment:
        return f"slurm {environment['SLURM_JOB_ID']}"
    if "TORCHELASTIC_RUN_ID" not in environment:
        return None

    name = environment["TORCHELASTIC_RUN_ID"]
    if name == "none":  # without --rdzv-id
        on_one_machine = environment["LOCAL_WORLD_SIZE"] == environment["WORLD_SIZE"]
        if on_one_machine:
            # torchrun's own process, which starts all others
            name = f"{socket.gethostname()}:{os.getppid()}"
        else:
            name = environment["MASTER_ADDR"]
    return f"torchrun {name}"


def is_restart(environment: Mapping[str, str] = os.environ) -> bool:
    """Returns whether this is a later attempt of its job than the first."""
    counts = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
    return any(int(environment.get(count, 0)) > 0 for count in counts)
