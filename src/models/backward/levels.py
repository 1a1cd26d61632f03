"""The two levels at which a balancer can look at the gradients of tasks.

With n_t the labels of task t in the global batch and S_t the sum of its losses on this rank,
L_t = W S_t / n_t is averaged over W ranks. Every sum over ranks needs one collective: of the sums,
of the counts, and of the T x T Gramian or the T x P gradients of the sums.

Both levels work in three moves: ``sum_over_ranks`` makes that collective, the step then knows the
losses and the factors that turn a sum into a loss, and ``surrogate`` asks the balancer and returns
the scalar whose backward pass leaves what the balancer wants.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from src.balancing import Coordinates, GradientBalancer, GramianBalancer, TaskLosses
from src.collectives import global_sum, replica
from src.models.backward.group_gradients import GroupGradients
from src.models.backward.head_gradients import HeadGradients
from src.models.backward.jacobian import ParameterJacobian
from src.models.backward.surrogate_loss import SurrogateLoss


def feature_gramian(heads: HeadGradients, W_OD: Tensor, totals_2T: Tensor) -> Tensor:
    """Returns the Gramian (T, T) of the tasks' gradients at the features, over the global batch.

    Different samples have different features, so that the Gramian over the global batch is the sum
    of the ranks' Gramians. The totals become those of all ranks in the same collective.
    """
    T = totals_2T.shape[1]
    packed = torch.cat([totals_2T.flatten().double(), heads.gramian(W_OD).flatten()])
    summed = global_sum(packed)
    totals_2T.copy_(summed[: 2 * T].view(2, T))
    return summed[2 * T :].view(T, T)


class FeatureLevel:
    """Gradients at the features that all tasks share: one backward pass through the encoder.

    Args:
        balancer: Decides.
        z: (B, ..., D) The shared features, in the encoder's graph.
        heads: The gradients of the tasks' sums of losses at the features and in the heads.
    """

    def __init__(
        self, balancer: GramianBalancer | GradientBalancer, z: Tensor, heads: HeadGradients
    ) -> None:
        self.balancer = balancer
        self.z = z
        self.heads = heads
        self.W_OD: Tensor | None = None
        self.gram_TT: Tensor | None = None

    def sum_over_ranks(self, totals_2T: Tensor) -> None:
        """Sums the totals (2, T) over ranks, in place, with the Gramian that the balancer needs."""
        if isinstance(self.balancer, GramianBalancer):
            self.W_OD = self.heads.stack_weights()
            self.gram_TT = feature_gramian(self.heads, self.W_OD, totals_2T)
        else:
            global_sum(totals_2T)

    def surrogate(self, losses: TaskLosses, scale_T: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the scalar to minimise, and the tasks' weights (T,) where the balancer has some.

        Args:
            losses: The losses over the global batch.
            scale_T: The factors that turn a sum on this rank into the loss that ranks average.
        """
        rank, ranks = replica()
        weights_T: Tensor | None = None
        if isinstance(self.balancer, GramianBalancer):
            assert self.gram_TT is not None
            assert self.W_OD is not None
            single_T = scale_T / ranks
            gram_TT = self.gram_TT * single_T * single_T[:, None]
            weights_T, own_T = self.balancer(losses, gram_TT)
            weights_T = weights_T.to(scale_T)
            dz = self.heads.combine(weights_T * scale_T, self.W_OD)
            value = torch.dot(weights_T, losses.global_T)
        else:
            rows = self.heads.stack().flatten(1) * (scale_T / ranks)[:, None]
            first = rank * rows.shape[1]
            where = Coordinates(first, self.z.detach().flatten(1), global_sum)
            dz = self.balancer(rows, losses, where) * ranks
            own_T = self.balancer.head_weights(losses)
            value = losses.global_T.sum()

        own_scale_T = scale_T if own_T is None else own_T.to(scale_T) * scale_T
        own_scale_T = losses.prefer(own_scale_T)
        places, gradients = self.heads.of_heads(own_scale_T)
        loss = SurrogateLoss.apply(value, [dz.view_as(self.z), *gradients], self.z, *places)
        return loss, weights_T


class MicroBatches:
    """Adds up the gradients of the micro-batches of one step, so that the balancer decides once.

    Args:
        count: The number of micro-batches of a step.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.rows_TP: Tensor | None = None
        self.losses: TaskLosses | None = None

    def add(
        self, rows_TP: Tensor, losses: TaskLosses, last: bool
    ) -> tuple[Tensor, TaskLosses] | None:
        """Adds a micro-batch; returns the mean gradients and losses of the step after the last."""
        global_T = losses.global_T / self.count
        present_T = losses.present_T
        if self.rows_TP is not None and self.losses is not None:
            rows_TP = self.rows_TP.add_(rows_TP, alpha=1 / self.count)
            global_T = global_T + self.losses.global_T
            present_T = present_T | self.losses.present_T
        else:
            rows_TP = rows_TP / self.count
        self.rows_TP = rows_TP
        self.losses = replace(losses, global_T=global_T, present_T=present_T)
        if not last:
            return None
        whole = self.rows_TP, self.losses
        self.rows_TP = None
        self.losses = None
        return whole


class ParameterLevel:
    """Gradients in the shared parameters: one backward pass per task, then one for the step.

    Args:
        balancer: Decides.
        tops: The features (B, ..., D) of each task in the order of T, in the encoder's graph. Where
            groups of people are objectives, too, they come once for each group.
        heads: The gradients of the tasks' sums of losses at the features and in the heads.
        jacobian: Takes gradients in the parameters of the sharing architecture.
        micro_batches: The micro-batches of this step; None where it has one batch.
        last: Whether this is the last micro-batch of the step.
    """

    def __init__(
        self,
        balancer: GramianBalancer | GradientBalancer,
        tops: Sequence[Tensor],
        heads: HeadGradients | GroupGradients,
        jacobian: ParameterJacobian,
        micro_batches: MicroBatches | None = None,
        last: bool = True,
    ) -> None:
        self.balancer = balancer
        self.tops = list(tops)
        self.heads = heads
        self.jacobian = jacobian
        self.micro_batches = micro_batches
        self.last = last
        self.at_tops = [row.view_as(z) for row, z in zip(heads.per_task(), self.tops, strict=True)]
        self.rows_TP: Tensor | None = None

    @property
    def needs_inner_products_alone(self) -> bool:
        """Whether the balancer weighs the tasks of one batch by their Gramian."""
        return isinstance(self.balancer, GramianBalancer) and not self.balancer.tracks

    def sum_over_ranks(self, totals_2T: Tensor) -> None:
        """Sums the totals (2, T) over ranks, in place, with the tasks' gradients (T, P)."""
        full_rows = not self.needs_inner_products_alone
        self.rows_TP = self.jacobian.rows(self.tops, self.at_tops, totals_2T, full_rows)

    def surrogate(self, losses: TaskLosses, scale_T: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the scalar to minimise, and the tasks' weights (T,) where the balancer has some.

        Args:
            losses: The losses over the global batch.
            scale_T: The factors that turn a sum on this rank into the loss that ranks average.
        """
        wanted, weights_T, own_T = self._decide(losses, scale_T)
        own_scale_T = scale_T if own_T is None else own_T.to(scale_T) * scale_T
        own_scale_T = losses.prefer(own_scale_T)
        places, gradients = self.heads.of_heads(own_scale_T)
        if self.jacobian.private:
            ups = [
                (dz * scale).to(z.dtype)
                for dz, scale, z in zip(self.at_tops, own_scale_T, self.tops, strict=True)
            ]
            wanted += self.jacobian.of_private(self.tops, ups)
        if weights_T is None:
            value = losses.global_T.sum()
        else:
            value = torch.dot(weights_T.to(losses.global_T), losses.global_T)
        parameters = [*self.jacobian.shared, *self.jacobian.private]
        return SurrogateLoss.apply(value, [*wanted, *gradients], *parameters, *places), weights_T

    def _decide(
        self, losses: TaskLosses, scale_T: Tensor
    ) -> tuple[list[Tensor], Tensor | None, Tensor | None]:
        """Asks the balancer.

        Returns:
            The gradients wanted in the shared parameters, the tasks' weights there (T,), and their
            weights in their own heads (T,); None for weights that there are not.
        """
        assert self.rows_TP is not None
        rows_TP = self.rows_TP
        single_T = scale_T / replica()[1]
        balancer = self.balancer
        if self.needs_inner_products_alone and self.micro_batches is None:
            # T factors instead of T x P products
            gram_TT = self.jacobian.gramian(rows_TP) * single_T * single_T[:, None]
            weights_T, own_T = balancer(losses, gram_TT)
            direction_P = (weights_T.to(rows_TP) * single_T) @ rows_TP
            return self.jacobian.split(direction_P), weights_T, own_T

        rows_TP *= single_T[:, None]
        factor = 1.0
        if self.micro_batches is not None:
            whole = self.micro_batches.add(rows_TP, losses, self.last)
            if whole is None:
                return [torch.zeros_like(p) for p in self.jacobian.shared], None, None
            rows_TP, losses = whole
            # Lightning divides each micro-batch's loss by their number
            factor = float(self.micro_batches.count)

        if isinstance(balancer, GramianBalancer):
            rows_TP = balancer.track(rows_TP, losses)
            weights_T, own_T = balancer(losses, self.jacobian.gramian(rows_TP))
            direction_P = weights_T.to(rows_TP) @ rows_TP
            return self.jacobian.split(direction_P * factor), weights_T, own_T
        direction_P = balancer(rows_TP, losses)
        own_T = balancer.head_weights(losses)
        return self.jacobian.split(direction_P * factor), None, own_T
