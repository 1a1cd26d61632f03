"""A run is calibrated: maps and conformity scores from its validation rows, kept in its folder."""

from collections.abc import Sequence

from src.checkpoint import load_checkpoint
from src.cli.auditing.calibration_rows import PredictedRows, name_groups, predict_rows
from src.cli.loaded_run import LoadedRun
from src.cli.progress_bar import show_progress
from src.errors import UserError
from src.tasks.calibration.calibrators import Calibrator
from src.tasks.calibration.conformal import Conformal, explain_refusal, score_rows
from src.tasks.calibration.fitting import fit_calibrator
from src.tasks.calibration.record import Calibration, mark_checkpoint, write_calibration
from src.tasks.labels import is_labelled


def calibrate_run(run: LoadedRun, columns: Sequence[str], seed: int) -> Calibration:
    """Fits the calibration of a run, says what it is, and keeps it in the run.

    Args:
        run: The run.
        columns: The columns by whose groups conformity scores are compared; none for all rows.
        seed: Seed of the random part of conformity scores.

    Raises:
        UserError: There are no validation rows, or no task can be calibrated.
    """
    rows = predict_rows(run, "val")
    calibrators: dict[str, Calibrator] = {}
    with show_progress("tasks", len(run.tasks)) as advance:
        for name, task in run.tasks.items():
            targets = rows.batch.targets[name]
            try:
                found = fit_calibrator(task, rows.outputs[name], targets, rows.find_weights(name))
                calibrators[name] = found
                print(f"{name}: {found.say()}", flush=True)
            except UserError as error:
                print(f"{name}: outputs stay as they are, since {error}", flush=True)
            advance()

    conformal = score_tasks(run, rows.calibrate(calibrators), columns, seed)
    if not calibrators and not conformal:
        raise UserError("no task of the run can be calibrated")
    counts = {}
    for name in run.tasks:
        known = is_labelled(rows.batch.targets[name])
        counts[name] = int(known.flatten(1).any(1).sum()) if known.ndim > 1 else int(known.sum())
    checkpoint = load_checkpoint(run.member.checkpoint, mmap=True, whole=False)
    calibration = Calibration(
        mark_checkpoint(checkpoint), counts, calibrators, conformal, tuple(columns)
    )
    write_calibration(run.run.calibration, calibration)
    return calibration


def score_tasks(
    run: LoadedRun, rows: PredictedRows, columns: Sequence[str], seed: int
) -> dict[str, Conformal]:
    """Returns {task: its conformity scores}, and says which tasks have none.

    Args:
        run: The run.
        rows: Its validation rows, with calibrated outputs.
        columns: The columns by whose groups scores are compared.
        seed: Seed of the random part of scores.
    """
    words = name_groups(run.data, "val", columns) if columns else None
    groups = None if words is None else [words[row] for row in rows.batch.ids.tolist()]
    found: dict[str, Conformal] = {}
    for name, task in run.tasks.items():
        outputs = rows.outputs[name]
        reason = explain_refusal(task, outputs)
        if reason is None:
            shares = rows.draw_shares(name, seed)
            try:
                found[name] = score_rows(task, outputs, rows.batch.targets[name], shares, groups)
            except UserError as error:
                reason = str(error)
        if reason is not None:
            print(f"{name}: no sets or intervals, since {reason}", flush=True)
    return found
