"""Explains a run's predictions: python -m src.explain --run RUN [--task income] [--rows 500].

Attributions of each task's outputs to the columns of a table, the pixels of images, or the tokens
of texts, with the checks beside them: do they add up, and does the score fall faster without what
they name than without random parts? ``--sharing`` shows how the tasks share instead: how alike
their features are, gates, stitches, affinities. Results lie in the folder explain of the run; the
page explain.html opens offline. Counterfactuals (what would have to change for another prediction)
are out of scope.
"""

from src.cli.entrypoint import main


def explain(args: list[str]) -> None:
    """Prints attributions of a run, and keeps them in its folder explain."""
    # not at the top: what cannot be imported is a mistake in one line, too
    from src.cli.explaining.explain import explain_run

    explain_run(args)


if __name__ == "__main__":
    main(explain)
