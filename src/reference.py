"""Measures what is no network: python -m src.reference --method boosting [--KEY VALUE].

``--method constant`` is the best constant, ``linear`` ridge and logistic regression, ``boosting``
gradient boosting. All other flags are those of ``python -m src.train``.
"""

from src.cli.entrypoint import main


def reference(args: list[str]) -> None:
    """Fits a reference to the rows of a run, prints a table, and leaves a run folder."""
    # not at the top: what cannot be imported is a mistake in one line, too
    from src.cli.reference import run_reference

    run_reference(args)


if __name__ == "__main__":
    main(reference)
