"""Ctrl-C and SIGTERM end a run cleanly: after the current step, with a checkpoint, on all ranks."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist

from src.monitoring.checkpoints import is_between_steps


class Interrupted(Exception):
    """The run was asked to stop, and has saved its state."""


class Interrupt(L.Callback):
    """Saves and stops when a signal has asked for it; a second Ctrl-C stops at once.

    A signal may reach one rank only, so the ranks ask each other every few steps, and all stop
    after the same one.

    Args:
        checkpoint: The file to save to.
        every_n_steps: Optimizer steps from one exchange to the next; a single process looks after
            each step.
    """

    def __init__(self, checkpoint: Path, every_n_steps: int = 10) -> None:
        self.checkpoint = checkpoint
        self.every_n_steps = every_n_steps
        self.asked = False
        self._first = False  # whether this is the first rank, which answers the person
        self._next = 0  # the step at which the ranks ask each other again
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listens from now on, in place of Lightning, whose ranks stop at different steps."""
        self._first = trainer.is_global_zero
        # no other thread may listen to signals
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._first and not self.asked:
            # print is not safe in a handler
            os.write(2, b"\nstopping after this step; Ctrl-C again stops at once\n")
        self.asked = True

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stops if someone asked, unless an accumulation or the step's validation is to come."""
        if self._is_time(trainer) and is_between_steps(trainer):
            self._stop_if_asked(trainer)

    def at_epoch_end(self, trainer: L.Trainer) -> None:
        """Stops if someone asked, after an epoch and its validation.

        A step before a validation is not looked at, and of a small table each step is one. This is
        no hook, since other callbacks have to come first.
        """
        if self._is_time(trainer):
            self._stop_if_asked(trainer)

    def _is_time(self, trainer: L.Trainer) -> bool:
        return trainer.global_step >= self._next if trainer.world_size > 1 else self.asked

    def _stop_if_asked(self, trainer: L.Trainer) -> None:
        self._next = trainer.global_step + self.every_n_steps
        if self._anyone_asked(trainer):
            trainer.save_checkpoint(self.checkpoint)
            raise Interrupted(
                f"stopped in epoch {trainer.current_epoch} after step {trainer.global_step}"
            )

    def _anyone_asked(self, trainer: L.Trainer) -> bool:
        if trainer.world_size == 1:
            return self.asked
        flag = torch.tensor(float(self.asked), device=trainer.strategy.root_device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag)

    def _stop_listening(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restores the signal handlers; a signal that came after the last step still counts.

        Raises:
            Interrupted: Someone asked during the last validation.
        """
        self._stop_listening()
        if self._anyone_asked(trainer):
            trainer.save_checkpoint(self.checkpoint)
            raise Interrupted("stopped after the last epoch, before the test")

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Restores the signal handlers."""
        self._stop_listening()
