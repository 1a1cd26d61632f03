"""Pictures at the end of validation: confusion matrices, predicted against true values, what tasks share."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from src.collectives import global_sum
from src.monitoring.dashboard import board
from src.monitoring.drawing import matrix_figure, panels, routes_figure, short
from src.monitoring.observed_model import ObservedModel
from src.monitoring.watcher import Watcher, agree, attempt
from src.tasks import (
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Regression,
    Task,
    is_labelled,
)
from src.tasks.decisions import Scores, confusion_counts

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class Figures(Watcher):
    """Draws in every ``every``-th validation and in the last one.

    Counts are exact over all ranks, of what tasks decode and at the thresholds that validation
    chose; scatter plots show the first rank's first rows.

    Args:
        every: How often to draw; 0 never draws.
        most_points: Most points in a scatter plot.
        most_classes: Tasks with more classes or labels get no confusion matrix.
    """

    def __init__(self, every: int = 10, most_points: int = 1000, most_classes: int = 50) -> None:
        self.every, self.most_points, self.most_classes = every, most_points, most_classes
        self._forget()

    def _forget(self) -> None:
        self.counts: dict[str, Tensor] = {}
        self.points: dict[str, list[Tensor]] = {}
        self.error: Exception | None = None  # of this process, until all meet

    def _due(self, trainer: L.Trainer) -> bool:
        if not self.every or trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return False
        between = trainer.check_val_every_n_epoch or 1  # epochs from one validation to the next
        epoch = trainer.current_epoch + 1
        last = 0 <= (trainer.max_epochs or 0) - epoch < between
        return last or epoch // between % self.every == 0

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forgets the last validation."""
        self._forget()

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collects counts of classes and points; a failure waits until all processes meet."""
        if self._due(trainer) and self.error is None:
            self.error = attempt(
                partial(self._collect, cast(ObservedModel, pl_module), outputs, batch.targets)
            )

    def _collect(self, model: ObservedModel, outputs: Any, targets: Any) -> None:
        for name, task in model.tasks.items():
            if isinstance(task, Regression):
                seen = sum(part.shape[1] for part in self.points.get(name, []))
                pairs = pairs_of(task, outputs[name].float(), targets[name])[
                    :, : self.most_points - seen
                ]
                self.points.setdefault(name, []).append(pairs.cpu())
            elif isinstance(task, Classification) and len(task.classes) <= self.most_classes:
                counts = class_counts(task, outputs[name].float(), targets[name])
                self.counts[name] = self.counts.get(name, torch.zeros_like(counts)) + counts

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draws, once the model has chosen thresholds and summed up what it found out about sharing.

        Processes meet in sums and where parameters lie in parts, so each step that may fail in one
        of them alone is tried first, and all go on or none.
        """
        if not self._due(trainer):
            return
        model, logger = cast(ObservedModel, pl_module), board(trainer)
        error = self.error or attempt(partial(self._count_decisions, model))
        agree(trainer, error)
        for counts in self.counts.values():
            global_sum(counts)
        tables = model.figures()
        agree(
            trainer,
            None
            if logger is None
            else attempt(partial(self._draw, logger, trainer.global_step, model, tables)),
        )

    def _count_decisions(self, model: ObservedModel) -> None:
        """Counts yes and no at the thresholds of this validation; metrics have kept the probabilities."""
        for name, task in model.chosen_tasks.items():
            if isinstance(task, BinaryClassification):
                thresholds: tuple[float, ...] = (task.decision_threshold,)
            elif isinstance(task, MultilabelClassification):
                thresholds = task.decision_thresholds
            else:
                continue
            metrics = model.metrics_of(name)
            if (
                len(thresholds) <= self.most_classes and "scores" in metrics
            ):  # a kind may have metrics of its own
                self.counts[name] = confusion_counts(
                    cast(Scores, metrics["scores"]).read_own(), thresholds
                )

    def _draw(
        self,
        logger: TensorBoardLogger,
        step: int,
        model: ObservedModel,
        tables: "Mapping[str, DataFrame]",
    ) -> None:
        for name, task in model.tasks.items():
            if name in self.counts:
                figure = confusion_figure(name, task, self.counts[name])
            elif name in self.points and any(part.numel() for part in self.points[name]):
                assert isinstance(task, Regression)
                figure = scatter_figure(name, task, torch.cat(self.points[name], 1))
            else:
                continue
            logger.experiment.add_figure(f"val/{name}", figure, global_step=step, close=False)
        for title, table in tables.items():
            rows, columns = (
                [str(name) for name in table.index],
                [str(name) for name in table.columns],
            )
            draw = routes_figure if table.to_numpy().dtype.kind == "i" else matrix_figure
            figure = draw(title, rows, columns, table.to_numpy())
            logger.experiment.add_figure(f"sharing/{title}", figure, global_step=step, close=False)


def pairs_of(task: Regression, output: Tensor, target: Tensor) -> Tensor:
    """Returns true and predicted values (2, labels, L), standardised, of labels that are known."""
    size = task.values_per_label
    pairs = torch.stack([target.reshape(-1, size), task.predict(output).reshape(-1, size)])
    return pairs[:, is_labelled(pairs[0]).any(1)]


def class_counts(task: Classification, output: Tensor, target: Tensor) -> Tensor:
    """Returns counts (1, C, C) of the truth and what the task's own decoding says."""
    classes, truth = len(task.classes), target.flatten()
    known = is_labelled(truth)
    cells = truth[known] * classes + decoded(task, output).flatten()[known]
    return torch.bincount(cells, minlength=classes**2).view(1, classes, classes)


def decoded(task: Classification, output: Tensor) -> Tensor:
    """Returns the positions of the classes that a task decodes outputs (..., O) to."""
    if type(task).decode is Classification.decode:
        return task.predict(output)
    place = {label: i for i, label in enumerate(task.classes)}
    positions = [place[label] for label in task.decode(output.flatten(0, -2))[""]]
    return torch.tensor(positions, device=output.device).view(output.shape[:-1])


def confusion_figure(name: str, task: Task, counts: Tensor) -> "Figure":
    """One matrix per label, rows the truth: shares of each row as colour, counts as numbers."""
    several = isinstance(task, MultilabelClassification)
    titles = (
        [f"{name}: {label}" for label in task.labels]
        if isinstance(task, MultilabelClassification)
        else [name]
    )
    names = ["no", "yes"] if several else [str(c) for c in getattr(task, "classes", ())]
    shown = [short(name) for name in names]
    longest, places = max(map(len, shown)), range(len(names))
    across = sum(map(len, shown)) > 24
    boxes = panels(len(titles), longest)
    for axes, title, matrix in zip(boxes, titles, counts.cpu(), strict=True):
        axes.imshow(
            (matrix / matrix.sum(1, keepdim=True).clamp(min=1)).numpy(),
            vmin=0,
            vmax=1,
            cmap="Blues",
        )
        axes.set(title=title, xlabel="predicted", ylabel="true")
        axes.set_xticks(
            places, shown, rotation=90 if across else 0, fontsize=10 if len(names) <= 20 else 5
        )
        axes.set_yticks(places, shown, fontsize=10 if len(names) <= 20 else 5)
        for row in places if len(names) <= 12 else ():
            for column in places:
                value = int(matrix[row, column])
                dark = value > matrix[row].sum() / 2
                axes.text(
                    column,
                    row,
                    str(value),
                    ha="center",
                    va="center",
                    color="white" if dark else "black",
                )
    return boxes[0].figure


def scatter_figure(name: str, task: Regression, pairs: Tensor) -> "Figure":
    """Predicted against true values (2, points, outputs) in the label's own unit, one panel per output."""
    titles = [f"{name}: {output}" for output in task.names] or [name]
    boxes = panels(len(titles), name_length=4)
    for axes, title, values in zip(
        boxes, titles, task.in_units(pairs.double()).unbind(-1), strict=True
    ):
        true, predicted = values[:, is_labelled(values[0])].numpy()
        axes.scatter(true, predicted, s=6, alpha=0.5)
        ends = (
            [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
            if len(true)
            else [0, 1]
        )
        axes.plot(ends, ends, color="grey", linewidth=1)
        axes.set(xlabel="true", ylabel="predicted", title=title)
    return boxes[0].figure
