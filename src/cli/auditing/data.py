"""The audit of data before any training."""


def audit_data(args: list[str]) -> None:
    """Audits data."""
    raise NotImplementedError
