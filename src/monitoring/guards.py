"""Guards: runs that have gone wrong stop at once, and say where."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, cast

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor

from src.batch import PADDING
from src.collectives import gather
from src.errors import UserError
from src.monitoring.observed_model import ObservedModel
from src.parallel.dtensor import local
from src.tasks import is_labelled

# beyond these layers and losses overflow in single precision, whatever the weights are
FAR_INPUT = 1e9
FAR_LABEL = 1e15


class NonFiniteLoss(UserError):
    """A loss became infinite or NaN."""


class RanksDiverged(UserError):
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

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the batch at hand."""
        self.batch = batch

    def on_before_backward(
        self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor
    ) -> None:
        """Looks at the losses of the step.

        Raises:
            NonFiniteLoss: One of them is infinite or NaN.
        """
        if trainer._detect_anomaly:
            return  # autograd is about to say more: which operation it was
        model = cast(ObservedModel, pl_module)
        assert model.step.losses_T is not None
        if trainer.global_step % self.every_n_steps or isfinite(float(model.step.losses_T.sum())):
            return
        bad = [
            name
            for name, value in zip(model.names, model.step.losses_T.tolist(), strict=True)
            if not isfinite(value)
        ]
        if not bad:
            return
        fault = verdict(gather(self.evidence(trainer, pl_module, bad)))
        if "weights" in fault and self.every_n_steps > 1:
            fault += f"; or a batch before: --watch.finite_every 1 looks at each step, not at every {self.every_n_steps}th"
        raise NonFiniteLoss(
            f"the loss of {', '.join(bad)} is not finite at step {trainer.global_step}; {fault}"
        )

    def evidence(self, trainer: L.Trainer, pl_module: Any, bad: list[str]) -> "Evidence":
        """Looks at the weights and at the rows of this process.

        Args:
            trainer: Trains.
            pl_module: The model.
            bad: The tasks whose loss is not finite.
        """
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            outputs = pl_module(self.batch.inputs)
            wrong = torch.zeros(len(self.batch), dtype=torch.bool, device=self.batch.ids.device)
            known = torch.zeros_like(wrong)
            for name in bad:
                losses = pl_module.tasks[name].losses(
                    outputs[name].float(), self.batch.targets[name]
                )
                wrong |= (
                    ~losses.isfinite().flatten(1).all(1) if losses.ndim > 1 else ~losses.isfinite()
                )
                known |= is_labelled(self.batch.targets[name]).reshape(len(known), -1).any(1)
        real = self.batch.ids != PADDING
        inputs = (
            self.batch.inputs if isinstance(self.batch.inputs, dict) else {"": self.batch.inputs}
        )
        broken = [
            name
            for name, weight in pl_module.named_parameters()
            if not local(weight).isfinite().all()
        ]
        return Evidence(
            rank=trainer.global_rank,
            weight=broken[0] if broken else None,
            wrong=self.batch.ids[wrong & real].tolist(),
            rows=int((known | wrong).sum()),
            inputs=largest(inputs.values(), real, self.batch.ids),
            labels=largest((self.batch.targets[name] for name in bad), real, self.batch.ids),
        )


@dataclass(frozen=True)
class Evidence:
    """What one process has seen in a step whose loss is not finite.

    Attributes:
        rank: Which process.
        weight: The first parameter that is not finite; None where all are.
        wrong: Rows whose own loss is not finite.
        rows: How many rows have a label.
        inputs: The largest finite input, and its row.
        labels: The largest label, and its row.
    """

    rank: int
    weight: str | None
    wrong: list[int]
    rows: int
    inputs: tuple[float, int]
    labels: tuple[float, int]


def verdict(seen: Sequence[Evidence]) -> str:
    """Says what is at fault, from what each process has seen: weights, rows, or all rows, and then what they hold."""
    broken = [one for one in seen if one.weight is not None]
    if broken and len(broken) < len(seen):
        ranks = ", ".join(str(one.rank) for one in broken)
        return f"the weights of rank {ranks} alone are not, first {broken[0].weight}: something updates them from its own data alone"
    wrong, rows = sorted(row for one in seen for row in one.wrong), sum(one.rows for one in seen)
    if not broken and 0 < len(wrong) <= max(rows // 10, 1):
        return f"training rows (counted from 0) whose loss is not: {', '.join(map(str, wrong))}"
    if not broken:
        for what, limit, found in (
            ("inputs", FAR_INPUT, max(one.inputs for one in seen)),
            ("labels", FAR_LABEL, max(one.labels for one in seen)),
        ):
            if found[0] > limit:
                way_out = "bring them to a few units, such as by their mean and standard deviation"
                return f"{what} are as large as {found[0]:.3g}, in training row {found[1]} (counted from 0): {way_out}"
    first = (
        f"first {broken[0].weight}" if broken else f"in {len(wrong)} of {rows} rows of the batch"
    )
    return (
        f"{first}: the weights are at fault, not the data; lower the learning rate (--lr), or clip gradients "
        "(--trainer.gradient_clip_val 1)"
    )


def largest(tensors: Iterable[Tensor], real: Tensor, ids: Tensor) -> tuple[float, int]:
    """Returns the largest finite number of some tensors in size, and the row that it stands in; 0 and -1 where there is none."""
    found = (0.0, -1)
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.numel():
            sizes = tensor.abs().nan_to_num(0.0, 0.0, 0.0).reshape(len(tensor), -1).amax(1)
            size, row = (sizes * real).max(0)
            found = max(found, (float(size), int(ids[row])))
    return found


class RanksAgreeGuard(L.Callback):
    """Every N steps checks that ranks hold the same weights: one norm per parameter, one small collective.

    Those are all weights, unless a strategy says of which ones several processes have the same:
    shards differ by design.

    Args:
        every_n_steps: How often to look.
    """

    def __init__(self, every_n_steps: int = 200) -> None:
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Compares.

        Raises:
            RanksDiverged: A parameter differs between ranks, or is not finite on one.
        """
        if trainer.world_size == 1 or trainer.global_step % self.every_n_steps:
            return
        # Lightning's own strategies hold all weights on every rank
        list_groups = getattr(trainer.strategy, "replicated_tensors", None)
        groups = list_groups() if list_groups else [(None, dict(pl_module.named_parameters()))]
        found = [self._compare(trainer, tensors, group) for group, tensors in groups if tensors]
        wrong = next((what for what in found if what), "")
        if len(groups) > 1:
            # one of several groups may be at fault, and all ranks must stop
            flag = torch.tensor(float(bool(wrong)), device=trainer.strategy.root_device)
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
            wrong = wrong or ("other ranks have found that theirs differ" if flag else "")
        if wrong:
            raise RanksDiverged(f"after step {trainer.global_step} {wrong}")

    def _compare(
        self, trainer: L.Trainer, tensors: Mapping[str, Tensor], group: dist.ProcessGroup | None
    ) -> str:
        """What is wrong with tensors that are to be the same in a group, or nothing."""
        names, root = list(tensors), trainer.strategy.root_device
        norms = torch.stack(
            [
                n.double().to(root)
                for n in torch._foreach_norm([t.detach() for t in tensors.values()])
            ]
        )
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
