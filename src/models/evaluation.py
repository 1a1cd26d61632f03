"""One pass over validation or test rows: losses, metrics, scores."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from src.batch import PADDING, SENSITIVE, Batch
from src.collectives import global_sum, replica_group
from src.tasks.evaluation import TaskEvaluation

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel


class Evaluation:
    """Gathers the losses and metrics of one pass over rows that are spread over ranks.

    Rows that only pad a batch have no labels, and count nowhere.

    Args:
        model: The model; its metrics are reset.

    Attributes:
        observed: The means over rows of what the sharing architecture observes, once finished.
    """

    def __init__(self, model: "MultiTaskModel") -> None:
        self.model = model
        self.observed: dict[str, Tensor] = {}
        shape = 2, len(model.names)
        if model.meta is not None:
            model.meta.begin_scores()
        if model.fairness is not None:
            model.fairness.begin_evaluation()
        self._totals_2T = torch.zeros(*shape, dtype=torch.float64, device=model.device)
        self._sums: dict[str, tuple[Tensor, torch.Size]] = {}

        metrics = {name: model.metrics_of(name) for name in model.tasks}
        self._of_tasks = TaskEvaluation(
            model.tasks, metrics, model.chosen_tasks, model.score_weights
        )
        for collection in metrics.values():
            for metric in collection.values():
                metric.process_group = replica_group()

    @property
    def scores(self) -> dict[str, float]:
        """{task: score}, once finished; NaN where no label defines it."""
        return self._of_tasks.scores

    def add(self, batch: Batch) -> dict[str, Tensor]:
        """Adds a batch of this process's rows; returns {task: outputs}."""
        grouped = self.model.run(batch)
        self._observe(batch)
        return self._add_grouped(batch, grouped)

    def add_outputs(self, batch: Batch, outputs: Mapping[str, Tensor]) -> None:
        """Adds a batch whose outputs are known: {task: (B, ..., O)}; the network does not run."""
        groups = self.model.heads.groups
        stacked = [torch.stack([outputs[name] for name in group.names], -2) for group in groups]
        self._add_grouped(batch, stacked)

    def _add_grouped(self, batch: Batch, grouped: list[Tensor]) -> dict[str, Tensor]:
        model = self.model
        totals = model.heads.loss_sums(grouped, batch.targets, batch.weights)
        self._totals_2T += torch.stack(totals)
        if model.fairness is not None and SENSITIVE in batch.extras:
            model.fairness.add_rows(model.heads, grouped, batch)
        outputs = model.heads.split(grouped)
        self._of_tasks.add(outputs, batch.targets, batch.weights)
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
        """Sums over ranks; returns {stage/task/name: value} and stage/score, a mean over tasks.

        Args:
            stage: 'val' or 'test'.
            choose: Whether the tasks' thresholds are chosen on these rows, before anything that
                depends on them is computed.
        """
        sums_T, counts_T = global_sum(self._totals_2T).tolist()
        for name, (sums, shape) in self._sums.items():
            total = global_sum(sums)
            self.observed[name] = (total[:-1] / total[-1]).view(shape)

        losses = dict(zip(self.model.names, zip(sums_T, counts_T, strict=True), strict=True))
        found = self._of_tasks.finish(stage, losses, choose)
        if self.model.meta is not None:
            found |= self.model.meta.finish_scores(stage)
        if self.model.fairness is not None:
            found |= self.model.fairness.finish_evaluation(stage)
        return found
