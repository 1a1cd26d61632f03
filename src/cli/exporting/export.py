"""The export of a run: the work of ``python -m src.export``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from src.cli.coverage import read_coverage
from src.cli.exporting.comparison import Difference
from src.cli.exporting.exporter import Exporter
from src.cli.exporting.flags import OWN, check_flags
from src.cli.group_decisions import read_run_thresholds
from src.cli.loaded_run import LoadedRun, open_one_run
from src.cli.members import Member
from src.cli.preference import set_preference
from src.cli.terminal import remark
from src.deployment.coverage import Coverage
from src.deployment.folder import CARD, FILES
from src.deployment.model_card import write_card
from src.errors import UserError
from src.files.atomic import put_in_place, remove


def export_run(args: list[str]) -> Path:
    """Writes the folder of an exported run, once its answers are those of ``predict``.

    Args:
        args: The command line after the command.

    Returns:
        The folder.

    Raises:
        UserError: A setting is wrong, the run has no form in a graph, or its answers differ.
    """
    member = open_one_run(args, OWN, "src.export")
    config = member.cli.config
    out = check_flags(config, member)
    if config["to"] == "onnx":
        from src.deployment.onnx_core import check_packages

        check_packages()
    check_run(member)
    coverage = make_coverage(member)
    run = LoadedRun(member)
    set_preference([run.model], config["preference"])

    # the folder appears whole, or not at all
    unfinished = out.with_name(f".{out.name}.unfinished")
    remove(unfinished)
    unfinished.mkdir()
    try:
        exporter = Exporter(run, coverage, str(config["name"] or member.run.path.name))
        if config["to"] == "onnx":
            found = exporter.write_onnx(unfinished, config["quantise"])
        else:
            found = exporter.write_torch(unfinished)
        card = write_card(member.run, config["licence"])
        (unfinished / CARD).write_text(card, "utf-8")
        put_in_place(unfinished, out)
    finally:
        remove(unfinished)
    show(exporter, found, out, config)
    for line in run.data.remarks:
        remark(line)
    return out


def check_run(member: Member) -> None:
    """Refuses runs whose predictions follow from more than a row.

    Raises:
        UserError: The run learns from episodes, or decides by groups.
    """
    model = member.cli.model
    if model.meta is not None:
        raise UserError(
            "a run that learns from episodes predicts from support rows, which no model file "
            "holds: src.export takes runs on rows"
        )
    by_group = read_run_thresholds(member.run, member.checkpoint, model)
    if by_group:
        raise UserError(
            f"predict decides {', '.join(by_group)} by thresholds of groups, which a model file "
            f"does not hold: move group thresholds out of {member.run.path}, or predict with the "
            "run"
        )


def make_coverage(member: Member) -> Coverage | None:
    """Returns what makes sets and intervals, where --coverage asks for them.

    Raises:
        UserError: The run has no conformity scores, or compares them by group.
    """
    calibration = read_coverage([member])
    if calibration is None:
        return None
    if calibration.groups:
        columns = ", ".join(calibration.groups)
        raise UserError(
            f"--coverage: the run compares conformity scores by {columns}, which a model file does "
            "not do: calibrate it without groups"
        )
    for name in member.cli.model.tasks:
        if name not in calibration.conformal:
            remark(f"--coverage: {name} has no sets or intervals, which the audit explains")
    config = member.cli.config
    return Coverage(calibration.conformal, config["coverage"], config["sets"])


def show(exporter: Exporter, found: Sequence[Difference], out: Path, config: Any) -> None:
    """Prints how far each task is from ``predict``, and where the files are."""
    table = Table("task", box=None)
    table.add_column("largest difference", justify="right")
    if exporter.losses:
        for title in ("changed", "score before", "after", "loss"):
            table.add_column(title, justify="right")
    for each in found:
        cells = [each.task, f"{each.largest:.1e}"]
        if exporter.losses:
            before, after = exporter.losses[each.task]
            cells += [str(each.changed), f"{before:.4f}", f"{after:.4f}", f"{before - after:.4f}"]
        table.add_row(*cells)
    rows = len(exporter.batch)
    what = "of probabilities, and of numbers in standard deviations"
    print(f"differences from predict on {rows} validation rows, {what}:", flush=True)
    Console().print(table, crop=False)
    path = out / FILES[config["to"]]
    size = path.stat().st_size / 1e6
    print(f"{path}: {size:.2f} MB, {describe_form(config)}, any number of rows at once", flush=True)


def describe_form(config: Any) -> str:
    """Returns the form of the model in words."""
    if config["to"] == "torch":
        return "a program of torch.export"
    from src.deployment.onnx_core import OPSET

    return f"ONNX opset {OPSET}, weights in {config['quantise'] or 'fp32'}"
