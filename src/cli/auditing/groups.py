"""The audit of a run's groups."""

from src.cli.auditing.call import AuditCall
from src.cli.flags import Flag

GROUPS: tuple[Flag, ...] = (
    Flag("groups", list[str] | None, None, "Columns of groups of people that are compared."),
)


def audit_groups(call: AuditCall) -> None:
    """Audits groups."""
    raise NotImplementedError
