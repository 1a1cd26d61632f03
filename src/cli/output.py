"""Files that a command writes its results to."""

from collections.abc import Sequence
from pathlib import Path

from src.cli.members import Member
from src.errors import UserError


def check_output(path: str, endings: Sequence[str], members: Sequence[Member]) -> Path:
    """Returns where a command's results go, looked at before any work is done.

    Args:
        path: As --out names it.
        endings: What its name may end in.
        members: The runs that the results are of.

    Raises:
        UserError: The name ends in something else, there is no such folder, a folder has this
            name, a file of the run or of its data does, or another one that --overwrite does not
            give up.
    """
    out = Path(path)
    if out.suffix not in endings:
        raise UserError(
            f"--out {path}: unknown kind of file; the name must end in {' or '.join(endings)}"
        )
    if not out.parent.is_dir():
        raise UserError(f"--out {path}: there is no folder {out.parent}")
    if out.is_dir():
        raise UserError(f"--out {path}: this is a folder; name a file")
    if out.exists():
        if any(file.exists() and out.samefile(file) for file in list_kept(members)):
            raise UserError(
                f"--out {path}: this file belongs to the run or to its data; choose another name"
            )
        if not members[0].cli.config["overwrite"]:
            raise UserError(
                f"--out {path}: there is such a file; choose another name, or add --overwrite"
            )
    return out


def list_kept(members: Sequence[Member]) -> list[Path]:
    """Returns the files of runs and of their data, which no result may overwrite."""
    kept = []
    for member in members:
        run = member.run
        kept += [run.config, run.record, run.schema, run.metrics, run.best, run.last]
        kept += map(Path, member.cli.datamodule.files())
    return kept
