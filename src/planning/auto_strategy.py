"""Chooses the simplest strategy under which a model fits on several devices."""

from src.planning.devices import Devices, format_bytes
from src.planning.memory import Load

# Share of a device's memory that a plan may fill. The rest is for the runtime, and lost between
# allocations.
ROOM = 0.8


def choose_strategy(devices: Devices, load: Load) -> tuple[str, str]:
    """Decides between one process, whole copies, and shards.

    Args:
        devices: Where the run will be.
        load: The bytes of a device that holds the whole model, with its share of the batch.

    Returns:
        The name of the strategy, or "auto" for none; and why, to be read after the name. There is
        no reason to give for one device.
    """
    if devices.count == 1:
        return "auto", ""
    memory = devices.share
    if memory is None:
        return "ddp", "the simplest"

    room = ROOM * memory
    if load.total <= room:
        return "ddp", "since the whole model fits on each device"

    state = format_bytes(load.state)
    activations = format_bytes(load.activations)
    each = f"{format_bytes(memory)} of memory"
    if memory != devices.memory:
        each += f", a share of {format_bytes(devices.memory or 0)}"
    why = (
        f"since the whole model ({state} with gradients and optimizer, {activations} of "
        f"activations) does not fit on each device ({each})"
    )

    # Shards divide the state alone: each device computes its own rows.
    if load.state / devices.count + load.activations <= room:
        return "fsdp", f"{why}, but 1/{devices.count} of it does"
    ways_out = "more devices, a smaller batch or --model.checkpoint_activations true"
    return "fsdp", f"{why}, and 1/{devices.count} of it hardly will: use {ways_out}"
