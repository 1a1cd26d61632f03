"""Lines for the person at the terminal."""

from lightning.fabric.utilities.rank_zero import rank_zero_only


@rank_zero_only
def say(message: str) -> None:
    """Prints a line once, on any number of processes."""
    print(message, flush=True)
