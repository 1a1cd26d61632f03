"""Optimizers that train one set of weights and evaluate another, such as schedule-free ones.

They have methods ``train`` and ``eval``, which move the weights of the network from the one set to
the other (Defazio et al., "The road less scheduled", NeurIPS 2024).
"""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim import Optimizer

from src.errors import UserError

KEY = "training_weights"  # of a checkpoint


def has_two_sets(optimizer: Optimizer) -> bool:
    """Returns whether an optimizer evaluates other weights than it trains."""
    return all(callable(getattr(optimizer, name, None)) for name in ("train", "eval"))


def refuse_schedule(optimizer: Optimizer) -> None:
    """Refuses a schedule beside an optimizer that averages weights in its place.

    Raises:
        UserError: The optimizer is one.
    """
    # these weigh each step by its rate, so that steps at a lower rate would hardly count
    if has_two_sets(optimizer) and "weight_lr_power" in optimizer.defaults:
        name = type(optimizer).__name__
        raise UserError(
            f"{name} averages weights in place of a schedule, and takes a constant rate: add "
            "--model.scheduler null; a warm-up is --model.optimizer.warmup_steps"
        )


class EvaluationWeights:
    """Puts the weights that count in place for a while, and the training's back, to the bit.

    The optimizer's own way back would round, and so each validation would change the training.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, Tensor]] | None = None

    def start(self, trainer: L.Trainer) -> None:
        """Begins a training, from either set of weights.

        Raises:
            UserError: A callback averages weights as well.
        """
        for optimizer in find_with_two_sets(trainer):
            callbacks = trainer.callbacks  # type: ignore[attr-defined]
            for callback in callbacks:
                if isinstance(callback, WeightAveraging):
                    raise UserError(
                        f"{type(optimizer).__name__} averages weights itself: leave out "
                        f"{type(callback).__name__}"
                    )
            switch(optimizer, "train")

    def put_in(self, trainer: L.Trainer) -> None:
        """Puts the weights that count in place; they stay there when a training is over."""
        for optimizer in find_with_two_sets(trainer):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            here = [p for p in parameters if not p.is_meta]
            self._kept = [(p, p.detach().clone()) for p in here]
            switch(optimizer, "eval")

    @torch.no_grad()
    def take_out(self, trainer: L.Trainer) -> None:
        """Puts the weights that train back."""
        for optimizer in find_with_two_sets(trainer):
            switch(optimizer, "train")
        for p, kept in self._kept or ():
            p.copy_(kept)
        self._kept = None

    @contextmanager
    def in_place(self, trainer: L.Trainer) -> Iterator[None]:
        """Puts the weights that count in place for a while."""
        self.put_in(trainer)
        try:
            yield
        finally:
            self.take_out(trainer)

    def add_to(self, checkpoint: dict[str, Any], trainer: L.Trainer, names: Iterable[str]) -> None:
        """Puts the weights that count into a checkpoint, and adds the training's beside them.

        All processes must call this.

        Args:
            checkpoint: The checkpoint, changed in place.
            trainer: The Trainer.
            names: The names of all parameters.
        """
        # in an evaluation the weights that count are in place
        if self._kept is not None or not find_with_two_sets(trainer):
            return
        training = checkpoint["state_dict"]
        # the first process alone may have them
        own = {name: training[name] for name in names if name in training}
        checkpoint[KEY] = copy.deepcopy(own)
        with self.in_place(trainer):
            checkpoint["state_dict"] = copy.deepcopy(trainer.strategy.lightning_module_state_dict())


def switch(optimizer: Optimizer, mode: Literal["train", "eval"]) -> None:
    """Moves the weights of an optimizer to one of their sets."""
    getattr(optimizer, mode)()
    # a look at the state of a parameter that rests, or is in another process, has made one
    for p in [p for p, state in optimizer.state.items() if not state]:
        del optimizer.state[p]


def find_with_two_sets(trainer: L.Trainer) -> list[Optimizer]:
    """Returns the optimizers of a Trainer that evaluate other weights than they train."""
    return [optimizer for optimizer in trainer.optimizers if has_two_sets(optimizer)]


def choose_training_weights(checkpoint: dict[str, Any]) -> None:
    """Makes the weights that train those of a checkpoint from which a training goes on."""
    checkpoint["state_dict"] = {**checkpoint["state_dict"], **checkpoint.get(KEY, {})}
