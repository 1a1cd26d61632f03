"""Evaluates a run's best checkpoint: python -m src.evaluate --run RUN [--split test] [--out FILE].

With ``--data.path FILE`` it evaluates new rows, and with ``--run RUN1,RUN2,RUN3`` the mean of the
predictions of several runs.
"""

from src.cli.entrypoint import main


def evaluate(args: list[str]) -> dict[str, float]:
    """Prints a table of tasks x metrics, the same on any number of devices, and returns it."""
    # not at the top: what cannot be imported is a mistake in one line, too
    from src.cli.evaluation import evaluate_run

    return evaluate_run(args)


if __name__ == "__main__":
    main(evaluate)
