"""The audit of a run's calibration."""

from src.cli.auditing.call import AuditCall
from src.cli.flags import Flag

CALIBRATION: tuple[Flag, ...] = ()


def audit_calibration(call: AuditCall) -> None:
    """Audits calibration."""
    raise NotImplementedError
