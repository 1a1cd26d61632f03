"""Averages runs into one: python -m src.ensemble --run RUN1,RUN2,RUN3 [--name NAME] [--no_test].

It leaves a run folder with the results of the averaged predictions, and trains nothing.
"""

from src.cli.entrypoint import main


def ensemble(args: list[str]) -> dict[str, float]:
    """Evaluates the mean of several runs' predictions on validation and test rows."""
    # not at the top: what cannot be imported is a mistake in one line, too
    from src.cli.ensemble_run import make_ensemble

    return make_ensemble(args)


if __name__ == "__main__":
    main(ensemble)
