"""The audit of a run's shift."""

from src.cli.auditing.call import AuditCall
from src.cli.flags import Flag

SHIFT: tuple[Flag, ...] = ()


def audit_shift(call: AuditCall) -> None:
    """Audits shift."""
    raise NotImplementedError
