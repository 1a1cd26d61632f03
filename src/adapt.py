"""Learns a task that a run never saw from few examples: python -m src.adapt --run RUN.

A new task on the run's rows: ``--data.targets '[task]'``; on others: ``--data Table --data.path
FILE --data.targets '[task]'``. Several methods learn from the same random draws of 5, 10, 20 and 50
examples, and the best of them on validation rows becomes a run folder. ``python -m src.adapt
--help`` lists what can be set.
"""

from src.cli.entrypoint import main


def adapt(args: list[str]) -> None:
    """Compares methods that learn a new task from few examples, and leaves the best as a run."""
    # not at the top: what cannot be imported is a mistake in one line, too
    from src.cli.adapt import adapt_run

    adapt_run(args)


if __name__ == "__main__":
    main(adapt)
