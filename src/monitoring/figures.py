"""Figures at the end of validation: confusion matrices, scatter plots, maps, how tasks share."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from src.collectives import global_sum
from src.errors import attempt
from src.monitoring.dashboard import find_board
from src.monitoring.drawing import draw_matrix, draw_routes, make_panels, shorten_name
from src.monitoring.map_figures import Maps, collect_maps, draw_maps
from src.monitoring.observed_model import ObservedModel
from src.monitoring.watcher import Watcher, agree
from src.tasks import (
    BinaryClassification,
    Classification,
    DenseRegression,
    MultilabelClassification,
    Regression,
    Segmentation,
    SequenceLabelling,
    Task,
    is_labelled,
)
from src.tasks.decisions import Scores, count_decisions

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class Figures(Watcher):
    """Draws in every ``every``-th validation and in the last one.

    Counts are exact over all ranks, of the classes that tasks decode, at the thresholds that
    validation chose; scatter plots show the first rows of the first rank, and so do pictures of
    images with labels per pixel.

    Args:
        every: Validations from one set of figures to the next; 0 never draws.
        most_points: Most points in a scatter plot.
        most_classes: Tasks with more classes or labels get no confusion matrix.
        most_images: Images that are shown with their labels and predictions per pixel.
    """

    def __init__(
        self, every: int = 10, most_points: int = 1000, most_classes: int = 50, most_images: int = 4
    ) -> None:
        self.every = every
        self.most_points = most_points
        self.most_classes = most_classes
        self.most_images = most_images
        self._forget()

    def _forget(self) -> None:
        self.counts: dict[str, Tensor] = {}
        self.points: dict[str, list[Tensor]] = {}
        self.maps: dict[str, Maps] = {}
        self.error: Exception | None = None  # of this process, until all processes meet

    def _is_due(self, trainer: L.Trainer) -> bool:
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
        if self._is_due(trainer) and self.error is None:
            model = cast(ObservedModel, pl_module)
            collect = partial(self._collect, model, outputs, batch)
            self.error = attempt(collect, Exception)

    def _collect(self, model: ObservedModel, outputs: Any, batch: Any) -> None:
        targets = batch.targets
        images = batch.inputs
        shows_maps = not self.maps and isinstance(images, Tensor) and images.ndim == 4
        for name, task in model.tasks.items():
            if shows_maps:
                few = (images, outputs[name], targets[name])
                maps = collect_maps(task, *(values[: self.most_images] for values in few))
                if maps is not None:
                    self.maps[name] = maps
            if isinstance(task, Regression):
                self._collect_points(name, task, outputs[name].float(), targets[name])
            elif isinstance(task, Classification) and len(task.classes) <= self.most_classes:
                counts = count_classes(task, outputs[name].float(), targets[name])
                self.counts[name] = self.counts.get(name, torch.zeros_like(counts)) + counts

    def _collect_points(self, name: str, task: Regression, output: Tensor, target: Tensor) -> None:
        batches = self.points.setdefault(name, [])
        room = self.most_points - sum(pairs.shape[1] for pairs in batches)
        if not room:
            return
        pairs = pair_known(task, output, target)
        if isinstance(task, DenseRegression):
            # neighbouring pixels tell the same
            pairs = pairs[:, :: max(1, pairs.shape[1] // room)]
        batches.append(pairs[:, :room].cpu())

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draws, after the model has chosen thresholds and observed how tasks share.

        Processes meet in sums, and where parameters are in shards. So each action that may fail on
        one of them alone is attempted first, and all go on or none.
        """
        if not self._is_due(trainer):
            return
        model = cast(ObservedModel, pl_module)
        logger = find_board(trainer)
        error = self.error or attempt(partial(self._count_decisions, model), Exception)
        agree(trainer, error)
        for counts in self.counts.values():
            global_sum(counts)
        tables = model.figures()
        error = None
        if logger is not None:
            draw = partial(self._draw, logger, trainer.global_step, model, tables)
            error = attempt(draw, Exception)
        agree(trainer, error)

    def _count_decisions(self, model: ObservedModel) -> None:
        """Counts decisions at the thresholds of this validation, from the metrics' scores."""
        for name, task in model.chosen_tasks.items():
            if isinstance(task, BinaryClassification):
                thresholds: tuple[float, ...] = (task.decision_threshold,)
            elif isinstance(task, MultilabelClassification):
                thresholds = task.decision_thresholds
            else:
                continue
            metrics = model.metrics_of(name)
            # a kind may have metrics of its own, without scores
            if len(thresholds) <= self.most_classes and "scores" in metrics:
                scores = cast(Scores, metrics["scores"]).read_own()
                self.counts[name] = count_decisions(scores, thresholds)

    def _draw(
        self,
        logger: TensorBoardLogger,
        step: int,
        model: ObservedModel,
        tables: "Mapping[str, DataFrame]",
    ) -> None:
        for name, task in model.tasks.items():
            if name in self.counts:
                figure = draw_confusion(name, task, self.counts[name])
            elif name in self.points and any(pairs.numel() for pairs in self.points[name]):
                assert isinstance(task, Regression)
                figure = draw_scatter(name, task, torch.cat(self.points[name], 1))
            else:
                continue
            logger.experiment.add_figure(f"val/{name}", figure, global_step=step, close=False)
        for name, maps in self.maps.items():
            figure = draw_maps(name, maps)
            logger.experiment.add_figure(f"val/{name}/maps", figure, step, close=False)
        for title, table in tables.items():
            rows = [str(name) for name in table.index]
            columns = [str(name) for name in table.columns]
            values = table.to_numpy()
            draw = draw_routes if values.dtype.kind == "i" else draw_matrix
            figure = draw(title, rows, columns, values)
            logger.experiment.add_figure(f"sharing/{title}", figure, global_step=step, close=False)


def pair_known(task: Regression, output: Tensor, target: Tensor) -> Tensor:
    """Returns true and predicted values (2, labels, L), standardised, of known labels."""
    size = task.values_per_label
    pairs = torch.stack([target.reshape(-1, size), task.predict(output).reshape(-1, size)])
    return pairs[:, is_labelled(pairs[0]).any(1)]


def count_classes(task: Classification, output: Tensor, target: Tensor) -> Tensor:
    """Returns counts (1, C, C): truth, class that the task decodes."""
    classes = len(task.classes)
    truth = target.flatten()
    known = is_labelled(truth)
    cells = truth[known] * classes + find_positions(task, output).flatten()[known]
    return torch.bincount(cells, minlength=classes**2).view(1, classes, classes)


def find_positions(task: Classification, output: Tensor) -> Tensor:
    """Returns the positions of the classes that a task decodes from outputs (..., O)."""
    # a sentence is decoded as one text, an image as shares of its pixels
    is_whole = isinstance(task, SequenceLabelling | Segmentation)
    if is_whole or type(task).decode is Classification.decode:
        return task.predict(output)
    place = {label: i for i, label in enumerate(task.classes)}
    positions = [place[label] for label in task.decode(output.flatten(0, -2))[""]]
    return torch.tensor(positions, device=output.device).view(output.shape[:-1])


def draw_confusion(name: str, task: Task, counts: Tensor) -> "Figure":
    """Draws a matrix per label, rows the truth: shares of each row as colour, counts as numbers."""
    if isinstance(task, MultilabelClassification):
        titles = [f"{name}: {label}" for label in task.labels]
        names = ["no", "yes"]
    else:
        titles = [name]
        names = [shorten_name(str(label)) for label in getattr(task, "classes", ())]
    places = range(len(names))
    rotation = 90 if sum(map(len, names)) > 24 else 0
    size = 10 if len(names) <= 20 else 5

    boxes = make_panels(len(titles), max(map(len, names)))
    for axes, title, matrix in zip(boxes, titles, counts.cpu(), strict=True):
        shares = matrix / matrix.sum(1, keepdim=True).clamp(min=1)
        axes.imshow(shares.numpy(), vmin=0, vmax=1, cmap="Blues")
        axes.set(title=title, xlabel="predicted", ylabel="true")
        axes.set_xticks(places, names, rotation=rotation, fontsize=size)
        axes.set_yticks(places, names, fontsize=size)
        # of more classes the numbers would overlap
        for row in places if len(names) <= 12 else ():
            for column in places:
                value = int(matrix[row, column])
                color = "white" if value > matrix[row].sum() / 2 else "black"
                axes.text(column, row, str(value), ha="center", va="center", color=color)
    return boxes[0].figure


def draw_scatter(name: str, task: Regression, pairs: Tensor) -> "Figure":
    """Draws predicted against true values in the label's own unit, a panel per output.

    Args:
        name: The task's name.
        task: The task.
        pairs: True and predicted values (2, points, outputs), standardised.
    """
    titles = [f"{name}: {output}" for output in task.names] or [name]
    boxes = make_panels(len(titles), name_length=4)
    outputs = task.in_units(pairs.double()).unbind(-1)
    for axes, title, values in zip(boxes, titles, outputs, strict=True):
        true, predicted = values[:, is_labelled(values[0])].numpy()
        axes.scatter(true, predicted, s=6, alpha=0.5)
        # the diagonal, where predictions are right
        ends = [0, 1]
        if len(true):
            ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
        axes.plot(ends, ends, color="grey", linewidth=1)
        axes.set(xlabel="true", ylabel="predicted", title=title)
    return boxes[0].figure
