"""Audits a run, or data before any training: python -m src.audit --run RUN, or --data CLASS.

With ``--run`` it measures how far a run can be trusted: calibration, robustness against corrupted
inputs, shift, and with ``--groups`` the scores of groups of people. Without a run it looks through
the data for leaks and other traps, and names the flag that mends each.
"""

from src.cli.entrypoint import main


def audit(args: list[str]) -> None:
    """Prints what it finds, and keeps it in the folder audit of the run."""
    # not at the top: what cannot be imported is a mistake in one line, too
    from src.cli.auditing.audit import audit_run_or_data

    audit_run_or_data(args)


if __name__ == "__main__":
    main(audit)
