"""The losses and weights of one training step of a pipeline, which sees its batch in slices."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from src.batch import Batch
from src.parallel.stages import DeferredWeights, StageInterface
from src.runner import ScheduledGradients, ShardableModel


@dataclass(slots=True)
class Decision:
    """The decision of the balancer in a step.

    Attributes:
        value: What the step minimises, a scalar without a graph.
        totals_2T: (2, T) Sums of losses and counts of labels over the global batch.
        weights_T: (T,) The derivative of the value in the sums of the losses.
        gradients: The gradients of the balancer's own parameters.
    """

    value: Tensor
    totals_2T: Tensor
    weights_T: Tensor
    gradients: Sequence[Tensor]


class ScheduledStep:
    """One training step of a pipeline.

    Args:
        model: The model.
        batch: The batch, the same on all processes.
        slices: The number of slices.
        interface: The interface over which the features come.
        precision: Gives the context in which the network runs.

    Attributes:
        counts_T: (T,) The known labels of the batch.
        decides_at_end: Whether the balancer waits for the losses of the last slice.
    """

    def __init__(
        self,
        model: ShardableModel,
        batch: Batch,
        slices: int,
        interface: StageInterface,
        precision: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.model = model
        self.batch = batch
        self.slices = slices
        self.interface = interface
        self.precision = precision
        self.decides_at_end = True
        self.counts_T = model.heads.label_counts(batch.targets, batch.weights)
        self.size = -(-len(batch) // slices)

        self._learnt = [p for p in model.balancer.parameters() if p.requires_grad]
        self._sums: list[Tensor] = []  # (T,) of each slice so far
        self._decision: Decision | None = None

    def slice_loss(self, x: Tensor, number: int) -> Tensor:
        """Returns the scalar from which the backward pass of a slice starts.

        Args:
            x: What the last stage has put out.
            number: The number of the slice.
        """
        first = number * self.size
        # rows that only fill up the slice have no loss
        rows = min(self.size, len(self.batch) - first)
        if rows > 0:
            sums_T = self._run_heads(x[:rows], first)
            self._sums.append(sums_T.detach())
            value: Tensor = DeferredWeights.apply(sums_T, self._read_weights)
        else:
            value = x.flatten()[:0].sum()
        if self.decides_at_end and number == self.slices - 1:
            self.decide(self.sum_losses())
        return value

    def _run_heads(self, x: Tensor, first: int) -> Tensor:
        """Returns the sums of the losses (T,) of some rows.

        Args:
            x: What the last stage has put out for these rows.
            first: The first of them.
        """
        with self.precision():
            z = self.interface.unpack(x)
            assert isinstance(z, Tensor)
            rows = slice(first, first + len(x))
            targets = {name: target[rows] for name, target in self.batch.targets.items()}
            weights = {name: weight[rows] for name, weight in self.batch.weights.items()}
            outputs = self.model.heads(dict.fromkeys(self.model.tasks, z))
            sums_T, _ = self.model.heads.loss_sums(outputs, targets, weights)
        return sums_T

    def _read_weights(self) -> Tensor:
        assert self._decision is not None
        return self._decision.weights_T

    def sum_losses(self) -> Tensor:
        """Returns the sums of the losses (T,) of all slices so far."""
        return torch.stack(self._sums).sum(0)

    def decide(self, sums_T: Tensor) -> None:
        """Asks the balancer for the weights of the losses.

        Args:
            sums_T: (T,) The sums of the losses over the batch.
        """
        with torch.enable_grad(), self.precision():
            places = [sums_T.requires_grad_(), *self._learnt]
            value, totals_2T = self.model.step.weigh_losses(sums_T, self.counts_T, self.batch)
            weights_T, *gradients = torch.autograd.grad(value, places, materialize_grads=True)
        self._decision = Decision(value.detach(), totals_2T, weights_T, gradients)

    def collect(
        self, found: Sequence[tuple[Tensor, Tensor]], device: torch.device
    ) -> ScheduledGradients:
        """Returns the gradients of the step.

        Args:
            found: Parameters of this process, each with its gradient.
            device: The device of this process.
        """
        assert self._decision is not None
        # a process may have nothing that trains, and the value still needs a graph
        anchor = torch.zeros((), device=device, requires_grad=True)
        parameters: list[Tensor] = [*(p for p, _ in found), *self._learnt, anchor]
        gradients = [*(g for _, g in found), *self._decision.gradients, anchor.detach()]
        return ScheduledGradients(
            self._decision.value, gradients, parameters, self._decision.totals_2T
        )
