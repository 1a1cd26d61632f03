"""Shortcuts through Lightning that save time in every step, each with what it saves.

The times are those of a step of a small model (an MLP of 64-256-256 with 8 tasks, 3.5 ms) on one
core. Nothing here changes a number.
"""

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import lightning as L
from lightning.pytorch.profilers import PassThroughProfiler
from torch.optim import Optimizer

HOOKS = tuple(
    name for name in dir(L.Callback) if name.startswith("on_") or name in ("setup", "teardown")
)
# hooks of a step that may be None where there is nothing to do: Lightning then calls nothing
STEPS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
NOTHING: nullcontext[None] = nullcontext()


class LeanModule(L.LightningModule):
    """A LightningModule without some of the bookkeeping around a step."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Writes the signature of ``training_step`` down, which Lightning looks up in each step.

        Saves 0.05 ms a step.
        """
        super().__init_subclass__(**kwargs)
        step = cls.__dict__.get("training_step")
        if step is not None:
            step.__signature__ = inspect.signature(step)

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets the name of the running hook, which Lightning does 40 times a step, directly.

        Saves 0.1 ms a step: ``nn.Module`` looks through its parameters, buffers and modules first.
        """
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips where that was asked for.

        Saves 0.04 ms a step, in which Lightning would find out that nobody has asked.
        """
        if gradient_clip_val:
            super().configure_gradient_clipping(
                optimizer, gradient_clip_val, gradient_clip_algorithm
            )


class NoProfiler(PassThroughProfiler):
    """Gives the same empty context each time.

    Lightning opens some 40 profiling contexts a step; its own pass-through builds a generator for
    each.
    """

    def profile(self, action_name: str) -> Any:
        """Returns a context that does nothing."""
        return NOTHING


class Quiet(L.Callback):
    """Base of callbacks without hooks in a step: they are None, and so Lightning calls nothing."""

    def __init__(self) -> None:
        for hook in STEPS:
            setattr(self, hook, None)


class CallbackGroup(L.Callback):
    """Forwards each hook to the callbacks that define it, in their order.

    Lightning calls every callback at each of six hooks a step, at 2 to 3 microseconds a call,
    whether it defines the hook or not. The callbacks must have no state to save: Lightning knows
    only this one.

    Args:
        callbacks: The callbacks.
    """

    def __init__(self, *callbacks: L.Callback) -> None:
        for callback in callbacks:
            assert type(callback).state_dict is L.Callback.state_dict, (
                f"{callback} has state that would be lost"
            )
        for hook in HOOKS:
            default = getattr(L.Callback, hook)
            acting = [c for c in callbacks if getattr(type(c), hook) != default]
            hooks = [self.find_hook(callback, hook) for callback in acting]
            # one of them is called without a detour
            if len(hooks) == 1:
                setattr(self, hook, hooks[0])
            elif hooks:
                setattr(self, hook, partial(self._each, hooks))
            elif hook in STEPS:
                setattr(self, hook, None)

    def find_hook(self, callback: L.Callback, name: str) -> Callable[..., object]:
        """Returns the hook of a callback that the group calls."""
        hook: Callable[..., object] = getattr(callback, name)
        return hook

    @staticmethod
    def _each(hooks: list[Callable[..., object]], *args: Any, **kwargs: Any) -> None:
        for hook in hooks:
            hook(*args, **kwargs)
