"""The flags of ``python -m src.export``, and where its folder may go."""

from pathlib import Path
from typing import Any

from src.cli.coverage import COVERAGE
from src.cli.flags import Flag
from src.cli.members import Member
from src.cli.output import list_kept
from src.cli.preference import PREFERENCE
from src.errors import UserError, suggest_or_list

FORMS = ("onnx", "torch")
QUANTISED = ("int8", "bf16", "fp16")
OWN = (
    Flag("to", str, None, "onnx or torch: the form of the model.", required=True),
    Flag("out", str, "model", "The folder that is written."),
    Flag("overwrite", bool, False, "Replace the export that --out names."),
    Flag(
        "quantise",
        str | None,
        None,
        "int8, bf16 or fp16: smaller weights, with what each task loses; of onnx alone.",
    ),
    Flag("licence", str | None, None, "The licence of the model, for its card."),
    PREFERENCE,
    *COVERAGE,
)


def check_flags(config: Any, member: Member) -> Path:
    """Returns the folder that is written, looked at before any work is done.

    Args:
        config: The settings of the command.
        member: The run.

    Raises:
        UserError: A flag is wrong, or the folder holds what nobody gave up.
    """
    form, quantise = config["to"], config["quantise"]
    if form not in FORMS:
        raise UserError(f"--to is '{form}'; {suggest_or_list(form, FORMS)}")
    if quantise is not None and quantise not in QUANTISED:
        raise UserError(f"--quantise is '{quantise}'; {suggest_or_list(quantise, QUANTISED)}")
    if quantise is not None and form != "onnx":
        raise UserError("--quantise goes with --to onnx: a program of torch keeps its weights")
    if config["coverage"] is None and config["sets"] != "lac":
        raise UserError("--sets says how --coverage makes sets: add --coverage 0.9")
    return check_folder(Path(config["out"]), config["overwrite"], member)


def check_folder(out: Path, overwrite: bool, member: Member) -> Path:
    """Returns the folder that is written.

    Raises:
        UserError: It cannot be, or holds what nobody gave up.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: this is a file; name a folder")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}")
    if not out.is_dir() or not any(out.iterdir()):
        return out
    place = out.resolve()
    for kept in list_kept([member]):
        if place in (kept.resolve(), *kept.resolve().parents):
            raise UserError(f"--out {out}: the run or its data lie there; choose another folder")
    if not overwrite:
        raise UserError(f"--out {out}: the folder holds files; choose another, or add --overwrite")
    if not ((out / "handler.py").is_file() and (out / "schema.json").is_file()):
        raise UserError(f"--out {out}: the folder is no export, and --overwrite replaces no other")
    return out
