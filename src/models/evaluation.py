"""One pass over validation or test rows: losses, metrics, scores."""

from math import inf, isfinite, isnan, nan
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from src.batch import PADDING, Batch
from src.collectives import global_sum, replica_group

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel


class Evaluation:
    """Gathers the losses and metrics of one pass over rows that are spread over ranks.

    Rows that only pad a batch have no labels, and count nowhere.

    Args:
        model: The model; its metrics are reset.

    Attributes:
        observed: The means over rows of what the sharing architecture observes, once finished.
        scores: {task: score}, once finished; NaN where no label defines it.
    """

    def __init__(self, model: "MultiTaskModel") -> None:
        self.model = model
        self.observed: dict[str, Tensor] = {}
        self.scores: dict[str, float] = {}
        shape = 2, len(model.names)
        self._totals_2T = torch.zeros(*shape, dtype=torch.float64, device=model.device)
        self._sums: dict[str, tuple[Tensor, torch.Size]] = {}
        for name in model.tasks:
            metrics = model.metrics_of(name)
            metrics.reset()
            for metric in metrics.values():
                metric.process_group = replica_group()

    def add(self, batch: Batch) -> dict[str, Tensor]:
        """Adds a batch of this process's rows; returns {task: outputs}."""
        model = self.model
        features = model.runner.features(model, batch.inputs)
        grouped = model.runner.outputs(model, features)
        self._observe(batch)
        self._totals_2T += torch.stack(model.heads.loss_sums(grouped, batch.targets))
        outputs = model.heads.split(grouped)
        for name, task in model.tasks.items():
            task.update_metrics(model.metrics_of(name), outputs[name], batch.targets[name])
        return outputs

    def _observe(self, batch: Batch) -> None:
        """Sums what the sharing architecture observes, with the count of rows behind it."""
        for name, values in self.model.sharing.observe().items():
            kept = values.detach().to(batch.ids.device)[batch.ids != PADDING].double()
            count = kept.new_tensor([len(kept)])
            sums = torch.cat([kept.sum(0).flatten(), count])
            if name in self._sums:
                sums = self._sums[name][0] + sums
            self._sums[name] = sums, kept.shape[1:]

    def finish(self, stage: str, choose: bool = False) -> dict[str, float]:
        """Sums over ranks; returns {stage/task/name: value} and stage/score, the tasks' mean.

        Args:
            stage: 'val' or 'test'.
            choose: Whether the tasks' thresholds are chosen on these rows, before anything that
                depends on them is computed.
        """
        model = self.model
        sums_T, counts_T = global_sum(self._totals_2T)
        for name, (sums, shape) in self._sums.items():
            total = global_sum(sums)
            self.observed[name] = (total[:-1] / total[-1]).view(shape)

        values: dict[str, float] = {}
        for name, total, count in zip(model.names, sums_T.tolist(), counts_T.tolist(), strict=True):
            loss = total / count if count else nan
            metrics = model.metrics_of(name)
            if choose:
                task = model.tasks[name]
                model.chosen_tasks[name] = task.choose(metrics) if count else task
            task = model.chosen_tasks[name]
            computed = task.compute(metrics)
            logged = {"loss": loss, **computed, **task.compute_per_output(metrics)}
            for key, value in logged.items():
                values[f"{stage}/{name}/{key}"] = float(value)

            bounded = task.bound_for_score(metrics) if count else {}
            # a task that diverged has the worst score
            diverged = count and not isfinite(loss)
            self.scores[name] = -inf if diverged else task.score({**computed, **bounded})

        # a task without labels has no score
        known = [score for score in self.scores.values() if not isnan(score)]
        values[f"{stage}/score"] = sum(known) / len(known) if known else nan
        return values
