"""The LightningModule: one training step, read from top to bottom.

Batch -> sharing -> features per task -> heads -> outputs per task -> losses per task -> balancer ->
one scalar -> Lightning.
"""

import difflib
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property, partial
from math import inf, isfinite, isnan, nan
from typing import TYPE_CHECKING, Any, Literal, cast

import lightning as L
import torch
import torch._functorch.config
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import MetricCollection

from src.balancing import (
    AutoLambda,
    Balancer,
    GradientBalancer,
    GramianBalancer,
    LossBalancer,
    StaticWeights,
    TaskLosses,
)
from src.balancing.balancer import CpuBalancer
from src.batch import PADDING, Batch, InputShape
from src.collectives import global_sum, replica, replica_group
from src.errors import UserError
from src.models.backward.jacobian import ParameterJacobian, ShardedJacobian
from src.models.backward.levels import SurrogateLoss, at_features, at_parameters, feature_gramian
from src.models.checks import check_keys, check_losses
from src.models.cost import costs
from src.models.encoders import MLP, Encoder
from src.models.encoders.encoder import checked
from src.models.heads import HeadActivations, HeadGradients, Heads
from src.models.lookahead import slopes_ahead
from src.models.optimisation import optimizer_and_schedule, parameter_groups, refuse_bad_settings
from src.models.own_weights import own_weights
from src.models.schedule import WarmupCosine
from src.models.sharing import EncoderFactory, HardSharing, Sharing, StackedEncoders, check_owners
from src.models.task_notes import describe_choices, describe_score
from src.models.unseen import hide_categories
from src.parallel.dtensor import assembled
from src.tasks import Task, labelled

if TYPE_CHECKING:
    from pandas import DataFrame

# what is logged at the end of an epoch was summed over all ranks already
warnings.filterwarnings("ignore", message=".*sync_dist=True.*")


HALVES = (torch.half, torch.bfloat16)


def full_precision(device_type: str) -> AbstractContextManager[Any]:
    """Leaves autocast, where it is on."""
    return (
        torch.autocast(device_type, enabled=False)
        if torch.is_autocast_enabled(device_type)
        else nullcontext()
    )


class MultiTaskModel(L.LightningModule):
    """A shared encoder, one head per task, and a balancer.

    Args:
        tasks: {name: task}, as the data module declares them.
        input_shape: What one sample looks like, as the data module says.
        encoder: Makes an encoder from the input shape.
        sharing: Makes the sharing architecture from an encoder factory and the task names.
        balancer: Makes the balancer from {task: likelihood of its loss}.
        optimizer: Makes the optimizer from parameter groups; any torch optimizer.
        scheduler: Makes the learning-rate schedule from the optimizer; any torch scheduler, or None
            for a constant rate.
        scheduler_interval: When the schedule moves; None: what the class says, else every epoch.
        lr_multipliers: {'encoder', 'balancer' or a task's name: factor on the learning rate of
            those parameters}.
        stage_decay: Factor on the learning rate from each of the encoder's stages to the one below
            it, for fine-tuning.
        checkpoint_activations: Keep of each stage its inputs alone, and compute it once more in the
            backward pass: less memory.
        weights: {task: fixed weight}, in place of what the task says.
        seed: Seed of the initial weights and of dropout; the command line links it to
            --seed_everything.
    """

    def __init__(
        self,
        tasks: dict[str, Task],
        input_shape: InputShape,
        encoder: Callable[[InputShape], Encoder] = MLP,
        sharing: Callable[[EncoderFactory, Sequence[str]], Sharing] = HardSharing,
        balancer: Callable[[Mapping[str, str]], Balancer] = StaticWeights,
        optimizer: Callable[[Iterable[Any]], Optimizer] = AdamW,
        scheduler: Callable[[Optimizer], LRScheduler | ReduceLROnPlateau] | None = WarmupCosine,
        scheduler_interval: Literal["step", "epoch"] | None = None,
        lr_multipliers: dict[str, float] | None = None,
        stage_decay: float = 1.0,
        checkpoint_activations: bool = False,
        weights: dict[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not tasks:
            raise UserError("a model needs at least one task")
        for name in tasks:
            if not name or "." in name:
                raise UserError(
                    f"a task cannot be named '{name}': names are not empty and hold no dot, which separates keys"
                )
        check_keys(tasks)
        self.tasks, self.input_shape, self.seed = tasks, input_shape, seed
        self.chosen_tasks = dict(
            tasks
        )  # with the thresholds that the latest validation chose, and a checkpoint keeps
        self._make_encoder, self._make_sharing, self._make_balancer = (
            checked(encoder),
            sharing,
            balancer,
        )
        refuse_bad_settings(optimizer)
        self._make_optimizer, self._make_scheduler = optimizer, scheduler
        self.scheduler_interval = scheduler_interval
        self.lr_multipliers, self.stage_decay = lr_multipliers or {}, stage_decay
        self.checkpoint_activations = checkpoint_activations
        if not 0 < stage_decay <= 1:
            raise UserError(f"model.stage_decay is {stage_decay}; it must be above 0 and at most 1")
        for name in self.lr_multipliers:
            if name in ("encoder", "heads", "balancer") and name in tasks:
                raise UserError(
                    f"model.lr_multipliers names '{name}', a task with a parameter group's name: rename the task"
                )
            if name not in ("encoder", "balancer") and name not in tasks:
                near = difflib.get_close_matches(name, ["encoder", "balancer", *tasks], n=1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                raise UserError(
                    f"model.lr_multipliers names '{name}', which is neither 'encoder' nor a task{hint}"
                )
            if self.lr_multipliers[name] < 0:
                raise UserError(
                    f"model.lr_multipliers.{name} is {self.lr_multipliers[name]}; it must be at least 0"
                )
        self.weights = {name: task.weight for name, task in tasks.items()}
        for name, weight in (weights or {}).items():
            if name not in tasks:
                raise UserError(
                    f"model.weights names '{name}', which is no task; there are {', '.join(tasks)}"
                )
            if weight < 0:
                raise UserError(f"model.weights.{name} is {weight}; it must be at least 0")
            self.weights[name] = weight
        self.losses_T: Tensor | None = None  # over the global batch of the latest step, for guards

    # a strategy that runs slices of the batch through parts of the network in turn takes the step
    # itself: it maps the batch to the value of what the step minimises, the gradients, the
    # parameters that they belong to, and sums and counts (2, T)
    by_schedule: Callable[[Batch], tuple[Tensor, list[Tensor], list[Tensor], Tensor]] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Lightning notes the running hook some 40 times a step; nn.Module's bookkeeping for it would cost 0.1 ms."""
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    # -- the network -------------------------------------------------------------------------------
    def configure_model(self) -> None:
        """Builds the network once, from the seed alone."""
        if hasattr(self, "heads"):
            return
        precision = torch.get_default_dtype()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            torch.set_default_dtype(torch.float32)  # a run in fp64 starts from the same numbers
            self.sharing = self._make_sharing(
                partial(self._make_encoder, self.input_shape), list(self.tasks)
            )
            self.heads = Heads(self.tasks, self.sharing.feature_sizes)
            check_owners(self.sharing, self.input_shape.example())
        torch.set_default_dtype(precision)
        for module in self.sharing.modules():
            if isinstance(module, Encoder | StackedEncoders):
                module.recompute = self.checkpoint_activations
        self.names = tuple(
            name for group in self.heads.groups for name in group.names
        )  # the order of T
        self.balancer = self._make_balancer(
            {name: self.tasks[name].likelihood for name in self.names}
        )
        if (
            self.balancer.level == "parameters"
        ):  # a compiled encoder must keep its buffers for several backward passes
            torch._functorch.config.donated_buffer = False
        if isinstance(self.balancer, CpuBalancer):
            self.balancer.prepare(sum(p.numel() for p in self._shared_and_private()[0]))
        fixed = [self.weights[name] for name in self.names]
        self._fixed = None if fixed == [1.0] * len(fixed) else torch.tensor(fixed)
        self.weights_T: Tensor | None = None  # of the latest step, for dashboards
        self.penalty: Tensor | None = None  # of the latest step, for dashboards
        self._gathered: tuple[Tensor, TaskLosses] | None = None
        self._observed: dict[str, Any] = {}
        self.observed: dict[str, Tensor] = {}  # means over the rows of the latest evaluation
        self.scores: dict[str, float] = {}  # of the tasks in the latest evaluation
        self._looked_at: tuple[Batch, TaskLosses] | None = None
        self.metrics = nn.ModuleDict(
            {self.heads.paths[name]: task.metrics() for name, task in self.tasks.items()}
        )
        self.train_sums_2T = torch.zeros(2, len(self.names), dtype=torch.float64)
        # a balancer's state is the same on every rank: DDP need not send it before each step
        state = [f"balancer.{name}" for name, _ in self.balancer.named_buffers()]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, state)

    # sums of losses and counts of labels, since the last log and in this evaluation; no buffers,
    # which DDP would send around
    train_sums_2T: Tensor
    eval_sums_2T: Tensor

    def on_fit_start(self) -> None:
        """Counts where the losses are, and refuses what cannot be right.

        Raises:
            UserError: The balancer does not go with the sharing architecture, or with
                accumulation.
        """
        self.train_sums_2T = self.train_sums_2T.to(self.device)
        self.__dict__.pop("reached", None)
        self.check(self.trainer.accumulate_grad_batches)

    def check(self, micro_batches: int) -> None:
        """Builds the network, and looks at what can be known before it trains.

        Args:
            micro_batches: Batches per optimizer step.

        Raises:
            UserError: A part of the network cannot be made, a task's loss does not leave out
                missing labels, or the balancer would see no shared feature, or micro-batches.
        """
        self.configure_model()
        check_losses(self.heads.groups)
        balancer, sharing = self.balancer, type(self.sharing).__name__
        if balancer.level == "features" and not self.sharing.one_feature:
            raise UserError(
                f"{type(balancer).__name__} balances the gradients of one feature that all tasks read, but {sharing} gives each "
                "task its own: set --model.balancer.level parameters"
            )
        if micro_batches > 1 and (balancer.level == "features" or not balancer.accumulates):
            way_out = (
                "set --model.balancer.level parameters, or " if balancer.accumulates else "set "
            )
            raise UserError(
                f"{type(balancer).__name__} would balance each micro-batch by itself, not the whole step: {way_out}"
                "accumulate_grad_batches 1"
            )

    def notes(self) -> list[str]:
        """What a person should know of how tasks share, are balanced and are scored, a line each."""
        self.configure_model()
        sharing, level = type(self.sharing).__name__, self.balancer.level
        where = f", by gradients of the shared {level}" if level else ""
        if level == "parameters" and not any(True for _ in self.sharing.shared_parameters()):
            where += f", of which {sharing} has none: each task follows its own"
        return [
            f"sharing {sharing}: {costs(self.sharing, partial(self._make_encoder, self.input_shape), self.input_shape)}",
            f"balancer {type(self.balancer).__name__}{where}",
            describe_score(self.tasks),
        ]

    def own_weights(self) -> dict[str, list[tuple[str, int | None]]] | None:
        """The entries of the state that belong to one task alone, by task; None where tasks share any."""
        return own_weights(self.sharing, self.heads, self.heads.paths)

    def parts(self) -> dict[str, nn.Module]:
        """What can lie on other devices or in shards, by path: the encoders' stages in the order in which they run, then heads."""
        self.configure_model()
        stages = {f"sharing.{path}": stage for path, stage in self.sharing.parts().items()}
        return stages | {f"heads.{self.heads.paths[name]}": self.heads[name] for name in self.tasks}

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns {task: outputs (B, ..., O)}: logits, or standardised numbers; ``Task.decode`` makes them readable."""
        self.configure_model()
        return self.heads.split(self.heads(self.sharing(inputs)))

    # -- one training step -------------------------------------------------------------------------
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step on this rank's share of a global batch."""
        if isinstance(self.balancer, AutoLambda):
            self._look_ahead(self.balancer, batch, batch_idx)
        if self.by_schedule is None:
            features = self.sharing(batch.inputs)
            by = self._by_losses if isinstance(self.balancer, LossBalancer) else self._by_gradients
            loss, totals_2T = by(features, batch)
        else:
            value, wanted, places, totals_2T = self.by_schedule(batch)
            loss = SurrogateLoss.apply(value, wanted, *places)
        self.train_sums_2T.add_(totals_2T)
        penalty = self.sharing.penalty()
        if penalty is None:
            return loss
        self.penalty = penalty.detach()
        return loss + penalty.to(loss.device)

    def _look_ahead(self, balancer: AutoLambda, batch: Batch, batch_idx: int) -> None:
        """Shows the balancer what its weights do to another batch after the step."""
        other = cast(Any, self.trainer).datamodule.other_batch(
            balancer.batches, self.trainer.global_step
        )
        # Lightning casts the batches that it hands out itself
        other = self.trainer.precision_plugin.convert_input(other.to(self.device))
        rate = float(self.trainer.optimizers[0].param_groups[0]["lr"])

        def losses(rows: Batch) -> Tensor:
            self.on_train_batch_start(batch, batch_idx)  # the same units are dropped each time
            sums_T, counts_T = self.loss_sums(self.heads(self.sharing(rows.inputs)), rows.targets)
            _, scale_T = self.task_losses(global_sum(torch.stack([sums_T.detach(), counts_T])))
            return sums_T * (scale_T / replica()[1])

        parameters = [
            p for p in (*self.sharing.parameters(), *self.heads.parameters()) if p.requires_grad
        ]
        # as the heads' gradients: products of small derivatives drown in 16 bits
        with full_precision(self.device.type):
            slopes_T = slopes_ahead(
                lambda: losses(batch),
                lambda: losses(other),
                parameters,
                balancer.lambdas_T,
                rate,
                global_sum,
            )
        balancer.learn(slopes_T, rate)
        self.on_train_batch_start(batch, batch_idx)

    def _by_losses(self, features: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """The scalar that the step minimises, and the sums of losses and counts of labels over all ranks (2, T)."""
        return self.weighed(*self.loss_sums(self.heads(features), batch.targets), batch)

    def weighed(self, sums_T: Tensor, counts_T: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The same, from the sums of losses (T,), in the graph, and the counts of labels (T,) on this rank."""
        totals_2T = global_sum(torch.stack([sums_T.detach(), counts_T]))
        losses, scale_T = self.task_losses(totals_2T)
        losses.local_T = sums_T * scale_T
        loss, self.weights_T = self.balancer(losses)
        self.losses_T = losses.global_T
        if self.balancer.needs_reevaluation:
            self._looked_at = batch, replace(losses, local_T=losses.global_T)
        return loss, totals_2T

    def _by_gradients(self, features: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """The same, for a balancer that looks at gradients: of the heads here, and of the encoder at its level."""
        with full_precision(self.device.type):
            deltas, totals_2T = self._apart(features, batch)
            balancer = cast(GramianBalancer | GradientBalancer, self.balancer)
            if balancer.level == "features":
                found = at_features(
                    balancer, features[self.names[0]], deltas, totals_2T, self.task_losses
                )
            else:
                found = at_parameters(
                    balancer,
                    {name: features[name] for name in self.names},
                    self.reached,
                    deltas,
                    totals_2T,
                    self.task_losses,
                    self.trainer.accumulate_grad_batches > 1,
                    self._gather,
                )
        losses, loss, self.weights_T = found
        self.losses_T = losses.global_T
        return loss, totals_2T

    def _apart(self, features: Mapping[str, Tensor], batch: Batch) -> tuple[HeadGradients, Tensor]:
        """The heads by themselves, in full precision, in which their gradients do not drown: these, and sums and counts (2, T)."""
        cut = {
            id(z): z.detach().float() if z.dtype in HALVES else z.detach()
            for z in features.values()
        }
        tape = HeadActivations()
        outputs, _ = self.heads.taped({name: cut[id(z)] for name, z in features.items()}, tape)
        sums_T, counts_T = self.loss_sums(outputs, batch.targets)
        return tape.backward(sums_T.sum()), torch.stack([sums_T.detach(), counts_T])

    def task_gramian(self, batch: Batch) -> Tensor:
        """Inner products (T, T) of the task gradients over the global batch, for those who watch; the step is not touched.

        With respect to the shared features, or to the shared parameters where the balancer works
        there or tasks' features differ.
        """
        features = self.sharing(batch.inputs)
        with full_precision(self.device.type):
            deltas, totals_2T = self._apart(features, batch)
            if self.sharing.one_feature and self.balancer.level != "parameters":
                gram_TT = feature_gramian(deltas, deltas.stacked(), totals_2T)
            else:
                tops = [features[name] for name in self.names]
                along = [row.view_as(z) for row, z in zip(deltas.rows(), tops, strict=True)]
                gram_TT = self.reached.gram(
                    self.reached.rows(tops, along, totals_2T, whole_rows=False)
                )
        inverse_T = 1 / totals_2T[1].clamp(min=1)
        return gram_TT * inverse_T * inverse_T[:, None]

    def _shared_and_private(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The parameters of the sharing architecture that train: those of several tasks, and those of one."""
        shared = [p for p in self.sharing.shared_parameters() if p.requires_grad]
        ids = {id(p) for p in shared}
        return shared, [
            p for p in self.sharing.parameters() if p.requires_grad and id(p) not in ids
        ]

    @cached_property
    def reached(self) -> ParameterJacobian:
        """What gradients are taken with respect to, as it lies when training starts."""
        shared, private = self._shared_and_private()
        return (
            ShardedJacobian
            if any(isinstance(p, DTensor) for p in (*shared, *private))
            else ParameterJacobian
        )(shared, private)

    def _gather(
        self, rows_TP: Tensor, losses: TaskLosses
    ) -> tuple[Tensor, TaskLosses, float] | None:
        """Adds up the task gradients of micro-batches; the balancer decides once, on those of the whole step."""
        several = self.trainer.accumulate_grad_batches
        global_T, present_T = losses.global_T / several, losses.present_T
        if self._gathered is not None:
            earlier, before = self._gathered
            rows_TP = earlier.add_(rows_TP, alpha=1 / several)
            global_T, present_T = global_T + before.global_T, present_T | before.present_T
        else:
            rows_TP = rows_TP / several
        whole = replace(losses, global_T=global_T, present_T=present_T)
        self._gathered = (rows_TP, whole)
        if self.trainer.fit_loop.epoch_loop._should_accumulate():
            return None
        self._gathered = None
        return rows_TP, whole, float(several)  # Lightning divides by it

    def loss_sums(
        self, outputs: list[Tensor], targets: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Returns the sums of the element losses and the counts of known labels on this rank, both (T,).

        Raises:
            UserError: The encoder gives features for each pixel or token, and the data one label
                for all of them, or otherwise.
        """
        sums, counts = [], []
        for group, output in zip(self.heads.groups, outputs, strict=True):
            stacked = group.stack(targets)
            labels = stacked.shape[: stacked.ndim - group.task.event_dims]
            if output.shape[:-1] != labels:
                raise UserError(
                    f"task '{group.names[0]}' has labels of shape {tuple(labels[1:-1])} for each sample, but the encoder's "
                    f"features are of shape {tuple(output.shape[1:-2])}: use an encoder whose features are one for each label"
                )
            sums.append(group.per_task(group.task.losses(output, stacked)))
            counts.append(group.per_task(labelled(stacked)))
        return torch.cat(sums), torch.cat(counts)

    def label_counts(self, targets: Mapping[str, Tensor]) -> Tensor:
        """The counts of known labels (T,) alone, for those who need them before any output is there."""
        return torch.cat(
            [group.per_task(labelled(group.stack(targets))) for group in self.heads.groups]
        )

    def task_losses(self, totals_2T: Tensor) -> tuple[TaskLosses, Tensor]:
        """Losses over the global batch, and the factors (T,) that make a sum on this rank the loss that ranks average.

        Loss of a task = fixed weight x sum x world size / global count, so that the ranks' mean is
        the mean over the global batch.
        """
        inverse_T = 1 / totals_2T[1].clamp(min=1)
        present_T = totals_2T[1] > 0
        if self._fixed is not None:
            fixed_T = self._fixed.to(inverse_T)
            inverse_T, present_T = inverse_T * fixed_T, present_T & (fixed_T > 0)
        global_T = totals_2T[0] * inverse_T
        key = (self.seed * 1_000_003 + self.trainer.global_step) % 2**63
        return TaskLosses(global_T, global_T, present_T, key), inverse_T * replica()[1]

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Steps; a balancer that asks for it then sees the losses of the same batch once more."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self._looked_at is None:
            return
        batch, before = self._looked_at
        self._looked_at = None
        self.on_train_batch_start(batch, batch_idx)  # the same units are dropped
        with torch.no_grad(), self.trainer.precision_plugin.forward_context():
            sums = torch.stack(
                self.loss_sums(self.heads(self.sharing(batch.inputs)), batch.targets)
            )
        after, _ = self.task_losses(global_sum(sums))
        cast(LossBalancer, self.balancer).after_step(before, after)

    def on_train_epoch_end(self) -> None:
        """Tells the sharing architecture and the balancer."""
        self.sharing.on_epoch_end()
        self.balancer.on_epoch_end()

    # Lightning looks at this signature in every step, which takes 0.05 ms unless it is written down
    training_step.__signature__ = inspect.signature(training_step)  # type: ignore[attr-defined]

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips if that was asked for; Lightning takes 0.04 ms to find out."""
        ours = getattr(self.trainer.strategy, "clip_gradients", None) if gradient_clip_val else None
        if ours is not None:
            ours(
                (p for group in optimizer.param_groups for p in group["params"]),
                gradient_clip_val,
                gradient_clip_algorithm,
            )
        elif gradient_clip_val:
            super().configure_gradient_clipping(
                optimizer, gradient_clip_val, gradient_clip_algorithm
            )

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Ties all randomness to (seed, step), so that it is the same after a resume: on the CPU also on every rank alike.

        With it some categories of the batch are hidden, the same ones however often this is called
        for a step.
        """
        progress = self.trainer.fit_loop.epoch_loop.batch_progress.total.ready
        state = (self.seed * 1_000_003 + progress) % 2**63
        torch.default_generator.manual_seed(
            state
        )  # torch.manual_seed would format three stack traces, 0.3 ms a step
        if self.device.type == "cuda":
            torch.cuda.manual_seed_all((state * 1_000_003 + replica()[0]) % 2**63)
        hide_categories(batch)

    # -- evaluation --------------------------------------------------------------------------------
    def _start_evaluation(self) -> None:
        self.eval_sums_2T = torch.zeros(2, len(self.names), dtype=torch.float64, device=self.device)
        self._observed = {}
        for metrics in self.metrics.values():
            metrics = cast(MetricCollection, metrics)
            metrics.reset()
            for metric in metrics.values():
                metric.process_group = replica_group()

    def _evaluate(self, batch: Batch) -> dict[str, Tensor]:
        grouped = self.heads(self.sharing(batch.inputs))
        for name, of_rows in self.sharing.observe().items():
            kept = of_rows.detach().to(batch.ids.device)[batch.ids != PADDING].double()
            sums = torch.cat([kept.sum(0).flatten(), kept.new_tensor([len(kept)])])
            before, _ = self._observed.get(name, (0.0, ()))
            self._observed[name] = before + sums, kept.shape[1:]
        self.eval_sums_2T += torch.stack(self.loss_sums(grouped, batch.targets))
        outputs = self.heads.split(grouped)
        for name, task in self.tasks.items():
            self.metrics_of(name).update(**task.measured(outputs[name], batch.targets[name]))
        return outputs

    def _finish_evaluation(self, stage: str, chooses: bool = False) -> dict[str, float]:
        sums_T, counts_T = global_sum(self.eval_sums_2T)
        sums = {name: (global_sum(x), shape) for name, (x, shape) in self._observed.items()}
        self.observed = {name: (x[:-1] / x[-1]).view(shape) for name, (x, shape) in sums.items()}
        values: dict[str, float] = {}
        scores = []
        for name, loss, count in zip(self.names, sums_T.tolist(), counts_T.tolist(), strict=True):
            loss, metrics = loss / count if count else nan, self.metrics_of(name)
            if chooses:
                self.chosen_tasks[name] = (
                    self.tasks[name].chosen(metrics) if count else self.tasks[name]
                )
            task = self.chosen_tasks[name]
            computed = task.compute(metrics)
            logged = {"loss": loss, **computed, **task.per_output(metrics)}
            values |= {f"{stage}/{name}/{key}": float(value) for key, value in logged.items()}
            bounded = task.in_score(metrics) if count else {}
            scores.append(
                -inf if count and not isfinite(loss) else task.score({**computed, **bounded})
            )
        self.scores = dict(zip(self.names, scores, strict=True))
        known = [
            score for score in scores if not isnan(score)
        ]  # a task without labels has none; one that diverged has the worst
        values[f"{stage}/score"] = sum(known) / len(known) if known else nan
        return values

    def figures(self) -> "dict[str, DataFrame]":
        """What can be drawn of the sharing architecture after an evaluation."""
        with assembled(self.sharing):
            return self.sharing.figures(self.observed)

    def summary(self) -> list[str]:
        """What an evaluation has shown of the sharing architecture, and what validation has chosen, a line each."""
        with assembled(self.sharing):
            return [*self.sharing.summary(self.observed), *describe_choices(self.tasks, self.chosen_tasks)]

    def decode(self, name: str, outputs: Tensor) -> dict[str, Any]:
        """A task's outputs (B, O) for people, decided by the thresholds that validation chose: see ``Task.decode``."""
        return self.chosen_tasks[name].decode(outputs)

    def metrics_of(self, name: str) -> MetricCollection:
        """The metrics of a task in the current evaluation."""
        return cast(MetricCollection, self.metrics[self.heads.paths[name]])

    def on_validation_epoch_start(self) -> None:
        """Forgets the last evaluation."""
        self._start_evaluation()

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Returns {task: outputs}."""
        return self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        """Logs val/<task>/loss, val/<task>/<metric> and val/score, the mean of the tasks' scores; a plateau schedule sees it.

        Thresholds of tasks are chosen here, from the rows of all ranks: accuracy and F1 are at
        those, and so flatter.
        """
        values = self._finish_evaluation("val", chooses=not self.trainer.sanity_checking)
        # Lightning draws them at 'step': beside the losses of the same weights
        self.log_dict({**values, "step": self.trainer.global_step}, rank_zero_only=False)
        for config in [] if self.trainer.sanity_checking else self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ReduceLROnPlateau) and not isnan(values["val/score"]):
                config.scheduler.step(values["val/score"])

    def on_test_epoch_start(self) -> None:
        """Forgets the last evaluation."""
        self._start_evaluation()

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Returns {task: outputs}."""
        return self._evaluate(batch)

    def on_test_epoch_end(self) -> None:
        """Logs the same under test/, with the thresholds of the latest validation or of the checkpoint."""
        self.log_dict(self._finish_evaluation("test"), rank_zero_only=False)

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the row numbers (B,) and {task: outputs}."""
        return batch.ids, self(batch.inputs)

    # -- optimisation ------------------------------------------------------------------------------
    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Groups by name, for a learning rate."""
        heads = {name: list(self.heads[name].parameters()) for name in self.tasks}
        parts = dict(self.sharing.named_parameters()), heads, list(self.balancer.parameters())
        return parameter_groups(*parts, self.lr_multipliers, self.stage_decay, lr)

    def configure_optimizers(self) -> Any:
        """Builds the optimizer on named groups, and the schedule."""
        makers = self._make_optimizer, self._make_scheduler, self.scheduler_interval
        return optimizer_and_schedule(
            self.parameter_groups, *makers, lambda: self.trainer.estimated_stepping_batches
        )

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Moves the schedule; one that waits for a plateau moves when a validation ends."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Loads weights, into a network that is built now if it is not."""
        self.configure_model()
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    # -- checkpoints -------------------------------------------------------------------------------
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what identifies the tasks, and the latest validation metrics."""
        metrics = self.trainer.callback_metrics
        latest = {key: float(value) for key, value in metrics.items() if key.startswith("val/")}
        described = {name: task.describe() for name, task in self.chosen_tasks.items()}
        # of tasks whose best came in an earlier epoch, a callback has put what was seen then
        checkpoint["metrics"] = latest | checkpoint.get("metrics", {})
        checkpoint["tasks"] = described | checkpoint.get("tasks", {})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over the thresholds that validation chose; refuses a checkpoint of other tasks.

        Raises:
            UserError: The tasks' names or output sizes differ.
        """
        theirs, ours = checkpoint.get("tasks", {}), self.tasks
        if set(theirs) != set(ours):
            raise UserError(
                f"the checkpoint is of the tasks {', '.join(theirs)}, but this run has {', '.join(ours)}"
            )
        for name, task in ours.items():
            for key in ("kind", "classes", "labels", "names"):
                there, here = theirs[name].get(key), task.describe().get(key)
                if key == "kind":  # the class may have moved to another file since
                    there, here = str(there).rpartition(".")[2], str(here).rpartition(".")[2]
                if there != here:
                    raise UserError(
                        f"the checkpoint's task '{name}' has {key} {there}, but this run's has {here}"
                    )
        self.chosen_tasks = {name: task.as_chosen(theirs[name]) for name, task in ours.items()}
