"""How a run ended, in words: why, which weights count, and what decided."""

from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, Timer

from src.monitoring.budget import Limits
from src.monitoring.selection import ALL


def why_ended(trainer: L.Trainer, patience: int | None, waited: int) -> str:
    """Returns what ended the training.

    Args:
        trainer: Has trained.
        patience: As of :class:`Watch`.
        waited: Validations since the last that was better.
    """
    max_epochs = trainer.max_epochs
    by_budget = any(isinstance(callback, Limits) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    if 0 <= trainer.max_steps <= trainer.global_step:
        return f"trainer.max_steps {trainer.max_steps} reached"
    if max_epochs is not None and 0 <= max_epochs <= trainer.current_epoch:
        return (
            f"all {max_epochs} epochs of the budget"
            if by_budget
            else f"trainer.max_epochs {max_epochs} reached"
        )
    if patience is not None and waited >= patience:
        return f"no better validation in {waited} (patience)"
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer) and (callback.time_remaining() or 0) <= 0:
            return "trainer.max_time is over"
        if isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
            return f"{type(callback).__name__}: {callback.stopping_reason_message}"
    return "a callback asked for it" if trainer.should_stop else "there was nothing to train on"


def which_weights(trainer: L.Trainer, selection: Mapping[str, Any], kept: bool) -> list[str]:
    """Returns lines that say which weights count, and what decided where no score was defined.

    Args:
        trainer: Has trained.
        selection: State of :class:`Selection`.
        kept: Whether there is a best checkpoint.
    """
    best, epochs = selection["best"], trainer.current_epoch
    if not kept:
        return [
            f"{why_none(trainer, selection)}: the last weights count, of epoch {epochs} (step {trainer.global_step})"
        ]
    lines = []
    if ALL in best:
        lines.append(
            f"best validation: epoch {best[ALL]['epoch']} of {epochs} (step {best[ALL]['step']})"
        )
    else:
        lines.append(
            f"tasks share no weights: the best epoch of {epochs} for each, as in the table"
        )
    if selection["undefined"]:
        lines.append(
            f"val/score is not defined in {selection['undefined']} validations, for want of labels: among those the lowest "
            "validation loss decides"
        )
    return lines


def why_none(trainer: L.Trainer, selection: Mapping[str, Any]) -> str:
    """Returns why no validation was the best."""
    every = trainer.check_val_every_n_epoch
    if selection["best"]:
        return "no checkpoint is kept"
    if selection["undefined"]:
        return "no validation row has a label"
    if trainer.limit_val_batches != 0 and every is not None and every > trainer.current_epoch:
        return f"no validation in {trainer.current_epoch} epochs (trainer.check_val_every_n_epoch is {every})"
    if trainer.limit_val_batches != 0 and every is None:
        return f"no validation in {trainer.global_step} steps (trainer.val_check_interval is {trainer.val_check_interval})"
    return "no validation"
