"""The range test: the rate of one part of a network rises step by step, and the others rest.

See Smith, "Cyclical learning rates for training neural networks", WACV 2017.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel

ENCODER = "encoder"
WORSE = 4.0  # times the best loss: by then the weights have diverged
FAR_WORSE = 20.0  # times the first loss, in a single step
KEEPS = 0.9  # of the running mean that is compared


class RangeTest(L.Callback):
    """Raises the rates of a network from the lowest to the highest, in one fit.

    A ramp starts from fresh weights. In the first ramp of each seed the rate of the encoder (all of
    the sharing architecture) rises, and the heads rest at their initial weights. In the second one
    all heads rise together, and the encoder rests: so heads do not meet, and each follows its own
    task's loss alone. What rests has a rate of 0, so that a loss falls because of the part that is
    looked at.

    A head's loss is that of its task. The encoder's is the mean over tasks of the loss as a share
    of its first value, so that no task counts more by the unit of its labels. All losses are of
    the global batch before the step; the loss that a rate leads to is the one of the next step.

    Args:
        seeds: The number of seeds.
        rates: The rates of a ramp.
        order_seed: The seed of the order of rows.
        on_step: Is called after each step.

    Attributes:
        states: {name: tensor} of the fresh weights, for each seed.
        curves: {part: for each seed the losses at the start and after each rate}; a curve ends
            where it has diverged.
    """

    def __init__(
        self,
        seeds: int,
        rates: np.ndarray,
        order_seed: int,
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        self.states: Sequence[Mapping[str, Tensor]] = ()
        self.rates = rates
        self.order_seed = order_seed
        self.on_step = on_step
        self.curves: dict[str, list[list[float]]] = {}
        self.ramps = [(seed, heads) for seed in range(seeds) for heads in (False, True)]
        self.parts: dict[str, Ramp] = {}
        self.step = 0

    @property
    def most_steps(self) -> int:
        """The number of optimizer steps if nothing diverges."""
        return len(self.ramps) * (len(self.rates) + 1)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begins the first ramp, on rows in another order than the run's."""
        sampler = cast(Any, trainer.train_dataloader).sampler
        sampler.seed = self.order_seed
        self.steps_done = trainer.global_step
        groups = trainer.optimizers[0].param_groups
        self.fresh_groups = [dict(group) for group in groups]
        # stages may have rates of their own
        model = cast("MultiTaskModel", pl_module)
        self.shares = {group["name"]: group["lr"] for group in model.parameter_groups(1.0)}
        self._begin(trainer, model)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Notes the losses of an optimizer step, and sets the rates of the next one."""
        if trainer.global_step == self.steps_done:
            return
        self.steps_done = trainer.global_step
        self.on_step()
        model = cast("MultiTaskModel", pl_module)
        losses = self._take_losses(model)
        for name, ramp in self.parts.items():
            if ramp.note(losses):
                put_back(model, self.states[self.seed], self._prefix(model, name))
                forget(trainer.optimizers[0], ramp.groups)
        self.step += 1

        is_over = self.step > len(self.rates) or all(ramp.over for ramp in self.parts.values())
        if not is_over:
            self._set_rates()
            return
        for name, ramp in self.parts.items():
            self.curves.setdefault(name, []).append(ramp.losses)
        if self.ramps:
            self._begin(trainer, model)
        else:
            trainer.should_stop = True

    def _begin(self, trainer: L.Trainer, model: "MultiTaskModel") -> None:
        """Begins the next ramp from fresh weights."""
        self.seed, heads = self.ramps.pop(0)
        optimizer = trainer.optimizers[0]
        put_back(model, self.states[self.seed], "")
        optimizer.state.clear()
        for group, fresh in zip(optimizer.param_groups, self.fresh_groups, strict=True):
            group.update(fresh)
            group["lr"] = 0.0
            for key in group.keys() - fresh.keys():
                del group[key]

        rising = model.tasks if heads else [ENCODER]
        self.parts = {}
        for name in rising:
            groups = [g for g in optimizer.param_groups if g["name"].partition(".")[0] == name]
            # a part whose parameters are frozen has no rate
            if any(p.requires_grad for group in groups for p in group["params"]):
                tasks = [name] if heads else list(model.tasks)
                shares = {group["name"]: self.shares[group["name"]] for group in groups}
                self.parts[name] = Ramp(tasks, groups, shares)
        self.step = 0
        model.step.sums_2T.zero_()
        self._set_rates()

    def _set_rates(self) -> None:
        rate = float(self.rates[min(self.step, len(self.rates) - 1)])
        for ramp in self.parts.values():
            for group in ramp.groups:
                group["lr"] = 0.0 if ramp.over else rate * ramp.shares[group["name"]]

    def _take_losses(self, model: "MultiTaskModel") -> dict[str, float]:
        """Returns {task: loss over the global batch} of the step, of tasks with labels."""
        sums_T, counts_T = model.step.sums_2T.tolist()
        model.step.sums_2T.zero_()
        each = zip(model.names, sums_T, counts_T, strict=True)
        return {name: total / count for name, total, count in each if count}

    @staticmethod
    def _prefix(model: "MultiTaskModel", name: str) -> str:
        return "sharing." if name == ENCODER else f"heads.{model.heads.paths[name]}."


class Ramp:
    """The losses of one part while its rate rises.

    Args:
        tasks: The tasks whose losses count.
        groups: The optimizer's groups of the part.
        shares: {group: its rate as a share of the part's}.

    Attributes:
        losses: The loss at the start, and after each rate.
        over: Whether the part has diverged.
    """

    def __init__(
        self, tasks: Sequence[str], groups: Sequence[dict[str, Any]], shares: Mapping[str, float]
    ) -> None:
        self.tasks = tasks
        self.groups = groups
        self.shares = shares
        self.losses: list[float] = []
        self.over = False
        self._first: dict[str, float] = {}
        self._mean = 0.0
        self._best = np.inf

    def note(self, losses: Mapping[str, float]) -> bool:
        """Notes the losses of a step; returns whether the part has diverged by it.

        Where no task has a label in the batch, the last loss stands.
        """
        if self.over:
            return False
        known = {task: losses[task] for task in self.tasks if task in losses}
        for task, loss in known.items():
            self._first.setdefault(task, loss)
        if not known:
            self.losses.append(self.losses[-1] if self.losses else np.nan)
            return False
        if len(self.tasks) == 1:
            loss = known[self.tasks[0]]
        else:
            loss = sum(loss / scale_of(self._first[task]) for task, loss in known.items())
            loss /= len(known)
        self.over = self._has_diverged(loss)
        if np.isfinite(loss):
            self.losses.append(loss)
        return self.over

    def _has_diverged(self, loss: float) -> bool:
        """Returns whether a loss, or the running mean with it, is far above the best."""
        if not np.isfinite(loss):
            return True
        first = self.losses[0] if self.losses else loss
        steps = len(self.losses) + 1
        self._mean = KEEPS * self._mean + (1 - KEEPS) * loss
        mean = self._mean / (1 - KEEPS**steps)
        self._best = min(self._best, mean)

        # losses below 0 have no multiples: likelihoods of numbers
        limit = self._best + (WORSE - 1) * scale_of(self._best)
        far = first + (FAR_WORSE - 1) * scale_of(first)
        return mean > limit or loss > far


def scale_of(loss: float) -> float:
    """Returns the size of a loss, at least a little."""
    return max(abs(loss), 1e-6)


@torch.no_grad()
def put_back(model: "MultiTaskModel", state: Mapping[str, Tensor], prefix: str) -> None:
    """Gives the weights and buffers below a prefix the values of a state."""
    shards = model.runner.shards
    for name, tensor in model.state_dict().items():
        # a parameter on meta belongs to another process
        if name.startswith(prefix) and not tensor.is_meta:
            saved = state[name]
            tensor.copy_(saved if shards is None else shards.shard_like(saved, tensor))


def forget(optimizer: Optimizer, groups: Sequence[Mapping[str, Any]]) -> None:
    """Drops what an optimizer keeps of the parameters of groups, and lets them rest."""
    for group in groups:
        for p in group["params"]:
            optimizer.state.pop(p, None)


def make_fresh(model: "MultiTaskModel", seed: int) -> "MultiTaskModel":
    """Makes a network of the same settings with initial weights of another seed.

    Args:
        model: The model, which is left as it is.
        seed: The seed.
    """
    fresh = copy.copy(model)
    built = ("_modules", "_parameters", "_buffers")
    fresh.__dict__ = {**model.__dict__, **{name: {} for name in built}}
    for name in ("step", "names", "evaluation", "freezing"):
        fresh.__dict__.pop(name, None)
    fresh.seed = seed
    fresh.configure_model()
    return fresh
