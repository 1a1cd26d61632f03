"""Notes for the person at the terminal, besides the results."""

import sys

from lightning.fabric.utilities.rank_zero import rank_zero_only


@rank_zero_only
def remark(message: str) -> None:
    """Prints a note on standard error, once, whatever the number of processes."""
    print(f"note: {message}", file=sys.stderr, flush=True)
