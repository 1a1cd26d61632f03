"""The audit of a run's calibration, and the calibration of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from src.analysis.charts.chart import save_chart
from src.analysis.charts.reliability import draw_reliability
from src.cli.auditing.calibration_fit import calibrate_run
from src.cli.auditing.calibration_rows import PredictedRows, name_groups, predict_rows
from src.cli.auditing.calibration_tables import (
    Covered,
    Measured,
    measure_coverage,
    tabulate_bins,
    tabulate_coverage,
    tabulate_measures,
)
from src.cli.auditing.call import AuditCall
from src.cli.calibrated import read_own_calibration
from src.cli.flags import Flag
from src.errors import UserError
from src.files.atomic import write_atomically
from src.files.typed import to_json
from src.tasks.calibration.calibrators import Calibrator
from src.tasks.calibration.measures import BINS
from src.tasks.calibration.record import Calibration

CALIBRATION: tuple[Flag, ...] = (
    Flag(
        "calibrate",
        bool,
        False,
        "Fit temperatures, Platt's scaling or a map of quantiles on validation rows, and keep them "
        "in the run: predict, evaluate, export and serve then use them.",
    ),
)
BEFORE, AFTER = "before", "after"  # calibration
NOTE = (
    f"ECE: mean |confidence - share that is right| over {BINS} bins of equal width, above 0 by "
    "chance where rows are few; Brier: mean squared error of probabilities; NLL: mean -log p(label)"
)
COVERED = (
    "held: the share of labels in sets or intervals; size: mean number of classes, or mean width "
    "in the label's unit; aps holds more than it says where classes are few"
)


def audit_calibration(call: AuditCall) -> None:
    """Measures how well predictions come true, and with --calibrate makes them.

    Prints tables, and writes calibration.json, calibration.csv and a picture.

    Raises:
        UserError: The run learns from episodes, or new rows are to calibrate it.
    """
    run = call.run
    if run.model.meta is not None:
        raise UserError(
            "a run that learns from episodes has other predictions in each: its calibration is "
            "not measured; name other parts with --only"
        )
    if call.config["calibrate"]:
        if run.data.is_new:
            raise UserError(
                f"--calibrate: {run.data.files()[0]} holds new rows, and a run is calibrated on "
                "its own validation rows: leave out --data.path"
            )
        columns = call.config["groups"] or []
        calibration = calibrate_run(run, columns, call.config["seed_everything"])
        splits = [predict_rows(run, "val")]
        if len(run.data.split("test")):
            splits.append(predict_rows(run, "test"))
        run.model.calibrate(calibration.calibrators)
        audit_rows(call, splits, calibration)
        print(
            f"saved: {run.run.calibration}; without this file, or with --uncalibrated, outputs are "
            "as the network gives them",
            flush=True,
        )
        return

    found = None
    if not call.config["uncalibrated"]:
        found = read_own_calibration(run.run, run.member.checkpoint, run.model)
    if found is None:
        print("outputs are as the network gives them; --calibrate fits a calibration", flush=True)
    audit_rows(call, [predict_rows(run, call.split)], found)


def audit_rows(
    call: AuditCall, splits: Sequence[PredictedRows], calibration: Calibration | None
) -> None:
    """Measures rows before and after a calibration, prints it, and writes it.

    Args:
        call: The call.
        splits: The rows.
        calibration: The calibration; None where there is none.
    """
    tasks = call.run.tasks
    calibrators: Mapping[str, Calibrator] = {} if calibration is None else calibration.calibrators
    measured: list[Measured] = []
    covered: list[Covered] = []
    for rows in splits:
        after = rows.calibrate(calibrators)
        if rows.total > len(rows.batch):
            print(f"{rows.split}: {len(rows.batch)} of {rows.total} rows are read", flush=True)
        for name, task in tasks.items():
            states = [(BEFORE, rows)]
            if name in calibrators:
                states.append((AFTER, after))
            for state, own in states:
                measured.append(Measured(name, rows.split, state, own.measure(name, task)))
        # validation rows are covered as asked, since they have set the scores: the last rows count
        if calibration is not None:
            covered = []
            columns = calibration.groups
            groups = name_groups(call.run.data, rows.split, columns) if columns else None
            for name, conformal in calibration.conformal.items():
                covered += measure_coverage(name, conformal, after, groups)

    console = Console()
    for table in (*tabulate_measures(measured), *tabulate_coverage(covered)):
        console.print(table, crop=False)
    print(NOTE, flush=True)
    if covered:
        print(COVERED, flush=True)
    write_results(call, measured, covered)


def write_results(
    call: AuditCall, measured: Sequence[Measured], covered: Sequence[Covered]
) -> None:
    """Writes what was measured as numbers and as a picture, also for TensorBoard."""
    content: dict[str, Any] = {
        "measures": [one.describe() for one in measured],
        "coverage": [vars(one) for one in covered],
    }
    folder = call.folder
    write_atomically(folder / "calibration.json", lambda file: file.write(to_json(content)))
    text = tabulate_bins(measured).to_csv(index=False)
    write_atomically(folder / "calibration.csv", lambda file: file.write(text.encode()))

    curves: dict[str, dict[str, Any]] = {}
    last = measured[-1].split if measured else ""
    for one in measured:
        if one.split == last:
            curves.setdefault(one.task, {})[one.state] = one.found
    chart = draw_reliability(curves)
    if chart.figure is None:
        return
    save_chart(chart, folder)
    with SummaryWriter(str(folder)) as writer:
        writer.add_figure("calibration", chart.figure, close=False)
