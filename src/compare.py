"""Compares methods fairly: python -m src.compare --config STUDY [--plan] [--parallel N].

``python -m src.compare --help`` lists what can be set.
"""

from src.cli.entrypoint import main


def compare(args: list[str]) -> None:
    """Runs methods x seeds x tuning with their baselines, and writes a report."""
    # not at the top: what cannot be imported is a mistake in one line, too
    from src.cli.comparison import compare as run_study

    run_study(args)


if __name__ == "__main__":
    main(compare)
