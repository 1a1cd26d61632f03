"""Callbacks that cost a training step nothing."""

import lightning as L

from src.monitoring.callback_group import STEPS


class Quiet(L.Callback):
    """Base of callbacks without hooks in a step: they are None, and so Lightning calls nothing."""

    def __init__(self) -> None:
        for hook in STEPS:
            setattr(self, hook, None)
