"""Trains a model: python -m src.train [--config FILE] [--devices N] [--resume RUN] [--KEY VALUE].

``python -m src.train --help`` lists what can be set.
"""

from src.cli.entrypoint import main


def train(args: list[str]) -> None:
    """Trains, tests the best checkpoint once, prints a table, and leaves a run folder."""
    # not at the top: what cannot be imported is a mistake in one line, too
    from src.cli.ensemble_training import asks_for_ensemble, train_ensemble
    from src.cli.training import Training

    if asks_for_ensemble(args):
        train_ensemble(args)
        return
    training = Training.from_flags(args)
    training.start()


if __name__ == "__main__":
    main(train)
