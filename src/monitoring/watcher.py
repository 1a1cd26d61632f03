"""Callbacks that only watch: when one fails, the run goes on without it."""

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, cast

import lightning as L
from lightning.fabric.utilities.rank_zero import rank_zero_only

HOOKS = tuple(
    name for name in dir(L.Callback) if name.startswith("on_") or name in ("setup", "teardown")
)


class Watcher(L.Callback):
    """Base of callbacks that change nothing of a run, so that a failure of theirs need not end it.

    A hook that meets other processes must fail on all of them or on none, or the others would wait
    for ever: it tries what may fail here by :func:`attempt`, and says how that went by
    :func:`agree`.
    """


def attempt(action: Callable[[], object]) -> Exception | None:
    """Runs something, and returns the error that ended it, if any."""
    try:
        action()
    except Exception as error:
        return error
    return None


def agree(trainer: L.Trainer, error: Exception | None) -> None:
    """Fails on all processes where one has failed; all of them call this.

    Raises:
        Exception: The error of this process, or a word of another one's.
    """
    failed = trainer.strategy.reduce_boolean_decision(error is not None, all=False)
    if error is not None:
        raise error
    if failed:
        raise RuntimeError("it failed in another process")


def guarded(watcher: L.Callback, hook: Callable[..., Any]) -> Callable[..., None]:
    """Returns a hook of a watcher whose failure is one line, and leaves the watcher out from then on."""
    return partial(call_guarded, watcher, hook)  # which can be sent to a process that is spawned


def call_guarded(watcher: L.Callback, hook: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Calls a hook of a watcher that has not failed yet."""
    if getattr(watcher, "left_out", False):
        return
    try:
        hook(*args, **kwargs)
    except Exception as error:
        watcher.left_out = True  # type: ignore[attr-defined]
        warn(type(watcher).__name__, error)
        with suppress(Exception):  # a progress bar takes itself off the terminal
            cast(Any, type(watcher)).teardown(watcher, *args[:2], stage="fit")


def guard_hooks(watcher: L.Callback) -> None:
    """Guards all hooks of a callback that Lightning calls itself."""
    for hook in HOOKS:
        if getattr(type(watcher), hook) is not getattr(L.Callback, hook):
            setattr(watcher, hook, guarded(watcher, getattr(watcher, hook)))


@rank_zero_only
def warn(name: str, error: BaseException) -> None:
    """Says in one line who failed, and why in the first place."""
    while error.__cause__ is not None:
        error = error.__cause__
    reason = " ".join(str(error).split())
    what = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    print(
        f"warning: {name} failed and is left out for the rest of the run: {what}",
        file=sys.stderr,
        flush=True,
    )
