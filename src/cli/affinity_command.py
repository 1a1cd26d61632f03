"""Measures which tasks help one another: the work of ``python -m src.affinity``."""

from src.cli.affinity import AffinityTraining
from src.cli.affinity_call import OWN, read_call
from src.cli.affinity_seeds import AffinitySeeds
from src.cli.app import CLI
from src.cli.flags import split_flags
from src.cli.help import asks_for_help
from src.cli.training import OWN as OF_TRAINING

SHARED = ("resume", "plan", "trust")  # flags of train that are of this command, too


def measure_affinities(args: list[str]) -> None:
    """Trains once or with several seeds, and shows which tasks help one another.

    Args:
        args: The command line after the command.

    Raises:
        UserError: A setting is wrong, a training has failed, or nothing was measured.
    """
    pairs = split_flags(args, several=False)
    if any(asks_for_help(key) for key, _ in pairs):
        CLI(args, own=(*OWN, *(flag for flag in OF_TRAINING if flag.name in SHARED)), trains=True)
    call = read_call(pairs)
    if call.seeds is None:
        AffinityTraining.from_call(call).start()
    else:
        AffinitySeeds(call).run()
