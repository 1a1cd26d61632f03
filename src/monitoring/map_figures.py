"""Pictures of a few images, their labels per pixel, and what a task predicts, side by side."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from src.tasks import DenseRegression, Segmentation, SurfaceNormals, Task, is_labelled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Maps(NamedTuple):
    """A few images with the maps of a task.

    Attributes:
        images: (B, channels, H, W).
        truth: (B, H, W) or, as colours, (B, H, W, 3); masked where a label is missing.
        predicted: Of that shape.
        largest: The largest value of the scale of colours; the smallest is ``least``.
        least: The smallest one.
    """

    images: np.ndarray
    truth: np.ma.MaskedArray
    predicted: np.ndarray
    largest: float
    least: float


def collect_maps(task: Task, images: Tensor, outputs: Tensor, targets: Tensor) -> Maps | None:
    """Returns maps to draw; None for a task that has none.

    Args:
        task: The task.
        images: (B, channels, H, W).
        outputs: (B, H, W, O).
        targets: (B, H, W), or (B, H, W, L).
    """
    truth, predicted = targets.cpu(), outputs.cpu().float()
    known = is_labelled(truth)
    if isinstance(task, Segmentation):
        predicted = task.predict(predicted)
        least, largest = 0.0, float(len(task.classes) - 1)
    elif isinstance(task, DenseRegression):
        # of several numbers a pixel the first is shown
        predicted = task.in_units(task.predict(predicted).double())[..., 0]
        truth = task.in_units(truth.double() if task.names else truth.double()[..., None])[..., 0]
        known = ~truth.isnan()
        shown = truth[known] if known.any() else predicted
        least, largest = float(shown.min()), float(shown.max())
    elif isinstance(task, SurfaceNormals):
        # directions as colours: x is red, y green, z blue
        predicted = (F.normalize(predicted, dim=-1) + 1) / 2
        truth = (truth + 1) / 2
        least, largest = 0.0, 1.0
    else:
        return None
    masked = np.ma.MaskedArray(truth.numpy(), mask=~known.numpy())
    return Maps(images.cpu().float().numpy(), masked, predicted.numpy(), largest, least)


def draw_maps(name: str, maps: Maps) -> "Figure":
    """Draws a row for each image: the image, the label in white where it is missing, the output."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = len(maps.images)
    height, width = maps.images.shape[2:]
    figure = Figure(figsize=(7.5, 0.4 + rows * 2.5 * min(height / width, 2)))
    FigureCanvasAgg(figure)
    boxes = figure.subplots(rows, 3, squeeze=False)
    figure.subplots_adjust(0.01, 0.01, 0.99, 1 - 0.3 / figure.get_figheight(), 0.03, 0.03)
    scale: dict[str, Any] = {"vmin": maps.least, "vmax": maps.largest, "interpolation": "nearest"}
    scale["cmap"] = "viridis"
    for row in range(rows):
        image = maps.images[row]
        span = max(float(np.ptp(image)), 1e-12)
        shown = np.moveaxis((image - image.min()) / span, 0, -1)
        # colours, or the first channel in grey
        shown = shown if shown.shape[-1] == 3 else shown[..., 0]
        boxes[row][0].imshow(shown, cmap="gray", interpolation="nearest")
        truth = maps.truth[row]
        boxes[row][1].imshow(truth.filled(1.0) if truth.ndim == 3 else truth, **scale)
        boxes[row][2].imshow(maps.predicted[row], **scale)
        for box in boxes[row]:
            box.set_axis_off()
    for box, title in zip(boxes[0], ("image", f"{name}: true", "predicted"), strict=True):
        box.set_title(title, fontsize=9)
    return figure
