"""Stochastic gates: a random factor for each input, whose chance to be open is penalised."""

from collections.abc import Iterator, Mapping
from math import inf
from typing import Literal

import torch
from torch import Tensor, nn

from src.batch import InputShape
from src.errors import UserError
from src.models.feature_selection.columns import gate_inputs, map_places
from src.models.feature_selection.selection import Selection
from src.models.sharing.sharing import Owned, Sharing

START = 0.5  # mu at first: gates are half open


class StochasticGates(Selection):
    """Stochastic gates: z_t = f_t(x * g_t), with a gate for each input column and task.

    g = clamp(mu + sigma e, 0, 1) with e ~ N(0, 1), and clamp(mu, 0, 1) in evaluation. The step
    minimises besides the losses sum_t lambda_t sum_d P(g_td > 0), with P(g > 0) = Phi(mu / sigma)
    (Yamada, Lindenbaum, Negahban and Kluger, "Feature selection using stochastic gates", ICML
    2020). As in the paper e is drawn once per step and gate, for all rows; it is a function of the
    seed and the step.

    A gate multiplies a number as a network reads it, standardised, and the embedding of a category.
    A number and the indicator of its missing values have one gate, and so has a channel of images.
    Where the gate is 0, which is so for mu <= 0, outputs do not depend on the column.

    A column stays open for a task where the loss of the task, times its weight, would rise by more
    than about lambda_t without it. Of columns that tell the same, some are closed.
    A category of many words says little before its embedding is learnt, and a gate that is shut has
    no gradient but by noise: ``warmup`` over most of the run keeps such columns from closing early.

    With gates per task the network runs on T views of each row; an architecture with an encoder
    for each task runs T of them on each view. What it shows of itself is averaged over views.

    Args:
        architecture: The sharing architecture behind the gates.
        shape: The shape of one sample.
        per: task: a gate for each column and task; shared: one for each column; both: mu_td = m_d +
            v_td, shared gates and deviations of tasks, whose squares are penalised.
        strength: lambda, or {task: lambda_t}, which gates that are shared do not have.
        warmup: Epochs in which lambda grows linearly from 0.
        sigma: Standard deviation of the noise.
        deviation: With both, the strength of the penalty on sum_td v_td^2.
        speed: Factor from the trained parameters to mu, which has further to go than weights at the
            same learning rate.
    """

    measure = "chance to be open"
    way_out = (
        "an encoder of tables multiplies what it makes of each category by inputs['gates'], as "
        "VectorStem does"
    )

    def __init__(
        self,
        architecture: Sharing,
        shape: InputShape,
        per: Literal["task", "shared", "both"] = "task",
        strength: float | dict[str, float] = 0.01,
        warmup: float = 0.0,
        sigma: float = 0.5,
        deviation: float = 0.01,
        speed: float = 10.0,
    ) -> None:
        super().__init__(architecture, shape, strength, warmup)
        kind = "StochasticGates"
        if per not in ("task", "shared", "both"):
            raise UserError(f"{kind}: per '{per}' must be task, shared or both")
        if per == "shared" and isinstance(strength, Mapping):
            raise UserError(
                f"{kind}: strength names tasks, but gates are shared: give one number, or set "
                "--model.select.per task"
            )
        for name, value in (("sigma", sigma), ("speed", speed)):
            if not 0 < value < inf:
                raise UserError(f"{kind}: {name} {value} must be above 0")
        if not 0 <= deviation < inf:
            raise UserError(f"{kind}: deviation {deviation} must be a number from 0")

        self.sigma = sigma
        self.deviation = deviation
        self.speed = speed
        self.places = map_places(self.columns)
        count = len(self.columns)
        self.common = None if per == "task" else nn.Parameter(torch.zeros(count))
        self.own = None if per == "shared" else nn.Parameter(torch.zeros(len(self.tasks), count))
        if self.own is not None:
            self.one_feature = False

    def means(self) -> Tensor:
        """Returns mu: (1, D) of shared gates, else (T, D)."""
        if self.own is None:
            assert self.common is not None
            return START + self.speed * self.common[None]
        if self.common is None:
            return START + self.speed * self.own
        return START + self.speed * (self.common + self.own)

    def gates(self) -> Tensor:
        """Returns the gates of this step, or in evaluation those without noise: as the means."""
        mu = self.means()
        if self.training and not self.begun:
            # where networks are tried out, every task reaches what it may reach
            return mu
        if self.training:
            # noise from the CPU's generator is the same on every rank
            noise = torch.randn(mu.shape, dtype=torch.float64)
            mu = mu + self.sigma * noise.to(mu)
        return mu.clamp(0, 1)

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns each task's features of the inputs behind its own gates."""
        gates = self.gates()
        features: Mapping[str, Tensor] = self.architecture(gate_inputs(inputs, gates, self.places))
        if self.own is None:
            return features
        views = len(self.tasks)
        return {
            task: features[task].unflatten(0, (-1, views))[:, t]
            for t, task in enumerate(self.tasks)
        }

    def owners(self) -> Iterator[Owned]:
        """Yields gates for their task, or for all, besides what the architecture has."""
        yield from super().owners()
        if self.common is not None:
            yield Owned(self.tasks, [self.common])
        if self.own is not None:
            yield Owned(self.tasks, [self.own], slices=True)

    def penalty(self) -> Tensor | None:
        """Returns the penalty on open gates, and that of the architecture."""
        mu = self.means()
        chances = torch.special.ndtr(mu / self.sigma).sum(1)
        strengths = self.strengths[:1] if self.own is None else self.strengths
        total = (chances * chances.new_tensor(strengths)).sum() * self.share
        if self.own is not None and self.common is not None:
            total = total + self.deviation * (self.speed * self.own).square().sum()
        inner = super().penalty()
        return total if inner is None else total + inner.to(total.device)

    def observe(self) -> dict[str, Tensor]:
        """Returns what the architecture observes, averaged over the views of a row."""
        found = super().observe()
        if self.own is None:
            return found
        views = len(self.tasks)
        return {name: x.unflatten(0, (-1, views)).double().mean(1) for name, x in found.items()}

    @torch.no_grad()
    def openness(self) -> Tensor:
        """Returns P(g > 0) of each task and column: (T, D)."""
        chances = torch.special.ndtr(self.means().double() / self.sigma)
        return chances.expand(len(self.tasks), -1)

    @torch.no_grad()
    def is_open(self) -> Tensor:
        """Returns whether gates are open in evaluation, mu > 0: (T, D)."""
        return (self.means() > 0).expand(len(self.tasks), -1)

    def closed_state(self) -> dict[str, Tensor]:
        """Returns parameters with which mu is far below 0."""
        own = {"common": self.common, "own": self.own}
        return {
            name: torch.full_like(p, -10.0 / self.speed) for name, p in own.items() if p is not None
        }
