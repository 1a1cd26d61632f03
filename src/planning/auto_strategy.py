"""Which strategy several devices need: what fits is simplest."""

from src.planning.devices import Devices, size
from src.planning.plan import Load

# part of a device's memory that may be planned for; the rest is the runtime's, and fragments
ROOM = 0.8


def choose(devices: Devices, load: Load) -> tuple[str, str]:
    """Decides between one process, whole copies, and shards.

    Args:
        devices: Where the run will be.
        load: What one device would take if it held the whole model, with its share of the batch.

    Returns:
        The name that a strategy goes by, or 'auto' for none; and why, to be read after it, empty
        where there is nothing to say.
    """
    if devices.count == 1:
        return "auto", ""
    room = devices.share
    if room is None:
        return "ddp", "the simplest"
    if load.total <= ROOM * room:
        return "ddp", "since the whole model fits on each device"
    each = f"{size(room)} of memory" + (
        f", a share of {size(devices.memory or 0)}" if room != devices.memory else ""
    )
    needed = (
        f"{size(load.state)} with gradients and optimizer, {size(load.activations)} of activations"
    )
    sharded = load.state / devices.count + load.activations
    why = f"since the whole model ({needed}) does not fit on each device ({each})"
    if sharded <= ROOM * room:
        return "fsdp", f"{why}, but 1/{devices.count} of it does"
    ways_out = "more devices, a smaller batch or --model.checkpoint_activations true"
    return "fsdp", f"{why}, and 1/{devices.count} of it hardly will: use {ways_out}"
