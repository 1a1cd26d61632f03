"""Callbacks that only watch: when one fails, the run goes on without it."""

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import lightning as L
from lightning.fabric.utilities.rank_zero import rank_zero_only

from src.errors import in_one_line
from src.overhead import HOOKS, CallbackGroup


class Watcher(L.Callback):
    """Base of callbacks that change nothing in a run, so that their failure need not end it.

    A hook that meets other processes must fail on all of them or on none, or the others would wait
    forever: it runs everything that may fail on one process alone by :func:`src.errors.attempt`,
    and then calls :func:`agree`.
    """


def agree(trainer: L.Trainer, error: Exception | None) -> None:
    """Fails on all processes where one has failed; all of them call this.

    Args:
        trainer: The trainer.
        error: The error of this process, if it has failed.

    Raises:
        Exception: The error of this process, or a RuntimeError where another one has failed.
    """
    failed = trainer.strategy.reduce_boolean_decision(error is not None, all=False)
    if error is not None:
        raise error
    if failed:
        raise RuntimeError("it failed in another process")


def guard_hook(watcher: L.Callback, hook: Callable[..., object]) -> Callable[..., None]:
    """Returns a hook whose failure is one line, and leaves the watcher out from then on."""
    # a partial, unlike a closure, can be sent to a process that is spawned
    return partial(call_guarded, watcher, hook)


def call_guarded(
    watcher: L.Callback, hook: Callable[..., object], *args: Any, **kwargs: Any
) -> None:
    """Calls a hook of a watcher that has not failed yet."""
    if getattr(watcher, "left_out", False):
        return
    try:
        hook(*args, **kwargs)
    except Exception as error:
        watcher.left_out = True  # type: ignore[attr-defined]
        warn(type(watcher).__name__, error)
        # a progress bar takes itself off the terminal
        with suppress(Exception):
            trainer, model = args[:2]
            type(watcher).teardown(watcher, trainer, model, stage="fit")


class WatcherGroup(CallbackGroup):
    """A group in which a :class:`Watcher` that fails is left out from then on.

    Guards, and callbacks that save checkpoints, end the run.
    """

    def find_hook(self, callback: L.Callback, name: str) -> Callable[..., object]:
        """Returns a callback's hook, guarded where the callback only watches."""
        hook = super().find_hook(callback, name)
        return guard_hook(callback, hook) if isinstance(callback, Watcher) else hook


def guard_hooks(watcher: L.Callback) -> None:
    """Guards all hooks of a callback that Lightning calls itself."""
    for hook in HOOKS:
        if getattr(type(watcher), hook) is not getattr(L.Callback, hook):
            setattr(watcher, hook, guard_hook(watcher, getattr(watcher, hook)))


@rank_zero_only
def warn(name: str, error: BaseException) -> None:
    """Says in one line who failed, and the first cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    reason = in_one_line(error)
    kind = type(error).__name__
    what = f"{kind}: {reason}" if reason else kind
    line = f"warning: {name} failed and is left out for the rest of the run: {what}"
    print(line, file=sys.stderr, flush=True)
