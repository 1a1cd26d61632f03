"""A direction for each pixel: the normal of the surface that it shows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection

from src.errors import UserError
from src.tasks.angle_errors import AngleErrors, measure_angles
from src.tasks.label_count import LabelCount
from src.tasks.labels import BadLabel, is_labelled
from src.tasks.pixels import PixelLabels, describe_place, refuse_pooled
from src.tasks.task import Task

AXES = ("x", "y", "z")


@dataclass(frozen=True, kw_only=True)
class SurfaceNormals(PixelLabels, Task):
    """1 - cosine of the angle to the true normal: targets (B, H, W, 3), outputs (B, H, W, 3).

    Outputs of any length count by their direction. Labels are brought to length 1; a zero vector is
    a missing one, as in NYUv2. Each of the three elements of a target carries the loss of its
    pixel, so that their mean is the mean over pixels.

    Metrics are of the angle between both, in degrees, over all pixels of all images (Fouhey et al.,
    "Data-driven 3D primitives for single image understanding", ICCV 2013): mean; median, to 0.005
    degrees; and the shares below 11.25, 22.5 and 30 degrees. The value that counts for model
    selection is a share, or 1 - angle / 90, which is 0 for a direction at random.
    """

    event_dims: ClassVar[int] = 1
    likelihood: ClassVar[str] = "gaussian"
    metric_names: ClassVar[tuple[str, ...]] = (
        *("mean", "median"),
        *("within_11.25", "within_22.5", "within_30"),
    )
    minimised: ClassVar[tuple[str, ...]] = ("mean", "median")

    monitor: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_pooled("SurfaceNormals", self.pooled)

    # -- labels ------------------------------------------------------------------------------------
    def learn(self, maps: Iterable[np.ndarray]) -> Self:
        return self

    def fit(self, values: np.ndarray, names: Sequence[str]) -> Self:
        return self

    def encode(self, values: np.ndarray) -> Tensor:
        if values.shape[-1] != 3:
            raise UserError(f"has {values.shape[-1]} numbers for each pixel, where a normal has 3")
        vectors = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        # a product with ones is a sum, and several times as fast
        length = (vectors.square() @ torch.ones(3, 1)).sqrt()
        if length.isinf().any():
            index = np.argwhere(np.isinf(values))[0]
            raise BadLabel(
                int(index[0]),
                f"holds {values[tuple(index)]} {describe_place(index)}; targets must be finite",
            )
        # 0 / 0 is NaN, which marks a missing label; one NaN makes all three of them NaN
        return vectors / length

    def mirror(self, targets: Tensor) -> Tensor:
        """Returns targets (H, W, 3) of a mirrored image, where x changes its sign."""
        return targets.flip(1) * targets.new_tensor([-1.0, 1.0, 1.0])

    # -- the loss ----------------------------------------------------------------------------------
    @property
    def out_features(self) -> int:
        return 3

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        mask = is_labelled(targets)
        cosine = (F.normalize(outputs, dim=-1) * targets.where(mask, 0)).sum(-1, keepdim=True)
        return (1 - cosine) * mask

    # -- metrics -----------------------------------------------------------------------------------
    def build_metrics(self) -> MetricCollection:
        return MetricCollection(
            {"angles": AngleErrors(), "count": LabelCount()}, compute_groups=False
        )

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        known = is_labelled(targets).all(-1)
        return {
            "angles": measure_angles(outputs[known], targets[known]),
            "counts": known.sum(),
        }

    def find_undefined(self, counts: Tensor) -> set[str]:
        return set() if counts else set(self.metric_names)

    def derive(self, computed: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(self.metric_names, computed["angles"], strict=True))

    def collect_rows(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns unit vectors (N, 3), each axis an output of its own."""
        return F.normalize(outputs, dim=-1).flatten(0, -2), targets.flatten(0, -2)

    def example_rows(self) -> tuple[Tensor, Tensor] | None:
        rows = torch.randn(2, 32, 3, generator=torch.Generator().manual_seed(0))
        rows = F.normalize(rows, dim=-1)
        return rows[0], rows[1]

    # -- model selection ---------------------------------------------------------------------------
    def score(self, values: Mapping[str, Tensor | float]) -> float:
        """Returns a share, or 1 - angle / 90."""
        if self.monitor in ("mean", "median"):
            return 1 - float(values[self.monitor]) / 90
        return super().score(values)

    def describe_score(self) -> str:
        if self.monitor in ("mean", "median"):
            return f"1 - {self.monitor} angle / 90"
        return super().describe_score()

    # -- people ------------------------------------------------------------------------------------
    def mix(self, outputs_M: Tensor) -> Tensor:
        """Returns the mean of the unit vectors, whatever the length of each output."""
        return F.normalize(outputs_M, dim=-1).mean(0)

    def measure_spread(self, outputs_M: Tensor, mixed: Tensor) -> dict[str, Any]:
        """Returns the root mean squared angle to the mixed direction in degrees, over pixels."""
        angles_M = measure_angles(outputs_M, mixed.expand_as(outputs_M))
        return {"spread": angles_M.square().mean(0).sqrt().flatten(1).mean(1).tolist()}

    def decode_map(self, outputs: Tensor) -> np.ndarray:
        """Returns unit vectors (B, H, W, 3), float32."""
        return F.normalize(outputs.float(), dim=-1).numpy()

    def decode(self, outputs: Tensor) -> dict[str, Any]:
        """Returns the mean of the unit vectors of an image, by axis: mean_x, mean_y, mean_z."""
        return self.decode_targets(F.normalize(outputs, dim=-1))

    def decode_targets(self, targets: Tensor) -> dict[str, Any]:
        columns = {}
        for axis, values in zip(AXES, targets.double().flatten(1, -2).unbind(-1), strict=True):
            means = values.nanmean(1).tolist()
            columns[f"mean_{axis}"] = [None if np.isnan(mean) else mean for mean in means]
        return columns
