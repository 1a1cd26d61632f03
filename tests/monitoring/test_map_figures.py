import numpy as np
import pytest
import torch

from src.monitoring.map_figures import collect_maps, draw_maps
from src.tasks import DenseRegression, Regression, Segmentation, SurfaceNormals
from tests.cli.calling import call
from tests.data.pixels.dense_files import write_folder
from tests.launching import only_run

IMAGES = torch.rand(2, 3, 4, 5)


def test_classes():
    outputs = torch.eye(3)[torch.arange(40).view(2, 4, 5) % 3]
    targets = torch.arange(40).view(2, 4, 5) % 3
    targets[0, 0, 0] = -100
    maps = collect_maps(Segmentation(classes=("a", "b", "c")), IMAGES, outputs, targets)
    assert (maps.least, maps.largest) == (0, 2)
    assert maps.truth.mask.sum() == 1
    assert (maps.predicted == maps.truth).all()


def test_numbers_are_in_their_own_unit():
    task = DenseRegression(mean=(3.0,), std=(2.0,))
    targets = torch.zeros(2, 4, 5)
    targets[0, 0, :2] = torch.tensor([1.0, float("nan")])
    maps = collect_maps(task, IMAGES, torch.full((2, 4, 5, 1), -1.0), targets)
    assert (maps.least, maps.largest) == (3, 5)
    assert (maps.predicted == 1).all()
    assert maps.truth.mask.sum() == 1


def test_directions_are_colours():
    targets = torch.tensor([0.0, 0, 1]).expand(2, 4, 5, 3).clone()
    targets[1, 0, 0] = float("nan")
    maps = collect_maps(SurfaceNormals(), IMAGES, torch.full((2, 4, 5, 3), 2.0), targets)
    assert maps.truth[0, 0, 0].tolist() == [0.5, 0.5, 1.0]
    assert maps.predicted[0, 0, 0] == pytest.approx(0.5 + 0.5 / 3**0.5)
    figure = draw_maps("normal", maps)
    panels = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert len(panels) == 6
    assert panels[4][0, 0].tolist() == [1, 1, 1]  # missing
    np.testing.assert_allclose(panels[0].min(), 0, atol=1e-6)


def test_other_tasks_have_no_maps():
    assert collect_maps(Regression(), IMAGES, torch.zeros(2, 1), torch.zeros(2)) is None


def test_a_run_draws_them(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    root = write_folder(tmp_path / "scenes", 10)
    words = ("--data", "Dense", "--data.root", root, "--data.tasks.mask.ignore_index", 255)
    small = ("--model.encoder", "UNet", "--model.encoder.width", 4, "--model.encoder.depth", 1)
    where = ("--logs", tmp_path / "logs", "--name", "x", "--max_epochs", 1)
    assert call("train", *words, *small, *where).code == 0
    events = EventAccumulator(str(only_run(tmp_path / "logs" / "x")), {"images": 0})
    events.Reload()
    drawn = {f"val/{name}/maps" for name in ("mask", "depth", "normal")}
    drawn |= {"val/mask", "val/depth", "val/share"}
    assert drawn <= {*events.Tags()["images"]}
