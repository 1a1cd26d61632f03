"""Finds learning rates for the encoder and each head: python -m src.lr_find [--KEY VALUE].

``python -m src.lr_find --help`` lists what can be set.
"""

from src.cli.entrypoint import main


def lr_find(args: list[str]) -> None:
    """Trains for short whiles at rising rates, and prints which rates fit."""
    # not at the top: what cannot be imported is a mistake in one line, too
    from src.cli.lr_find import find_rates

    find_rates(args)


if __name__ == "__main__":
    main(lr_find)
