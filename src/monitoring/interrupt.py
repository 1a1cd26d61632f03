"""Ctrl-C and SIGTERM end a run cleanly: after the step in hand, with a checkpoint, on all ranks together."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist

from src.monitoring.checkpoints import between_steps


class Interrupted(Exception):
    """The run was asked to stop, and has saved its state."""


class Interrupt(L.Callback):
    """Saves and stops when a signal has asked for it; a second Ctrl-C stops at once.

    A signal may reach one rank only, so the ranks ask each other every few steps, and all stop
    after the same one.

    Args:
        checkpoint: Where to save.
        every_n_steps: Optimizer steps between two questions; a single process looks after each.
    """

    def __init__(self, checkpoint: Path, every_n_steps: int = 10) -> None:
        self.checkpoint, self.every_n_steps = checkpoint, every_n_steps
        self.asked = self._first = False
        self._next = 0  # the step at which the ranks ask each other again
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listens from now on, in the place of Lightning, whose ranks stop at different steps and save nothing."""
        self._first = trainer.is_global_zero
        if (
            threading.current_thread() is not threading.main_thread()
        ):  # no other thread may listen to signals
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._first and not self.asked:
            os.write(
                2, b"\nstopping after this step; Ctrl-C again stops at once\n"
            )  # print is not safe in a handler
        self.asked = True

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Looks whether someone asked, once nothing is half done: no accumulation, and no validation about to come."""
        if self._is_time(trainer) and between_steps(trainer):
            self._look(trainer)

    def at_epoch_end(self, trainer: L.Trainer) -> None:
        """Looks after an epoch and all that follows from it: a step that a validation follows is never looked at before.

        Of a small table each step is such a one. No hook of this class, since other callbacks have
        to come first.
        """
        if self._is_time(trainer):
            self._look(trainer)

    def _is_time(self, trainer: L.Trainer) -> bool:
        return trainer.global_step >= self._next if trainer.world_size > 1 else self.asked

    def _look(self, trainer: L.Trainer) -> None:
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
        """Gives the signals back; one that came after the last step still counts.

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
        """Gives the signals back."""
        self._stop_listening()
