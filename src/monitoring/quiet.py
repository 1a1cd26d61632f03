"""Callbacks that cost a training step nothing."""

import lightning as L

from src.monitoring.callback_group import STEPS


class Quiet(L.Callback):
    """Has nothing to do in a step, and so Lightning calls nothing there."""

    def __init__(self) -> None:
        for hook in STEPS:
            setattr(self, hook, None)
