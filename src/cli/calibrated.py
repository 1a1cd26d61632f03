"""The calibration of a run that is opened: read, given to its model, and told."""

from collections.abc import Sequence
from pathlib import Path

from src.checkpoint import load_checkpoint
from src.cli.terminal import remark
from src.models import MultiTaskModel
from src.run import Run
from src.tasks.calibration.record import Calibration, read_calibration


def put_calibration(run: Run, checkpoint: Path | str, model: MultiTaskModel) -> None:
    """Gives a model the calibration of its run, where the run has one of these weights.

    Args:
        run: The run.
        checkpoint: The checkpoint whose weights the model gets.
        model: The model.

    Raises:
        Damaged: The file is.
    """
    found = read_own_calibration(run, checkpoint, model, says=True)
    if found is not None:
        model.calibrate(found.calibrators)


def read_own_calibration(
    run: Run, checkpoint: Path | str, model: MultiTaskModel, says: bool = False
) -> Calibration | None:
    """Returns the calibration of a run; None where it has none, or one of other weights.

    Args:
        run: The run.
        checkpoint: The checkpoint whose weights the model has.
        model: The model.
        says: Whether to say that the calibration is of other weights.

    Raises:
        Damaged: The file is.
    """
    found = read_calibration(run.calibration, model.tasks)
    if found is None:
        return None
    weights = load_checkpoint(checkpoint, mmap=True, whole=False)
    if found.fits(weights):
        return found
    if says:
        remark(
            f"{run.calibration} is of other weights (step {found.checkpoint['step']}, not "
            f"{weights['global_step']}): outputs are not calibrated; calibrate anew with python -m "
            f"src.audit --run {run.path} --only '[calibration]' --calibrate"
        )
    return None


def describe_calibration(models: Sequence[MultiTaskModel]) -> list[str]:
    """Returns a line that says which outputs are calibrated; none where nothing is.

    Args:
        models: The models of one or several runs.
    """
    counts = {name: sum(name in model.calibration for model in models) for name in models[0].tasks}
    names = [name for name, count in counts.items() if count]
    if not names:
        return []
    some = {name for name, count in counts.items() if 0 < count < len(models)}
    shown = [
        f"{name} ({counts[name]} of {len(models)} runs)" if name in some else name for name in names
    ]
    return [f"calibrated on validation rows: {', '.join(shown)}; --uncalibrated leaves that out"]
