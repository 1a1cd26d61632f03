"""Several callbacks as one, for the price of one."""

from functools import partial
from typing import Any

import lightning as L

from src.monitoring.watcher import HOOKS, Watcher, guarded

# hooks of a step that may be None where there is nothing to do: Lightning then calls nothing
STEPS = (
    *(
        "on_train_batch_start",
        "on_before_zero_grad",
        "on_before_backward",
        "on_after_backward",
        "on_before_optimizer_step",
    ),
    "on_train_batch_end",
)


class CallbackGroup(L.Callback):
    """Forwards each hook to those of its callbacks that have something to do there, in their order.

    Lightning calls every callback at each of six hooks a step, at 2 to 3 microseconds a call,
    whether it has anything to do there
    or not. The callbacks must have no state to save: Lightning sees only this one. A
    :class:`Watcher` that fails is left out from then on; guards and what saves checkpoints end the
    run.

    Args:
        callbacks: What to put together.
    """

    def __init__(self, *callbacks: L.Callback) -> None:
        for callback in callbacks:
            assert type(callback).state_dict is L.Callback.state_dict, (
                f"{callback} has state that would be lost"
            )
        for hook in HOOKS:
            acting = [
                hook_of(c, hook)
                for c in callbacks
                if getattr(type(c), hook) is not getattr(L.Callback, hook)
            ]
            if len(acting) == 1:
                setattr(self, hook, acting[0])
            elif acting:
                setattr(self, hook, partial(self._each, acting))
            elif hook in STEPS:
                setattr(self, hook, None)

    @staticmethod
    def _each(hooks: list[Any], *args: Any, **kwargs: Any) -> None:
        for hook in hooks:
            hook(*args, **kwargs)


def hook_of(callback: L.Callback, name: str) -> Any:
    """Returns a callback's hook, guarded where the callback only watches."""
    hook = getattr(callback, name)
    return guarded(callback, hook) if isinstance(callback, Watcher) else hook
