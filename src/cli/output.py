"""Files that a command writes its results to."""

from collections.abc import Sequence
from pathlib import Path

from src.cli.app import CLI
from src.errors import UserError
from src.run import Run


def check_output(path: str, endings: Sequence[str], cli: CLI) -> Path:
    """Returns where a command's results go, looked at before any work is done.

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
        run = Run(cli.config["run"])
        kept = [
            run.config,
            run.record,
            run.schema,
            run.metrics,
            run.best,
            run.last,
            *map(Path, cli.datamodule.files()),
        ]
        if any(file.exists() and out.samefile(file) for file in kept):
            raise UserError(
                f"--out {path}: this file belongs to the run or to its data; choose another name"
            )
        if not cli.config["overwrite"]:
            raise UserError(
                f"--out {path}: there is such a file; choose another name, or add --overwrite"
            )
    return out
