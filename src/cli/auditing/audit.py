"""The parts of ``python -m src.audit``, and which of them a call asks for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from src.cli.auditing.calibration import CALIBRATION, audit_calibration
from src.cli.auditing.call import AuditCall
from src.cli.auditing.data import audit_data
from src.cli.auditing.groups import GROUPS, audit_groups, check_group_flags
from src.cli.auditing.groups_tradeoff import TRADEOFF, audit_tradeoff
from src.cli.auditing.robustness import ROBUSTNESS, audit_robustness
from src.cli.auditing.shift import SHIFT, audit_shift
from src.cli.flags import Flag, split_flags
from src.cli.help import asks_for_help
from src.cli.loaded_run import LoadedRun, open_one_run
from src.cli.runs import find_value
from src.cli.terminal import remark
from src.data import Split
from src.errors import UserError, suggest_or_list


@dataclass(frozen=True)
class Part:
    """A part of the audit of a run.

    Attributes:
        audit: Prints what it finds, and keeps it in the folder of the audit.
        flags: The flags that it alone reads.
    """

    audit: Callable[[AuditCall], None]
    flags: tuple[Flag, ...]


PARTS: Mapping[str, Part] = {
    "calibration": Part(audit_calibration, CALIBRATION),
    "robustness": Part(audit_robustness, ROBUSTNESS),
    "shift": Part(audit_shift, SHIFT),
    "groups": Part(audit_groups, GROUPS),
}
OWN = (
    Flag("split", str, "test", "train, val or test: the rows that are audited; new rows whole."),
    Flag("only", list[str] | None, None, f"Parts of the audit, of {', '.join(PARTS)}."),
    Flag("out", str | None, None, "A folder for the results in place of audit/ in the run."),
    *(flag for part in PARTS.values() for flag in part.flags),
    *TRADEOFF,
)


def audit_run_or_data(args: list[str]) -> None:
    """Audits the run that --run names, or else the data that --data names.

    Args:
        args: The command line after the command.

    Raises:
        UserError: A setting is wrong, or the rows are.
    """
    given = {key for key, _ in split_flags(args)}
    named = {key.partition(".")[0] for key in given}
    if find_value("run", args) is None and named & {"data", "config"}:
        theirs = given & {flag.name for flag in OWN} - {"out"}
        if theirs:
            name = min(theirs)
            raise UserError(f"--{name} is for the audit of a run: name it, too, with --run RUN")
        audit_data(args)
        return
    if find_value("run", args) is None and not any(map(asks_for_help, given)):
        raise UserError(
            "name what is audited: --run RUN, or data before any training, as in --data Table "
            "--data.path people.csv --data.targets '[income]'"
        )
    check_group_flags(given)
    if find_value("tradeoff", args) is not None:
        audit_tradeoff(args, OWN)
        return
    member = open_one_run(args, OWN, "src.audit")
    config = member.cli.config
    split = config["split"]
    if split not in ("train", "val", "test"):
        raise UserError(f"--split is '{split}'; it must be train, val or test")
    # thresholds by group change what the run decides: they are asked for alone
    only = config["only"]
    if config["thresholds"] is not None:
        if config["calibrate"] or only not in (None, ["groups"]):
            raise UserError(
                "--thresholds is asked for alone, without --calibrate and other parts in --only: "
                "it reads the run as these have left it"
            )
        only = ["groups"]
    parts = choose_parts(only, config["groups"] is not None)

    folder = Path(config["out"] or member.run.path / "audit")
    folder.mkdir(parents=True, exist_ok=True)
    run = LoadedRun(member)
    call = AuditCall(run, config, cast(Split, split), folder)
    print(run.data.describe(call.split), flush=True)
    for name in parts:
        PARTS[name].audit(call)
    for line in run.data.remarks:
        remark(line)
    print(f"results: {folder}", flush=True)


def choose_parts(only: list[str] | None, has_groups: bool) -> list[str]:
    """Returns the parts that a call asks for; groups are compared where some are named.

    Raises:
        UserError: There is no such part, or it lacks its groups.
    """
    for name in only or ():
        if name not in PARTS:
            raise UserError(f"--only names '{name}'; {suggest_or_list(name, PARTS)}")
    if only and "groups" in only and not has_groups:
        raise UserError("--only names 'groups': name their columns, too, as in --groups '[sex]'")
    asked = list(only or PARTS)
    return [name for name in asked if name != "groups" or has_groups]
