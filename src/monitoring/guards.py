"""Guards: runs that have gone wrong stop at once, and say where."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, cast

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from src.batch import PADDING
from src.collectives import gather
from src.errors import UserError
from src.monitoring.observed_model import ObservedModel
from src.tasks import is_labelled

# beyond these layers and losses overflow in single precision, whatever the weights are
FAR_INPUT = 1e9
FAR_LABEL = 1e15


class NonFiniteLoss(UserError):
    """A loss became infinite or NaN."""


class RanksDiverged(UserError):
    """The ranks of a run no longer hold the same weights."""


class FiniteLossGuard(L.Callback):
    """Stops before a non-finite loss reaches the weights; names the task, the step and the rows.

    All ranks see the same global losses, so all stop together.

    Args:
        every_n_steps: Steps between two checks; on a GPU each check waits for the device.
    """

    def __init__(self, every_n_steps: int = 1) -> None:
        self.every_n_steps = every_n_steps
        self.batch: Any = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the batch, to find the rows at fault."""
        self.batch = batch

    def on_before_backward(
        self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor
    ) -> None:
        """Checks the losses of the step.

        Raises:
            NonFiniteLoss: One of them is infinite or NaN.
        """
        # anomaly detection says more: which operation it was
        if torch.is_anomaly_enabled():
            return
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
        fault = diagnose(gather(self.collect_evidence(trainer, pl_module, bad)))
        if "weights" in fault and self.every_n_steps > 1:
            fault += (
                "; or a batch before: --watch.finite_every 1 looks at each step, not at every "
                f"{self.every_n_steps}th"
            )
        raise NonFiniteLoss(
            f"the loss of {', '.join(bad)} is not finite at step {trainer.global_step}; {fault}"
        )

    def collect_evidence(self, trainer: L.Trainer, pl_module: Any, bad: list[str]) -> "Evidence":
        """Examines the weights and the rows of this process.

        Args:
            trainer: The trainer.
            pl_module: The model.
            bad: The tasks whose loss is not finite.
        """
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            outputs = pl_module(self.batch.inputs)
            wrong = torch.zeros(len(self.batch), dtype=torch.bool, device=self.batch.ids.device)
            known = torch.zeros_like(wrong)
            for name in bad:
                targets = self.batch.targets[name]
                losses = pl_module.tasks[name].losses(outputs[name].float(), targets)
                # by row: a vector or a sequence has several losses
                wrong |= ~losses.isfinite().reshape(len(wrong), -1).all(1)
                known |= is_labelled(targets).reshape(len(known), -1).any(1)
        real = self.batch.ids != PADDING
        inputs = self.batch.inputs
        inputs = inputs if isinstance(inputs, dict) else {"": inputs}
        return Evidence(
            rank=trainer.global_rank,
            weight=find_broken_weight(pl_module),
            wrong=self.batch.ids[wrong & real].tolist(),
            rows=int((known | wrong).sum()),
            inputs=find_largest(inputs.values(), real, self.batch.ids),
            labels=find_largest((self.batch.targets[name] for name in bad), real, self.batch.ids),
        )


@dataclass(frozen=True)
class Evidence:
    """The findings of one process in a step whose loss is not finite.

    Attributes:
        rank: The process.
        weight: The first parameter that is not finite; None where all are.
        wrong: Rows whose own loss is not finite.
        rows: Number of rows that have a label.
        inputs: The largest finite input, and its row.
        labels: The largest label, and its row.
    """

    rank: int
    weight: str | None
    wrong: list[int]
    rows: int
    inputs: tuple[float, int]
    labels: tuple[float, int]


def diagnose(findings: Sequence[Evidence]) -> str:
    """Says where the fault is: in the weights of some ranks, in single rows, or in all rows.

    Args:
        findings: One of each process.
    """
    broken = [one for one in findings if one.weight is not None]
    if broken and len(broken) < len(findings):
        ranks = ", ".join(str(one.rank) for one in broken)
        return (
            f"the weights of rank {ranks} alone are not, first {broken[0].weight}: something "
            "updates them from its own data alone"
        )

    wrong = sorted(row for one in findings for row in one.wrong)
    rows = sum(one.rows for one in findings)
    if not broken and 0 < len(wrong) <= max(rows // 10, 1):
        return f"training rows (counted from 0) whose loss is not: {', '.join(map(str, wrong))}"

    if not broken:
        for what, limit, (size, row) in (
            ("inputs", FAR_INPUT, max(one.inputs for one in findings)),
            ("labels", FAR_LABEL, max(one.labels for one in findings)),
        ):
            if size > limit:
                return (
                    f"{what} are as large as {size:.3g}, in training row {row} (counted from 0): "
                    "bring them to a few units, such as by their mean and standard deviation"
                )

    first = f"in {len(wrong)} of {rows} rows of the batch"
    if broken:
        first = f"first {broken[0].weight}"
    return (
        f"{first}: the weights are at fault, not the data; lower the learning rate (--lr), "
        "or clip gradients (--trainer.gradient_clip_val 1)"
    )


def find_broken_weight(model: L.LightningModule) -> str | None:
    """Returns the first parameter that is not finite in this process's shard, if any."""
    for name, weight in model.named_parameters():
        shard = weight.to_local() if isinstance(weight, DTensor) else weight
        if not shard.isfinite().all():
            return name
    return None


def find_largest(tensors: Iterable[Tensor], real: Tensor, ids: Tensor) -> tuple[float, int]:
    """Returns the largest finite absolute value of tensors, and its row; 0 and -1 without any.

    Args:
        tensors: Tensors (B, ...).
        real: (B,) Rows that are no padding.
        ids: (B,) Their numbers.
    """
    found = (0.0, -1)
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.numel():
            sizes = tensor.abs().nan_to_num(0.0, 0.0, 0.0).reshape(len(tensor), -1).amax(1)
            size, row = (sizes * real).max(0)
            found = max(found, (float(size), int(ids[row])))
    return found


class RanksAgreeGuard(L.Callback):
    """Checks every N steps that ranks hold the same weights.

    It compares one norm per parameter, in one collective.

    It compares all weights, unless a strategy says which tensors are the same on which processes:
    shards differ by design.

    Args:
        every_n_steps: Steps between two checks.
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
        """Compares the weights of the ranks.

        Raises:
            RanksDiverged: A parameter differs between ranks, or is not finite on one.
        """
        if trainer.world_size == 1 or trainer.global_step % self.every_n_steps:
            return
        # Lightning's own strategies hold all weights on every rank
        list_groups = getattr(trainer.strategy, "replicated_tensors", None)
        groups = list_groups() if list_groups else [(None, dict(pl_module.named_parameters()))]
        # every comparison is a collective: none may be left out after a difference is found
        found = [self._compare(trainer, tensors, group) for group, tensors in groups if tensors]
        wrong = next(filter(None, found), "")
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
        """Says how tensors differ that must be the same in a group; "" where they do not."""
        names = list(tensors)
        root = trainer.strategy.root_device
        norms = torch.stack(
            [torch.linalg.vector_norm(t.detach()).double().to(root) for t in tensors.values()]
        )
        # one reduction brings the largest and, negated, the smallest
        extremes = torch.cat([norms, -norms])
        dist.all_reduce(extremes, op=dist.ReduceOp.MAX, group=group)
        largest, smallest = extremes.chunk(2)
        broken = (~largest.isfinite()).nonzero().flatten().tolist()
        if broken:
            return f"the weights are not finite, first in {names[broken[0]]}"
        apart = (largest != -smallest).nonzero().flatten().tolist()
        if not apart:
            return ""
        return (
            f"the ranks hold different weights, first in {names[apart[0]]}: something updates them "
            "from this rank's data alone"
        )
