"""Pictures hold the right counts and points."""

from pathlib import Path

import lightning as L
import numpy as np
import torch
from sklearn.metrics import confusion_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.batch import Batch
from src.monitoring import Figures
from src.monitoring.figures import confusion_figure, scatter_figure
from src.tasks import BinaryClassification, Classification, MultilabelClassification, Regression
from tests.cli.calling import call
from tests.launch import only_run

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
    tasks = TASKS


def collected(figures: Figures) -> Figures:
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    figures.on_validation_epoch_start(trainer, Model())
    for rows in (slice(0, 2), slice(2, 5)):
        batch = Batch(torch.zeros(1), {name: target[rows] for name, target in TARGETS.items()}, torch.arange(5)[rows])
        figures.on_validation_batch_end(trainer, Model(), {name: out[rows] for name, out in OUTPUTS.items()}, batch, 0)
    return figures


def test_counts_are_confusion_matrices() -> None:
    counts = collected(Figures()).counts
    np.testing.assert_array_equal(counts["kind"][0], confusion_matrix([0, 1, 2, 2], [0, 0, 2, 1]))
    np.testing.assert_array_equal(counts["flag"][0], confusion_matrix([0, 1, 1, 0], [0, 1, 0, 1]))
    np.testing.assert_array_equal(counts["tags"][0], confusion_matrix([0, 1, 1, 0], [0, 1, 0, 1]))
    np.testing.assert_array_equal(counts["tags"][1], confusion_matrix([1, 1, 0], [1, 0, 1]))


def test_points_are_pairs_of_known_labels_up_to_a_limit() -> None:
    points = torch.cat(collected(Figures()).points["size"], 1)[..., 0]
    assert points.tolist() == [[0, 1, -1, 2], [0.5, 1.5, -1.5, 2.5]]
    fewer = torch.cat(collected(Figures(most_points=3)).points["size"], 1)[..., 0]
    assert fewer.tolist() == [[0, 1, -1], [0.5, 1.5, -1.5]]


def test_tasks_with_many_classes_get_no_matrix() -> None:
    assert set(collected(Figures(most_classes=2)).counts) == {"flag", "tags"}


def test_a_matrix_names_its_classes_rows_true() -> None:
    axes = confusion_figure("kind", TASKS["kind"], collected(Figures()).counts["kind"]).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    texts = {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in axes.texts}
    assert texts[1, 0] == "1"  # the b that was taken for an a
    assert texts[0, 1] == "0"
    titles = [axes.get_title() for axes in confusion_figure("tags", TASKS["tags"], collected(Figures()).counts["tags"]).axes]
    assert titles == ["tags: x", "tags: y"]


def test_a_scatter_plot_is_in_the_labels_own_unit():
    pairs = torch.cat(collected(Figures()).points["size"], 1)
    offsets = scatter_figure("size", TASKS["size"], pairs).axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(offsets, [[10, 11], [12, 13], [8, 7], [14, 15]])


def test_a_vector_has_a_panel_per_output_and_a_kind_of_its_own_its_own_prediction():
    class Logarithm(Regression):
        def predicted(self, outputs: torch.Tensor) -> torch.Tensor:
            return outputs.exp()

    task = Logarithm(names=("u", "v"), mean=(0.0, 100.0), std=(1.0, 10.0))
    figures, model = Figures(), Model()
    model.tasks = {"two": task}
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    batch = Batch(torch.zeros(1), {"two": torch.tensor([[1.0, NAN], [NAN, 2.0], [NAN, NAN]])}, torch.arange(3))
    figures.on_validation_batch_end(trainer, model, {"two": torch.zeros(3, 2)}, batch, 0)
    u, v = scatter_figure("two", task, torch.cat(figures.points["two"], 1)).axes
    assert (u.get_title(), v.get_title()) == ("two: u", "two: v")
    np.testing.assert_allclose(u.collections[0].get_offsets(), [[1, 1]])
    np.testing.assert_allclose(v.collections[0].get_offsets(), [[120, 110]])


def test_pictures_are_drawn_on_schedule_and_after_the_last_epoch(tmp_path: Path) -> None:
    words = ("--data", "tests.toy.Toy", "--max_epochs", 5, "--model.encoder.width", 8, "--logs", tmp_path, "--name", "x")
    assert call("train", *words, "--watch.figures_every", 2).code == 0
    events = EventAccumulator(str(only_run(tmp_path / "x")), size_guidance={"images": 0}).Reload()
    for name in ("class", "labels", "number", "vector"):
        assert [image.step for image in events.Images(f"val/{name}")] == [28, 56, 70]
