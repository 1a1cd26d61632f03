"""One training step, read from top to bottom.

Batch -> sharing -> features per task -> heads -> outputs per task -> losses per task -> balancer
-> one scalar, which Lightning's automatic optimisation minimises.

Shapes: T tasks; a tensor that ends in _2T has the sums of losses in its first row and the counts of
known labels in its second. Where rows have weights, a label counts as the weight of its row. O
objectives are what the balancer weighs: the T tasks, unless groups of people are objectives, too.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from src.balancing import GradientBalancer, GramianBalancer, LossBalancer, TaskLosses
from src.batch import Batch
from src.collectives import global_sum, replica
from src.models.affinities import invert_counts, measure_affinities
from src.models.backward.group_gradients import GroupGradients
from src.models.backward.head_gradients import HeadActivations, HeadGradients
from src.models.backward.jacobian import ParameterJacobian, ShardedJacobian
from src.models.backward.levels import (
    FeatureLevel,
    MicroBatches,
    ParameterLevel,
    feature_gramian,
)
from src.models.backward.surrogate_loss import SurrogateLoss
from src.models.heads import HALVES
from src.models.lookahead import lookahead_slopes
from src.models.settings import refuse_factors
from src.models.stopped import remove_labels
from src.models.unseen import hide_categories

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel

LARGE_PRIME = 1_000_003


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Leaves autocast, where it is on: in 16 bits the gradients of tasks would drown."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


class TrainingStep:
    """Takes the training steps of a model, each on this process's share of a global batch.

    Args:
        model: The model, built.

    Attributes:
        losses_T: The losses of the latest step over the global batch; None before the first.
        weights_T: The weights of the losses, or of the tasks' gradients in what they share, in the
            latest step; None where the balancer has none.
        penalty: The sum of all penalties in the latest step; None where there is none.
        preference_T: How much the latest step prefers each task, (T,); None where the sharing
            architecture takes no preference.
        sums_2T: (2, T) Sums of losses and counts of labels over all ranks, in float64, since
            somebody last set them to zero.
    """

    def __init__(self, model: "MultiTaskModel") -> None:
        self.model = model
        self.losses_T: Tensor | None = None
        self.weights_T: Tensor | None = None
        self.penalty: Tensor | None = None
        self.preference_T: Tensor | None = None
        self.sums_2T = torch.zeros(2, len(model.names), dtype=torch.float64)
        self.micro_batches: MicroBatches | None = None
        self._before: tuple[Batch, TaskLosses] | None = None
        fixed = [model.weights[name] for name in model.names]
        self._fixed_T = None if fixed == [1.0] * len(fixed) else torch.tensor(fixed)

    def start(self) -> None:
        """Prepares for the first step of a fit, on the model's device."""
        self.sums_2T = self.sums_2T.to(self.model.device)
        self.micro_batches = None
        self._before = None
        self.__dict__.pop("jacobian", None)

    # -- the step ----------------------------------------------------------------------------------
    def __call__(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the scalar that the step minimises.

        Args:
            batch: This process's share of a global batch.
            batch_idx: The number of the batch within the epoch.
        """
        model = self.model
        if model.sharing.takes_preference:
            self._draw_preference()
        if model.balancer.needs_lookahead:
            self._look_ahead(batch)

        if model.meta is not None:
            scheduled = model.meta.take_gradients(model, batch)
        else:
            scheduled = model.runner.take_gradients(model, batch)
        if scheduled is not None:
            totals_2T = scheduled.totals_2T
            loss = SurrogateLoss.apply(scheduled.value, scheduled.gradients, *scheduled.parameters)
        else:
            if isinstance(model.balancer, LossBalancer):
                sums_O, counts_O = self._loss_sums(batch, learns=True)
                loss, totals_2T = self.weigh_losses(sums_O, counts_O, batch)
            else:
                features = model.runner.features(model, batch.inputs)
                last = self._ends_step(batch_idx)
                loss, totals_2T = self._balance_gradients(features, batch, last)
        self.sums_2T.add_(totals_2T)

        penalty = model.penalty()
        if penalty is None:
            return loss
        self.penalty = penalty.detach()
        return loss + penalty.to(loss.device)

    def _loss_sums(self, batch: Batch, learns: bool = False) -> tuple[Tensor, Tensor]:
        """Runs the network; returns sums of losses and counts of labels on this rank, both (O,)."""
        return self._sum_outputs(self.model.run(batch), batch, learns)

    def _sum_outputs(
        self, outputs: list[Tensor], batch: Batch, learns: bool
    ) -> tuple[Tensor, Tensor]:
        """Returns sums and counts, given outputs, and whether this is no second look at a batch."""
        heads = self.model.heads
        if self.model.fairness is not None:
            return self.model.fairness.loss_sums(heads, outputs, batch, learns)
        return heads.loss_sums(outputs, batch.targets, batch.weights, batch.taught)

    def weigh_losses(self, sums_O: Tensor, counts_O: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Weighs the losses by a balancer that looks at their values.

        Args:
            sums_O: Sums of the element losses on this rank, in the graph.
            counts_O: Counts of the known labels on this rank.
            batch: The batch.

        Returns:
            The scalar to minimise, and sums and counts over all ranks (2, T).
        """
        totals_2O = global_sum(torch.stack([sums_O.detach(), counts_O]))
        losses, scale_O = self.normalise(totals_2O)
        losses.local_T = sums_O * scale_O
        balancer = cast(LossBalancer, self.model.balancer)
        loss, weights_O = balancer(losses)
        if balancer.needs_reevaluation:
            self._before = batch, replace(losses, local_T=losses.global_T)
        return loss, self._note(losses, weights_O, totals_2O)

    def _note(self, losses: TaskLosses, weights_O: Tensor | None, totals_2O: Tensor) -> Tensor:
        """Notes the losses and weights of a step; returns sums and counts of the tasks (2, T)."""
        fairness = self.model.fairness
        if fairness is None or not fairness.splits_objectives:
            self.losses_T = losses.global_T
            self.weights_T = weights_O
            return totals_2O
        # a task has the mean over the labels of all groups
        totals_2T, self.weights_T = fairness.merge_groups(totals_2O, weights_O)
        self.losses_T = self.normalise(totals_2T)[0].global_T
        return totals_2T

    def _balance_gradients(
        self, features: Mapping[str, Tensor], batch: Batch, last: bool
    ) -> tuple[Tensor, Tensor]:
        """Balances the gradients of the tasks; returns as ``weigh_losses`` does."""
        model = self.model
        balancer = cast(GramianBalancer | GradientBalancer, model.balancer)
        level: FeatureLevel | ParameterLevel
        with full_precision(model.device):
            activations, sums_O, counts_O = self._run_heads(features, batch, learns=True)
            totals_2O = torch.stack([sums_O.detach(), counts_O])
            if balancer.level == "features":
                heads = activations.backward(sums_O.sum())
                level = FeatureLevel(balancer, features[model.names[0]], heads)
            else:
                # one backward pass for the tasks of each group
                parts = [activations.backward(own.sum()) for own in sums_O.split(len(model.names))]
                apart = parts[0] if len(parts) == 1 else GroupGradients(parts)
                tops = [features[name] for name in model.names] * len(parts)
                level = ParameterLevel(
                    balancer, tops, apart, self.jacobian, self.micro_batches, last
                )
            level.sum_over_ranks(totals_2O)
            losses, scale_O = self.normalise(totals_2O)
            loss, weights_O = level.surrogate(losses, scale_O)
        return loss, self._note(losses, weights_O, totals_2O)

    def _head_gradients(
        self, features: Mapping[str, Tensor], batch: Batch
    ) -> tuple[HeadGradients, Tensor]:
        """Takes the gradients of the tasks' own losses, whatever is added for groups of people.

        Returns:
            The gradients of the sums of losses, and sums and counts (2, T) of this rank.
        """
        activations, sums_T, counts_T = self._run_heads(features, batch, learns=None)
        totals_2T = torch.stack([sums_T.detach(), counts_T])
        return activations.backward(sums_T.sum()), totals_2T

    def _run_heads(
        self, features: Mapping[str, Tensor], batch: Batch, learns: bool | None
    ) -> tuple[HeadActivations, Tensor, Tensor]:
        """Runs the heads cut off from the encoder.

        Returns:
            What their gradients need, and sums and counts of this rank; with ``learns`` None those
            of the tasks' own losses.
        """
        model = self.model
        # features that several tasks read stay one tensor
        cut = {}
        for z in features.values():
            cut[id(z)] = z.detach().float() if z.dtype in HALVES else z.detach()
        apart = {name: cut[id(z)] for name, z in features.items()}

        activations = HeadActivations(copies_weights=model.runner.frees_weights)
        outputs, _ = model.heads.record(model.runner.cast_features(model, apart), activations)
        if learns is None:
            sums = model.heads.loss_sums(outputs, batch.targets, batch.weights, batch.taught)
        else:
            sums = self._sum_outputs(outputs, batch, learns)
        return activations, *sums

    def normalise(self, totals_2T: Tensor) -> tuple[TaskLosses, Tensor]:
        """Returns the losses over the global batch, and the factors (T,) from sums to losses.

        The loss of a task is its fixed weight x sum of its element losses x world size / count of
        its labels in the global batch: so the mean over ranks, which data parallelism takes, is
        the mean over the global batch.

        Args:
            totals_2T: Sums and counts over all ranks.
        """
        inverse_T = invert_counts(totals_2T[1])
        present_T = totals_2T[1] > 0
        if self._fixed_T is not None:
            # of objectives, all tasks of one group come before those of the next
            fixed_T = self._fixed_T.to(inverse_T).repeat(len(inverse_T) // len(self._fixed_T))
            inverse_T = inverse_T * fixed_T
            present_T = present_T & (fixed_T > 0)
        global_T = totals_2T[0] * inverse_T
        losses = TaskLosses(global_T, global_T, present_T, self.key, self.preference_T)
        return losses, inverse_T * replica()[1]

    @property
    def key(self) -> int:
        """A number that is a function of (seed, step), the same for all batches of a step."""
        return (self.model.seed * LARGE_PRIME + self.model.trainer.global_step) % 2**63

    def _draw_preference(self) -> None:
        """Draws how much this step prefers each task."""
        model = self.model
        drawn = model.sharing.draw_preference(self.key, self._measure_progress)
        # from the order of the architecture to the order of T
        places = [model.sharing.tasks.index(name) for name in model.names]
        self.preference_T = drawn[places].to(model.device)

    def _measure_progress(self) -> float:
        """Returns the share of the training's steps that are over; 1 where nobody knows."""
        trainer = self.model.trainer
        steps = trainer.estimated_stepping_batches
        return min(trainer.global_step / steps, 1.0) if 0 < steps < inf else 1.0

    @cached_property
    def jacobian(self) -> ParameterJacobian:
        """Takes the gradients in the parameters that train, as they are laid out at first use."""
        shared, private = self.model.shared_and_private()
        shards = self.model.runner.shards
        if shards is None:
            return ParameterJacobian(shared, private)
        return ShardedJacobian(shared, private, shards)

    def _ends_step(self, batch_idx: int) -> bool:
        """Returns whether the optimizer steps after this batch, and prepares for micro-batches."""
        trainer = self.model.trainer
        count = trainer.accumulate_grad_batches
        if count == 1:
            self.micro_batches = None
        elif self.micro_batches is None or self.micro_batches.count != count:
            self.micro_batches = MicroBatches(count)
        ready = batch_idx + 1
        ends_epoch = trainer.is_last_batch or ready >= trainer.num_training_batches
        return ready % count == 0 or ends_epoch

    # -- what a balancer may ask for besides -------------------------------------------------------
    def _look_ahead(self, batch: Batch) -> None:
        """Shows the balancer the effect of its weights on another batch after the step."""
        model = self.model
        trainer = model.trainer
        balancer = model.balancer
        data = trainer.datamodule  # type: ignore[attr-defined]
        other = data.other_batch(balancer.lookahead_batches, trainer.global_step)
        # Lightning casts only the batches that it hands out itself
        other = trainer.precision_plugin.convert_input(other.to(model.device))
        if model.fairness is not None:
            model.fairness.weigh_rows(other)
        remove_labels(other, model.stopped)
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])

        def losses(rows: Batch) -> Tensor:
            self.seed_randomness(batch)  # the same units are dropped each time
            sums_T, counts_T = self._loss_sums(rows)
            totals_2T = global_sum(torch.stack([sums_T.detach(), counts_T]))
            weighted, scale_T = self.normalise(totals_2T)
            return sums_T * weighted.prefer(scale_T / replica()[1])

        every = (*model.sharing.parameters(), *model.heads.parameters())
        trained = [p for p in every if p.requires_grad]
        # products of small derivatives drown in 16 bits
        with full_precision(model.device):
            slopes_T = lookahead_slopes(
                lambda: losses(batch),
                lambda: losses(other),
                trained,
                balancer.task_weights_T,
                rate,
                global_sum,
            )
        balancer.learn_from_lookahead(slopes_T, rate)
        self.seed_randomness(batch)

    def finish(self) -> None:
        """Shows a balancer that asks for it the losses of the batch after the optimizer's step."""
        if self._before is None:
            return
        batch, before = self._before
        self._before = None
        model = self.model
        self.seed_randomness(batch)  # the same units are dropped
        with torch.no_grad(), model.trainer.precision_plugin.forward_context():
            totals_2T = torch.stack(self._loss_sums(batch))
        after, _ = self.normalise(global_sum(totals_2T))
        model.balancer.after_step(before, after)

    def seed_randomness(self, batch: Batch) -> None:
        """Makes the randomness of a step a function of (seed, step), the same after a resume.

        On CPUs it is the same on every rank, too. Some categories of the batch are hidden by it,
        the same ones however often this is called for a step, and the labels of stopped tasks are
        removed.
        """
        model = self.model
        progress = model.trainer.fit_loop.epoch_loop.batch_progress.total.ready
        state = (model.seed * LARGE_PRIME + progress) % 2**63
        # torch.manual_seed would format three stack traces, 0.3 ms a step
        torch.default_generator.manual_seed(state)
        if model.device.type == "cuda":
            torch.cuda.manual_seed_all((state * LARGE_PRIME + replica()[0]) % 2**63)
        hide_categories(batch)
        if model.stopped:
            remove_labels(batch, model.stopped)

    def task_gramian(self, batch: Batch) -> Tensor:
        """Returns the inner products (T, T) of the tasks' gradients over the global batch.

        They are taken at the shared features, or in the shared parameters where the balancer
        works there or the tasks' features differ. The step is not touched.
        """
        model = self.model
        refuse_factors(model, "the Gramian compares gradients of tasks")
        if model.sharing.one_feature and model.balancer.level != "parameters":
            features = model.runner.features(model, batch.inputs)
            with full_precision(model.device):
                heads, totals_2T = self._head_gradients(features, batch)
                gram_TT = feature_gramian(heads, heads.stack_weights(), totals_2T)
        else:
            rows_TP, totals_2T = self.parameter_rows(batch)
            gram_TT = self.jacobian.gramian(rows_TP)
        inverse_T = invert_counts(totals_2T[1])
        return gram_TT * inverse_T * inverse_T[:, None]

    def parameter_rows(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the tasks' gradients in the shared parameters, over the global batch.

        Returns:
            The gradients of the sums of losses as the Jacobian holds them, (T, P) or the shards of
            this process, and sums and counts of all ranks (2, T).
        """
        model = self.model
        features = model.runner.features(model, batch.inputs)
        with full_precision(model.device):
            heads, totals_2T = self._head_gradients(features, batch)
            tops = [features[name] for name in model.names]
            at_tops = [dz.view_as(z) for dz, z in zip(heads.per_task(), tops, strict=True)]
            rows_TP = self.jacobian.rows(tops, at_tops, totals_2T, full_rows=False)
        return rows_TP, totals_2T

    def task_affinities(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the affinities (T, T) of the tasks, see ``measure_affinities``."""
        return measure_affinities(self, batch)
