"""Measures how much each input of a run counts: python -m src.select --run RUN [--split val].

For each column and task, the fall of the task's own score when the column's values are permuted,
or are a constant, with 95 % intervals. Nothing is trained. ``--out FILE`` keeps the numbers (.csv,
.json) or a picture (.png, .pdf).
"""

from src.analysis.importance import Importance
from src.cli.entrypoint import main


def select(args: list[str]) -> list[Importance]:
    """Prints the importance of a run's inputs for each task, and returns it."""
    # not at the top: what cannot be imported is a mistake in one line, too
    from src.cli.selection import select_inputs

    return select_inputs(args)


if __name__ == "__main__":
    main(select)
