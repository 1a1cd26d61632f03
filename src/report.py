"""Makes the report of a study anew: python -m src.report STUDY [--metrics auroc,r2].

STUDY is the folder of a study, such as logs/studies/digits-balancing.
"""

from src.cli.entrypoint import main


def report(args: list[str]) -> None:
    """Reads a study's run folders, writes its report, and prints the main tables."""
    # not at the top: what cannot be imported is a mistake in one line, too
    from src.cli.report import report_study

    report_study(args)


if __name__ == "__main__":
    main(report)
