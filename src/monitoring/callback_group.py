"""Several callbacks as one, for the price of one."""

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L

from src.monitoring.watcher import HOOKS, Watcher, guard_hook

# hooks of a step that may be None where there is nothing to do: Lightning then calls nothing
STEPS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


class CallbackGroup(L.Callback):
    """Forwards each hook to the callbacks that define it, in their order.

    Lightning calls every callback at each of six hooks a step, at 2 to 3 microseconds a call,
    whether it defines the hook or not. The callbacks must have no state to save: Lightning knows
    only this one. A :class:`Watcher` that fails is left out from then on; guards, and callbacks
    that save checkpoints, end the run.

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
            acting = [find_hook(c, hook) for c in callbacks if getattr(type(c), hook) != default]
            # one of them is called without a detour
            if len(acting) == 1:
                setattr(self, hook, acting[0])
            elif acting:
                setattr(self, hook, partial(self._each, acting))
            elif hook in STEPS:
                setattr(self, hook, None)

    @staticmethod
    def _each(hooks: list[Callable[..., object]], *args: Any, **kwargs: Any) -> None:
        for hook in hooks:
            hook(*args, **kwargs)


def find_hook(callback: L.Callback, name: str) -> Callable[..., object]:
    """Returns a callback's hook, guarded where the callback only watches."""
    hook = getattr(callback, name)
    return guard_hook(callback, hook) if isinstance(callback, Watcher) else hook
