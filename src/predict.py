"""Predicts rows: python -m src.predict --run RUN --out predictions.parquet [--data.path new.csv].

With ``--split test`` it predicts rows of the run itself, and writes their labels beside. With
``--run RUN1,RUN2,RUN3`` it writes the mean of several runs' predictions, and their spread.
"""

from src.cli.entrypoint import main


def predict(args: list[str]) -> None:
    """Writes one row per input row: names, decoded values, class probabilities, labels."""
    # not at the top: what cannot be imported is a mistake in one line, too
    from src.cli.prediction import predict_run

    predict_run(args)


if __name__ == "__main__":
    main(predict)
