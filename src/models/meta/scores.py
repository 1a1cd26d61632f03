"""The score of each single episode, and how sure its mean is."""

from collections.abc import Mapping

import torch
from torch import Tensor

from src.collectives import global_sum
from src.tasks import BinaryClassification, Classification, Task, is_labelled

NORMAL_95 = 1.96  # standard errors on both sides of a mean that hold 95 % of a normal law


class EpisodeScores:
    """Sums the scores of episodes over a pass, for each number of inner steps.

    An episode's score is the share of its query labels that are right, or for numbers the mean of
    its losses, such as squared errors in standard deviations. The interval is the mean
    +- 1.96 s / sqrt(n) over n episodes, with their standard deviation s.

    Args:
        task: The task of the episodes.

    Attributes:
        measure: 'accuracy' or 'loss'.
        values: {name: value} of :meth:`finish`, once finished.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        counts = isinstance(task, Classification | BinaryClassification)
        self.measure = "accuracy" if counts else "loss"
        self.values: dict[str, float] = {}
        self._episodes = 0
        self._sums: dict[int, Tensor] = {}

    def add(self, outputs: Mapping[int, Tensor], targets: Tensor) -> None:
        """Adds episodes.

        Args:
            outputs: {number of inner steps: outputs (E, Q, 1, O)}.
            targets: (E, Q, ...); episodes without a label count nowhere.
        """
        known = is_labelled(targets)
        counts = known.flatten(1).double().sum(1)
        for steps, of_episodes in outputs.items():
            values = self.score_rows(of_episodes.detach().squeeze(2), targets)
            sums = (values.double() * known).flatten(1).sum(1)

            scores = (sums / counts)[counts > 0]
            moments = torch.stack([scores.new_tensor(len(scores)), scores.sum(), (scores**2).sum()])
            self._sums[steps] = self._sums[steps] + moments if steps in self._sums else moments

    def score_rows(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the score of each row, of the shape of targets (E, Q, ...)."""
        if isinstance(self.task, BinaryClassification):
            return (outputs.squeeze(-1) > 0) == (targets > 0.5)
        if isinstance(self.task, Classification):
            return self.task.predict(outputs) == targets
        return self.task.losses(outputs, targets)

    def finish(self) -> dict[str, float]:
        """Sums over ranks; returns {name: value}.

        These are 'accuracy' or 'loss' and its interval, '<name>_ci95', half of its width. Names
        that begin with 'after_1/' are those after one inner step, where several are reported.
        """
        last = max(self._sums, default=0)
        for steps, moments in self._sums.items():
            count, total, squares = global_sum(moments.clone()).tolist()
            mean = total / count if count else float("nan")
            spread = float("nan")
            if count > 1:
                variance = max(0.0, (squares - count * mean**2) / (count - 1))
                spread = NORMAL_95 * (variance / count) ** 0.5
            prefix = "" if steps == last else f"after_{steps}/"
            self.values[f"{prefix}{self.measure}"] = mean
            self.values[f"{prefix}{self.measure}_ci95"] = spread
            self._episodes = int(count)
        return self.values

    def describe(self, method: str) -> list[str]:
        """Returns a line for people, once finished."""
        if not self.values:
            return []
        last = max(self._sums)
        parts = []
        for steps in self._sums:
            prefix = "" if steps == last else f"after_{steps}/"
            mean = self.values[f"{prefix}{self.measure}"]
            spread = self.values[f"{prefix}{self.measure}_ci95"]
            word = "step" if steps == 1 else "steps"
            after = f" after {steps} inner {word}" if last else ""
            parts.append(f"{mean:.4f} +- {spread:.4f}{after}")
        return [
            f"{method}: {self.measure} {', '.join(parts)} "
            f"(95 % intervals over {self._episodes} episodes)"
        ]
