"""Guards: runs that have gone wrong stop at once, and say where."""

from collections.abc import Mapping
from math import isfinite
from typing import Any, cast

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor

from src.batch import PADDING
from src.monitoring.watched import Watched
from src.parallel.replicas import gathered
from src.tasks import labelled


class NonFiniteLoss(ValueError):
    """A loss became infinite or NaN."""


class RanksDiverged(ValueError):
    """The ranks of a run no longer hold the same weights."""


class FiniteLossGuard(L.Callback):
    """Stops before a non-finite loss reaches the weights, naming the task, the step and the sample ids.

    All ranks see the same global losses, so all stop together.

    Args:
        every_n_steps: How often to look; on a GPU each look waits for the device.
    """

    def __init__(self, every_n_steps: int = 1) -> None:
        self.every_n_steps = every_n_steps
        self.batch: Any = None

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        """Keeps the batch at hand."""
        self.batch = batch

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Looks at the losses of the step.

        Raises:
            NonFiniteLoss: One of them is infinite or NaN.
        """
        if trainer._detect_anomaly:
            return  # autograd is about to say more: which operation it was
        model = cast(Watched, pl_module)
        assert model.losses_T is not None
        if trainer.global_step % self.every_n_steps or isfinite(float(model.losses_T.sum())):
            return
        bad = [name for name, value in zip(model.names, model.losses_T.tolist(), strict=True) if not isfinite(value)]
        if not bad:
            return
        wrong, all_rows = self.culprits(pl_module, bad)
        if 0 < len(wrong) <= max(all_rows // 10, 1):
            fault = f"training rows (counted from 0) whose loss is not: {', '.join(map(str, wrong))}"
        else:
            fault = (
                f"{len(wrong)} of {all_rows} rows of the batch: the weights are at fault, not the data; lower the learning rate "
                "(--lr), or clip gradients (--trainer.gradient_clip_val 1)"
            )
        raise NonFiniteLoss(f"the loss of {', '.join(bad)} is not finite at step {trainer.global_step}; {fault}")

    def culprits(self, pl_module: Any, bad: list[str]) -> tuple[list[int], int]:
        """Row numbers, over all ranks, whose own loss is not finite, and the number of rows that have one of these labels."""
        with torch.no_grad(), pl_module.trainer.precision_plugin.forward_context():
            outputs = pl_module(self.batch.inputs)
            wrong = torch.zeros(len(self.batch), dtype=torch.bool, device=self.batch.ids.device)
            known = torch.zeros_like(wrong)
            for name in bad:
                losses = pl_module.tasks[name].losses(outputs[name].float(), self.batch.targets[name])
                wrong |= ~losses.isfinite().flatten(1).all(1) if losses.ndim > 1 else ~losses.isfinite()
                known |= labelled(self.batch.targets[name]).reshape(len(known), -1).any(1)
        parts = gathered((self.batch.ids[wrong & (self.batch.ids != PADDING)].tolist(), int((known | wrong).sum())))
        return sorted(row for rows, _ in parts for row in rows), sum(count for _, count in parts)


class RanksAgreeGuard(L.Callback):
    """Every N steps checks that ranks hold the same weights: one norm per parameter, one small collective.

    Those are all weights, unless a strategy says of which ones several processes have the same: shards differ by design.

    Args:
        every_n_steps: How often to look.
    """

    def __init__(self, every_n_steps: int = 200) -> None:
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compares.

        Raises:
            RanksDiverged: A parameter differs between ranks, or is not finite on one.
        """
        if trainer.world_size == 1 or trainer.global_step % self.every_n_steps:
            return
        alike = getattr(trainer.strategy, "alike", None)
        groups = alike() if alike else [(None, dict(pl_module.named_parameters()))]
        found = [self._compare(trainer, tensors, group) for group, tensors in groups if tensors]
        wrong = next((what for what in found if what), "")
        if alike:  # one of several groups may be at fault, and all ranks must stop
            flag = torch.tensor(float(bool(wrong)), device=trainer.strategy.root_device)
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
            wrong = wrong or ("other ranks have found that theirs differ" if flag else "")
        if wrong:
            raise RanksDiverged(f"after step {trainer.global_step} {wrong}")

    def _compare(self, trainer: L.Trainer, tensors: Mapping[str, Tensor], group: dist.ProcessGroup | None) -> str:
        """What is wrong with tensors that are to be the same in a group, or nothing."""
        names, root = list(tensors), trainer.strategy.root_device
        norms = torch.stack([n.double().to(root) for n in torch._foreach_norm([t.detach() for t in tensors.values()])])
        extremes = torch.cat([norms, -norms])
        dist.all_reduce(extremes, op=dist.ReduceOp.MAX, group=group)
        largest, smallest = extremes.chunk(2)
        broken = (~largest.isfinite()).nonzero().flatten().tolist()
        if broken:
            return f"the weights are not finite, first in {names[broken[0]]}"
        apart = (largest != -smallest).nonzero().flatten().tolist()
        if not apart:
            return ""
        return f"the ranks hold different weights, first in {names[apart[0]]}: something updates them from this rank's data alone"
