"""Pictures hold the right counts and points."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchmetrics import MetricCollection

from src.batch import Batch
from src.data import Rows, Split
from src.monitoring import Figures
from src.monitoring.figures import count_classes, draw_confusion, draw_scatter
from src.monitoring.watcher import WatcherGroup
from src.tasks import (
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Regression,
    Task,
)
from tests.cli.calling import call
from tests.launching import only_run
from tests.toy import Toy

NAN = float("nan")
TASKS = {
    "kind": Classification(classes=("a", "b", "c")),
    "flag": BinaryClassification(classes=("no", "yes")),
    "tags": MultilabelClassification(labels=("x", "y")),
    "size": Regression(mean=(10.0,), std=(2.0,)),
}
TARGETS = {
    "kind": torch.tensor([0, 1, 2, 2, -100]),
    "flag": torch.tensor([0.0, 1, 1, NAN, 0]),
    "tags": torch.tensor([[0.0, 1], [1, NAN], [1, 1], [0, 0], [NAN, NAN]]),
    "size": torch.tensor([0.0, 1, NAN, -1, 2]),
}
OUTPUTS = {
    "kind": torch.tensor([[3.0, 0, 0], [3, 0, 0], [0, 0, 3], [0, 3, 0], [3, 0, 0]]),
    "flag": torch.tensor([[-1.0], [1], [-1], [1], [1]]),
    "tags": torch.tensor([[-1.0, 1], [1, 1], [-1, -1], [1, 1], [1, 1]]),
    "size": torch.tensor([[0.5], [1.5], [0], [-1.5], [2.5]]),
}


class Model(L.LightningModule):
    """Has what pictures are made of: tasks, and their metrics of a validation."""

    def __init__(self, tasks: dict[str, Task] = TASKS) -> None:
        super().__init__()
        self.tasks = self.chosen_tasks = tasks
        self.metrics = {name: task.build_metrics() for name, task in tasks.items()}

    def metrics_of(self, name: str) -> MetricCollection:
        return self.metrics[name]

    def figures(self) -> dict[str, Any]:
        return {}


class Drawn(Figures):
    """Keeps the counts, and draws nothing."""

    def _draw(self, *args: Any) -> None:
        pass


def small_trainer() -> L.Trainer:
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
    }
    return L.Trainer(max_epochs=1, accelerator="cpu", **quiet)


def collected(figures: Any, model: Model | None = None) -> Any:
    trainer, model = small_trainer(), model or Model()
    figures.on_validation_epoch_start(trainer, model)
    for rows in (slice(0, 2), slice(2, 5)):
        targets = {name: TARGETS[name][rows] for name in model.tasks}
        outputs = {name: OUTPUTS[name][rows] for name in model.tasks}
        for name, task in model.tasks.items():
            model.metrics_of(name).update(**task.measure(outputs[name], targets[name]))
        batch = Batch(torch.zeros(1), targets, torch.arange(5)[rows])
        figures.on_validation_batch_end(trainer, model, outputs, batch, 0)
    figures.on_validation_end(trainer, model)
    return figures


def test_counts_are_confusion_matrices() -> None:
    counts = collected(Drawn()).counts
    np.testing.assert_array_equal(counts["kind"][0], confusion_matrix([0, 1, 2, 2], [0, 0, 2, 1]))
    np.testing.assert_array_equal(counts["flag"][0], confusion_matrix([0, 1, 1, 0], [0, 1, 0, 1]))
    np.testing.assert_array_equal(counts["tags"][0], confusion_matrix([0, 1, 1, 0], [0, 1, 0, 1]))
    np.testing.assert_array_equal(counts["tags"][1], confusion_matrix([1, 1, 0], [1, 0, 1]))


def test_decisions_are_counted_at_the_thresholds_that_validation_chose() -> None:
    model = Model()
    model.chosen_tasks = {
        **TASKS,
        "flag": BinaryClassification(classes=("no", "yes"), threshold=0.9),
        "tags": MultilabelClassification(labels=("x", "y"), thresholds=(0.9, 0.1)),
    }
    counts = collected(Drawn(), model).counts
    np.testing.assert_array_equal(counts["flag"][0], confusion_matrix([0, 1, 1, 0], [0, 0, 0, 0]))
    np.testing.assert_array_equal(counts["tags"][0], [[2, 0], [2, 0]])
    np.testing.assert_array_equal(counts["tags"][1], [[0, 1], [0, 2]])


@dataclass(frozen=True, kw_only=True)
class Ordinal(Classification):
    """K - 1 outputs: whether the class is above each border; a prediction is decoded here alone."""

    @property
    def out_features(self) -> int:
        return len(self.classes) - 1

    def losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        above = targets[..., None] > torch.arange(self.out_features)
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            outputs, above.float(), reduction="none"
        )
        return losses.sum(-1) * (targets >= 0)

    def decode(self, outputs: torch.Tensor) -> dict[str, Any]:
        return {"": [self.classes[i] for i in (outputs > 0).sum(-1).tolist()]}


@dataclass(frozen=True, kw_only=True)
class Counted(Ordinal):
    """The same by the hook that metrics and pictures follow."""

    decode = Classification.decode

    def predict(self, outputs: torch.Tensor) -> torch.Tensor:
        return (outputs > 0).sum(-1)


@pytest.mark.parametrize("kind", [Ordinal, Counted])
def test_a_matrix_holds_what_the_task_itself_decodes(kind: type[Ordinal]) -> None:
    task = kind(classes=("low", "middle", "high"))
    outputs = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])
    counts = count_classes(task, outputs, torch.tensor([0, 1, 2, -100]))
    np.testing.assert_array_equal(counts[0], np.eye(3))
    several = count_classes(task, outputs.view(2, 2, 2), torch.tensor([[0, 1], [1, 2]]))
    np.testing.assert_array_equal(several[0], [[1, 0, 0], [0, 1, 1], [0, 1, 0]])


def test_metrics_of_an_ordinal_kind_follow_its_prediction() -> None:
    task = Counted(classes=("low", "middle", "high"))
    outputs = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])
    metrics = task.build_metrics()
    metrics.update(**task.measure(outputs, torch.tensor([0, 1, 2, 0])))
    assert task.compute(metrics)["accuracy"] == 0.75
    assert task.decode(outputs) == {"": ["low", "middle", "high", "middle"]}


class Broken(Classification):
    """Decodes to something that is no class."""

    def decode(self, outputs: torch.Tensor) -> dict[str, Any]:
        return {"": ["nobody"] * len(outputs)}


def test_a_picture_that_cannot_be_drawn_is_one_warning(capsys: pytest.CaptureFixture[str]) -> None:
    watched = Figures(every=1)
    model = Model({"kind": Broken(classes=("a", "b", "c"))})
    collected(WatcherGroup(watched), model)
    assert capsys.readouterr().err == (
        "warning: Figures failed and is left out for the rest of the run: KeyError: 'nobody'\n"
    )
    collected(WatcherGroup(watched), model)
    assert capsys.readouterr().err == ""


class Graded(Toy):
    """Three classes in order, by a kind of its own."""

    kind: type[Classification] = Counted

    @property
    def tasks(self) -> dict[str, Task]:
        return {
            "class": self.kind(classes=(0, 1, 2)),
            "binary": BinaryClassification(classes=("no", "yes")),
        }

    def split(self, name: Split) -> Rows:
        rows = super().split(name)
        return Rows(rows.inputs, {name: rows.targets[name] for name in self.tasks})


class Undrawable(Graded):
    """The same, and no picture can be drawn of it."""

    kind = Broken


@pytest.mark.parametrize("data", [Graded, Undrawable])
def test_a_kind_of_ones_own_in_a_run(tmp_path: Path, data: type[Graded]) -> None:
    words = (
        "--data",
        f"{__name__}.{data.__name__}",
        "--max_epochs",
        2,
        "--model.encoder.width",
        8,
        "--logs",
        tmp_path,
    )
    ended = call("train", *words, "--name", "x", "--watch.figures_every", 1)
    assert ended.code == 0
    events = EventAccumulator(str(only_run(tmp_path / "x")), size_guidance={"images": 0}).Reload()
    if data is Graded:
        assert "warning:" not in ended.err
        assert [image.step for image in events.Images("val/class")] == [14, 28]
    else:
        assert (
            ended.err.count(
                "warning: Figures failed and is left out for the rest of the run: "
                "KeyError: 'nobody'"
            )
            == 1
        )
        assert "val/binary" not in events.Tags()["images"]


def test_points_are_pairs_of_known_labels_up_to_a_limit() -> None:
    points = torch.cat(collected(Drawn()).points["size"], 1)[..., 0]
    assert points.tolist() == [[0, 1, -1, 2], [0.5, 1.5, -1.5, 2.5]]
    fewer = torch.cat(collected(Drawn(most_points=3)).points["size"], 1)[..., 0]
    assert fewer.tolist() == [[0, 1, -1], [0.5, 1.5, -1.5]]


def test_tasks_with_many_classes_get_no_matrix() -> None:
    assert set(collected(Drawn(most_classes=2)).counts) == {"flag", "tags"}


def test_a_matrix_names_its_classes_rows_true() -> None:
    axes = draw_confusion("kind", TASKS["kind"], collected(Drawn()).counts["kind"]).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    texts = {
        (round(text.get_position()[1]), round(text.get_position()[0])): text.get_text()
        for text in axes.texts
    }
    assert texts[1, 0] == "1"  # the b that was taken for an a
    assert texts[0, 1] == "0"
    titles = [
        axes.get_title()
        for axes in draw_confusion("tags", TASKS["tags"], collected(Drawn()).counts["tags"]).axes
    ]
    assert titles == ["tags: x", "tags: y"]


def test_a_scatter_plot_is_in_the_labels_own_unit():
    pairs = torch.cat(collected(Drawn()).points["size"], 1)
    offsets = draw_scatter("size", TASKS["size"], pairs).axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(offsets, [[10, 11], [12, 13], [8, 7], [14, 15]])


def test_a_vector_has_a_panel_per_output_and_a_kind_of_its_own_its_own_prediction():
    class Logarithm(Regression):
        def predict(self, outputs: torch.Tensor) -> torch.Tensor:
            return outputs.exp()

    task = Logarithm(names=("u", "v"), mean=(0.0, 100.0), std=(1.0, 10.0))
    figures, model, trainer = Figures(), Model({"two": task}), small_trainer()
    batch = Batch(
        torch.zeros(1), {"two": torch.tensor([[1.0, NAN], [NAN, 2.0], [NAN, NAN]])}, torch.arange(3)
    )
    figures.on_validation_batch_end(trainer, model, {"two": torch.zeros(3, 2)}, batch, 0)
    u, v = draw_scatter("two", task, torch.cat(figures.points["two"], 1)).axes
    assert (u.get_title(), v.get_title()) == ("two: u", "two: v")
    np.testing.assert_allclose(u.collections[0].get_offsets(), [[1, 1]])
    np.testing.assert_allclose(v.collections[0].get_offsets(), [[120, 110]])


def test_pictures_are_drawn_on_schedule_and_after_the_last_epoch(tmp_path: Path) -> None:
    words = (
        "--data",
        "tests.toy.Toy",
        "--max_epochs",
        5,
        "--model.encoder.width",
        8,
        "--logs",
        tmp_path,
        "--name",
        "x",
    )
    assert call("train", *words, "--watch.figures_every", 2).code == 0
    events = EventAccumulator(str(only_run(tmp_path / "x")), size_guidance={"images": 0}).Reload()
    for name in ("class", "labels", "number", "vector"):
        assert [image.step for image in events.Images(f"val/{name}")] == [28, 56, 70]
