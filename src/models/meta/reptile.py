"""Reptile: towards the weights that each episode leads to."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from src.batch import Batch
from src.collectives import global_sum, replica
from src.models.meta.episodes import Inputs, join_rows, split_episodes
from src.models.meta.inner_loop import Parameters, Rates, descend, run_each
from src.models.meta.maml import MAML
from src.runner import ScheduledGradients
from src.tasks import Task, is_labelled

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel


class Reptile(MAML):
    """A start from which the weights of all episodes are near.

    (Nichol, Achiam and Schulman, "On first-order meta-learning algorithms", arXiv 1803.02999.) The
    inner loop of k steps takes theta to theta_k; the optimizer then gets, in place of a gradient,

    g = mean over episodes of (theta - theta_k),

    so that SGD at rate epsilon is the paper's theta + epsilon mean(theta_k - theta), and any other
    optimizer works as well. No derivative is taken through the inner loop. As Reptile needs no
    query rows, training learns from both: the support rows and the query rows of an episode are
    the data of its inner loop. Validation and test learn from the support rows alone. The loss
    that is logged is that of the query rows after the inner loop, which training has seen.

    Args:
        tasks: {name: task}.
        inner_lr: The rate of the inner loop.
        inner_steps: k, the number of inner steps in training.
        test_steps: Number of inner steps in validation, test and prediction; None: as in training.
        report_steps: Numbers of inner steps whose scores the test reports, too.
        batched: Whether the episodes of a batch run as one program, by torch.func.vmap; false for
            encoders that it cannot batch.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        inner_lr: float = 0.01,
        inner_steps: int = 5,
        test_steps: int | None = None,
        report_steps: list[int] | None = None,
        batched: bool = True,
    ) -> None:
        super().__init__(tasks, inner_lr, inner_steps, test_steps, report_steps, batched=batched)

    def take_gradients(self, network: "MultiTaskModel", batch: Batch) -> ScheduledGradients:
        episodes = split_episodes(batch, self.task)
        start, predict = self.make_predictor(network)
        start = {name: parameter.detach() for name, parameter in start.items()}
        names = list(start)
        count = episodes.count
        rows = join_rows(episodes.support, episodes.query)
        labels = torch.cat([episodes.labels, episodes.targets], 1)
        supports = episodes.labels.shape[1]

        def learn_one(
            parameters: Parameters, rates: Rates, inputs: Inputs, labels: Tensor
        ) -> list[Tensor]:
            def loss(these: Parameters) -> Tensor:
                return self.support_loss(network, predict(these, inputs), labels)

            *_, end = descend(loss, parameters, rates, self.inner_steps, first_order=True)
            return [*(end[name] for name in names), predict(end, inputs)[supports:]]

        rates = {name: torch.tensor(rate) for name, rate in self.rates_of(start).items()}
        with torch.no_grad():
            *ends, outputs = run_each(learn_one, (start, rates), rows, labels, batched=self.batched)
            targets = {self.task: episodes.targets.flatten(0, 1)}
            totals = network.heads.loss_sums([outputs.flatten(0, 1)], targets)
            value, totals_2T = network.step.weigh_losses(*totals, batch)

            # an episode that only pads the batch has no label, and stays where it is
            real = is_labelled(labels).flatten(1).any(1).sum().to(totals_2T)
            factor = replica()[1] / global_sum(real).clamp(min=1)
            gradients = []
            for name, end in zip(names, ends, strict=True):
                gradients.append((count * start[name] - end.sum(0)) * factor)
        trained = dict(network.named_parameters())
        return ScheduledGradients(value, gradients, [trained[name] for name in names], totals_2T)
