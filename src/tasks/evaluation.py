"""The metrics and scores of all tasks over one pass over validation or test rows."""

from collections.abc import Mapping, MutableMapping
from math import inf, isfinite, nan

from torch import Tensor
from torchmetrics import MetricCollection

from src.tasks.score import compute_mean
from src.tasks.task import Task


class TaskEvaluation:
    """Gathers the metrics of one pass over rows, from outputs and targets alone.

    So a network and a reference that is none are measured by the same lines.

    Args:
        tasks: {name: task}.
        metrics: {name: its metrics, of :meth:`Task.assemble_metrics`}; they are reset.
        chosen: {name: the task with the thresholds that a validation has chosen}; a validation
            puts its choice in.
        score_weights: {name: weight of its score}; None weighs all alike.

    Attributes:
        scores: {task: score}, once finished; NaN where no label defines it.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        metrics: Mapping[str, MetricCollection],
        chosen: MutableMapping[str, Task],
        score_weights: Mapping[str, float] | None = None,
    ) -> None:
        self.tasks = tasks
        self.metrics = metrics
        self.chosen = chosen
        self.score_weights = score_weights or dict.fromkeys(tasks, 1.0)
        self.scores: dict[str, float] = {}
        for collection in metrics.values():
            collection.reset()

    def add(
        self,
        outputs: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Adds a batch.

        Args:
            outputs: {task: (B, ..., O)}, fp32.
            targets: {task: (B, ...)}; missing labels count nowhere.
            weights: {task: (B,)} weights of the rows; a task that is not there has weight 1.
        """
        own = weights or {}
        for name, task in self.tasks.items():
            task.update_metrics(self.metrics[name], outputs[name], targets[name], own.get(name))

    def finish(
        self, stage: str, losses: Mapping[str, tuple[float, float]], choose: bool = False
    ) -> dict[str, float]:
        """Returns {stage/task/name: value} and stage/score, a mean of the tasks' scores.

        Args:
            stage: 'val' or 'test'.
            losses: {task: (sum of its losses, number of its labels)} over all rows, each times the
                weight of its row.
            choose: Whether the tasks' thresholds are chosen on these rows, before anything that
                depends on them is computed.
        """
        values: dict[str, float] = {}
        for name, (total, count) in losses.items():
            loss = total / count if count else nan
            metrics = self.metrics[name]
            if choose:
                task = self.tasks[name]
                self.chosen[name] = task.choose(metrics) if count else task
            task = self.chosen[name]
            computed = task.compute(metrics)
            logged: dict[str, Tensor | float] = {"loss": loss}
            logged |= computed | task.compute_per_output(metrics)
            for key, value in logged.items():
                values[f"{stage}/{name}/{key}"] = float(value)

            bounded = task.bound_for_score(metrics) if count else {}
            # a task that diverged has the worst score
            diverged = count and not isfinite(loss)
            self.scores[name] = -inf if diverged else task.score({**computed, **bounded})

        values[f"{stage}/score"] = compute_mean(self.scores, self.score_weights)
        return values
