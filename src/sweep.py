"""Tunes one configuration: python -m src.sweep --config FILE --sweep SPACE [--trials N].

``python -m src.sweep --help`` lists what can be set.
"""

from src.cli.entrypoint import main


def sweep(args: list[str]) -> None:
    """Searches for the settings with the best validation scores, and prints the best."""
    # not at the top: what cannot be imported is a mistake in one line, too
    from src.cli.sweep import sweep as run_sweep

    run_sweep(args)


if __name__ == "__main__":
    main(sweep)
