"""The end of a run in words: why it ended, which weights count, and what decided."""

from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, Timer

from src.monitoring.budget import Limits, format_count
from src.monitoring.selection import ALL
from src.monitoring.watch import Watch


def explain_end(trainer: L.Trainer, watch: Watch, selection: Mapping[str, Any]) -> str:
    """Says why the training ended.

    Args:
        trainer: The trainer, after training.
        watch: How the run was watched, its patience among that.
        selection: The state of :class:`Selection`.
    """
    max_epochs = trainer.max_epochs
    by_budget = any(isinstance(callback, Limits) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    if 0 <= trainer.max_steps <= trainer.global_step:
        return f"trainer.max_steps {trainer.max_steps} reached"
    if max_epochs is not None and 0 <= max_epochs <= trainer.current_epoch:
        if by_budget:
            return f"all {max_epochs} epochs of the budget"
        return f"trainer.max_epochs {max_epochs} reached"
    waited = selection["waited"]
    if watch.patience is not None and waited >= watch.patience:
        return f"no better validation in {waited} (patience)"
    if watch.patience_by_task is not None and trainer.should_stop:
        waits = [wait["waited"] for wait in selection["tasks"].values()]
        if waits and min(waits) >= watch.patience_by_task:
            validations = format_count(watch.patience_by_task, "validation")
            return f"no task better in {validations} (patience_by_task)"
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer) and (callback.time_remaining() or 0) <= 0:
            return "trainer.max_time is over"
        if isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
            return f"{type(callback).__name__}: {callback.stopping_reason_message}"
    return "a callback asked for it" if trainer.should_stop else "there was nothing to train on"


def describe_weights(
    trainer: L.Trainer, selection: Mapping[str, Any], kept: bool, whole: bool = False
) -> list[str]:
    """Returns lines that say which weights count, and what decided where no score was defined.

    Args:
        trainer: The trainer, after training.
        selection: The state of :class:`Selection`.
        kept: Whether there is a best checkpoint.
        whole: Whether each task has the whole network of its own best epoch.
    """
    best = selection["best"]
    epochs = trainer.current_epoch
    if not kept:
        why = explain_no_best(trainer, selection)
        return [f"{why}: the last weights count, of epoch {epochs} (step {trainer.global_step})"]

    if ALL in best:
        epoch, step = best[ALL]["epoch"], best[ALL]["step"]
        lines = [f"best validation: epoch {epoch} of {epochs} (step {step})"]
    elif whole:
        lines = [f"each task with the whole network of its best epoch of {epochs}, as in the table"]
    else:
        lines = [f"tasks share no weights: the best epoch of {epochs} for each, as in the table"]
    if selection["undefined"]:
        lines.append(
            f"val/score is not defined in {selection['undefined']} validations, for want of "
            "labels: among those the lowest validation loss decides"
        )
    return lines


def explain_no_best(trainer: L.Trainer, selection: Mapping[str, Any]) -> str:
    """Says why no validation was the best."""
    every = trainer.check_val_every_n_epoch
    if selection["best"]:
        return "no checkpoint is kept"
    if selection["undefined"]:
        return "no validation row has a label"
    if trainer.limit_val_batches == 0:
        return "no validation"
    if every is None:
        interval = f"(trainer.val_check_interval is {trainer.val_check_interval})"
        return f"no validation in {trainer.global_step} steps {interval}"
    if every > trainer.current_epoch:
        interval = f"(trainer.check_val_every_n_epoch is {every})"
        return f"no validation in {trainer.current_epoch} epochs {interval}"
    return "no validation"
