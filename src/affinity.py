"""Measures which tasks help one another: python -m src.affinity [--run RUN] [--KEY VALUE].

``python -m src.affinity --help`` lists what can be set.
"""

from src.cli.entrypoint import main


def affinity(args: list[str]) -> None:
    """Trains, and prints the affinities of the tasks and their best partition into networks."""
    # not at the top: what cannot be imported is a mistake in one line, too
    from src.cli.affinity_command import measure_affinities

    measure_affinities(args)


if __name__ == "__main__":
    main(affinity)
