"""The audit of a run's robustness."""

from src.cli.auditing.call import AuditCall
from src.cli.flags import Flag

ROBUSTNESS: tuple[Flag, ...] = ()


def audit_robustness(call: AuditCall) -> None:
    """Audits robustness."""
    raise NotImplementedError
