"""Merges runs into one network: python -m src.merge --runs A B C --method average [--name NAME].

``python -m src.merge --help`` lists what can be set.
"""

from src.cli.entrypoint import main


def merge(args: list[str]) -> None:
    """Merges the weights of runs of one start, and leaves a run folder with the heads of all."""
    # not at the top: what cannot be imported is a mistake in one line, too
    from src.cli.merge import merge_runs

    merge_runs(args)


if __name__ == "__main__":
    main(merge)
