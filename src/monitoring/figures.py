"""Pictures at the end of validation: confusion matrices, predicted against true values, what tasks share."""

from typing import TYPE_CHECKING, Any, cast

import lightning as L
import torch
from torch import Tensor

from src.monitoring.dashboard import board
from src.monitoring.drawing import matrix_figure, panels, routes_figure, short
from src.monitoring.watched import Watched
from src.parallel.replicas import global_sum
from src.tasks import BinaryClassification, Classification, MultilabelClassification, Regression, Task, labelled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Figures(L.Callback):
    """Draws every ``every_n_epochs`` epochs and after the last.

    Counts are exact over all ranks; scatter plots show the first rank's first rows.

    Args:
        every_n_epochs: How often to draw; 0 never draws.
        most_points: Most points in a scatter plot.
        most_classes: Tasks with more classes or labels get no confusion matrix.
    """

    def __init__(self, every_n_epochs: int = 10, most_points: int = 1000, most_classes: int = 50) -> None:
        self.every_n_epochs, self.most_points, self.most_classes = every_n_epochs, most_points, most_classes
        self.counts: dict[str, Tensor] = {}
        self.points: dict[str, list[Tensor]] = {}

    def _due(self, trainer: L.Trainer) -> bool:
        if not self.every_n_epochs or trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return False
        epoch = trainer.current_epoch + 1
        return epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forgets the last validation."""
        self.counts, self.points = {}, {}

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collects counts and points."""
        if not self._due(trainer):
            return
        for name, task in cast(Watched, pl_module).tasks.items():
            output, target = outputs[name].float(), batch.targets[name]
            if isinstance(task, Regression):
                pairs = torch.stack([target.reshape(-1, task.out_features), task.predicted(output).reshape(-1, task.out_features)])
                pairs = pairs[:, labelled(pairs[0]).any(1)]
                seen = sum(part.shape[1] for part in self.points.get(name, []))
                self.points.setdefault(name, []).append(pairs[:, : self.most_points - seen].cpu())
            elif (counts := self._confusion(task, output, target)) is not None:
                self.counts[name] = self.counts.get(name, torch.zeros_like(counts)) + counts

    def _confusion(self, task: Task, output: Tensor, target: Tensor) -> Tensor | None:
        """Counts (labels, true, predicted)."""
        match task:
            case Classification() if task.out_features <= self.most_classes:
                guess, size = output.argmax(-1)[..., None], task.out_features
            case BinaryClassification() | MultilabelClassification() if task.out_features <= self.most_classes:
                guess, size = (output > 0).long(), 2
            case _:
                return None
        truth = target.reshape(guess.shape).flatten(0, -2)
        mask, labels = labelled(truth), guess.shape[-1]
        cell = (torch.arange(labels, device=truth.device) * size + truth.nan_to_num(0).long()) * size + guess.flatten(0, -2)
        return torch.bincount(cell[mask], minlength=labels * size * size).view(labels, size, size)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draws."""
        if not self._due(trainer):
            return
        for counts in self.counts.values():
            global_sum(counts)
        logger = board(trainer)
        if logger is None:
            return
        for name, task in cast(Watched, pl_module).tasks.items():
            if name in self.counts:
                figure = confusion_figure(name, task, self.counts[name])
            elif name in self.points and any(part.numel() for part in self.points[name]):
                assert isinstance(task, Regression)
                figure = scatter_figure(name, task, torch.cat(self.points[name], 1))
            else:
                continue
            logger.experiment.add_figure(f"val/{name}", figure, global_step=trainer.global_step, close=False)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draws what the model found out about sharing, which it sums up when its epoch ends."""
        if not self._due(trainer):
            return
        tables, logger = cast(Watched, pl_module).pictures(), board(trainer)  # parameters may have to come from all ranks
        if logger is None:
            return
        for title, table in tables.items():
            rows, columns = [str(name) for name in table.index], [str(name) for name in table.columns]
            draw = routes_figure if table.to_numpy().dtype.kind == "i" else matrix_figure
            figure = draw(title, rows, columns, table.to_numpy())
            logger.experiment.add_figure(f"sharing/{title}", figure, global_step=trainer.global_step, close=False)


def confusion_figure(name: str, task: Task, counts: Tensor) -> "Figure":
    """One matrix per label, rows the truth: shares of each row as colour, counts as numbers."""
    several = isinstance(task, MultilabelClassification)
    titles = [f"{name}: {label}" for label in task.labels] if isinstance(task, MultilabelClassification) else [name]
    names = ["no", "yes"] if several else [str(c) for c in getattr(task, "classes", ())]
    shown = [short(name) for name in names]
    longest, places = max(map(len, shown)), range(len(names))
    across = sum(map(len, shown)) > 24
    boxes = panels(len(titles), longest)
    for axes, title, matrix in zip(boxes, titles, counts.cpu(), strict=True):
        axes.imshow((matrix / matrix.sum(1, keepdim=True).clamp(min=1)).numpy(), vmin=0, vmax=1, cmap="Blues")
        axes.set(title=title, xlabel="predicted", ylabel="true")
        axes.set_xticks(places, shown, rotation=90 if across else 0, fontsize=10 if len(names) <= 20 else 5)
        axes.set_yticks(places, shown, fontsize=10 if len(names) <= 20 else 5)
        for row in places if len(names) <= 12 else ():
            for column in places:
                value = int(matrix[row, column])
                dark = value > matrix[row].sum() / 2
                axes.text(column, row, str(value), ha="center", va="center", color="white" if dark else "black")
    return boxes[0].figure


def scatter_figure(name: str, task: Regression, pairs: Tensor) -> "Figure":
    """Predicted against true values (2, points, outputs) in the label's own unit, one panel per output."""
    titles = [f"{name}: {output}" for output in task.names] or [name]
    boxes = panels(len(titles), name_length=4)
    for axes, title, values in zip(boxes, titles, task.in_units(pairs.double()).unbind(-1), strict=True):
        true, predicted = values[:, labelled(values[0])].numpy()
        axes.scatter(true, predicted, s=6, alpha=0.5)
        ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())] if len(true) else [0, 1]
        axes.plot(ends, ends, color="grey", linewidth=1)
        axes.set(xlabel="true", ylabel="predicted", title=title)
    return boxes[0].figure
