"""One of several classes for each pixel."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection

from src.errors import UserError
from src.tasks.classification import Classification
from src.tasks.confusion import compute_accuracy, compute_dice, compute_iou, count_pairs
from src.tasks.label_count import LabelCount
from src.tasks.labels import MISSING, BadLabel, Label, is_labelled
from src.tasks.pixels import PixelLabels, describe_place, refuse_pooled


@dataclass(frozen=True, kw_only=True)
class Segmentation(PixelLabels, Classification):
    """Cross-entropy of each pixel over C classes: targets (B, H, W), outputs (B, H, W, C).

    A label image holds an id for each pixel. Classes that are whole numbers are these ids; classes
    that are names have the ids 0, 1, 2 ... in their order. Two classes do for a yes or no.

    IoU and Dice are computed for each class over all pixels of all images, and the metrics are
    their means over the classes that have a label or a prediction (so LibMTL's mIoU, wherever each
    class occurs). Means over images of the IoU of an image are other numbers.

    With ``dice_weight`` w the element loss of a pixel is -log p_y + w D, with D the soft Dice loss
    of its image, 1 - mean_c (2 sum p_c y_c + 1) / (sum p_c + sum y_c + 1), after Milletari et al.,
    "V-Net", 3DV 2016. It is a function of one image, so that it does not depend on which images
    share a batch.

    Metrics that ``metrics`` adds keep each pixel of an evaluation in memory.

    Attributes:
        ignore_index: The id of pixels without a label, such as 255 or -1; None if there is none.
        background: A class that mIoU and Dice leave out, as in medicine; None counts all.
        dice_weight: Weight of the soft Dice loss beside the cross-entropy.
        per_class: Whether the IoU of each class is logged, as iou/nucleus.
    """

    not_in_loss: ClassVar[tuple[str, ...]] = ("classes", "ignore_index", "background", "per_class")
    metric_names: ClassVar[tuple[str, ...]] = ("miou", "pixel_accuracy", "dice")

    ignore_index: int | None = None
    background: Label | None = None
    dice_weight: float = 0.0
    per_class: bool = False
    monitor: str = "miou"

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_pooled("Segmentation", self.pooled)
        if not 0 <= self.dice_weight < float("inf"):
            raise UserError(f"Segmentation: dice_weight {self.dice_weight} must be at least 0")
        if not self.classes:
            return
        if len(self.classes) < 2:
            raise UserError(
                f"Segmentation: the only class is {self.classes[0]}; name two, such as "
                "[background, nucleus]"
            )
        if self.background is not None and self.background not in self.classes:
            shown = ", ".join(map(str, self.classes))
            raise UserError(f"Segmentation: background {self.background} is none of {shown}")
        if self.ignore_index is not None and self.ignore_index in self.ids:
            raise UserError(
                f"Segmentation: ignore_index {self.ignore_index} is the id of a class, too"
            )

    # -- labels ------------------------------------------------------------------------------------
    @property
    def ids(self) -> tuple[int, ...]:
        """The id of each class in label images."""
        numbers = [label for label in self.classes if type(label) is int]
        if len(numbers) == len(self.classes):
            return tuple(numbers)
        return tuple(range(len(self.classes)))

    def learn(self, maps: Iterable[np.ndarray]) -> Self:
        if self.classes:
            return self
        found: set[int] = set()
        for values in maps:
            found.update(np.unique(self._to_ids(values[None])).tolist())
        found -= {MISSING}
        if len(found) < 2:
            only = f" but {min(found)}" if found else ""
            raise UserError(f"has no class{only} in the training split; there is nothing to learn")
        return replace(self, classes=tuple(sorted(found)))

    def fit(self, values: np.ndarray, names: Sequence[str]) -> Self:
        return self.learn([values])

    def encode(self, values: np.ndarray) -> Tensor:
        ids = self._to_ids(values)

        # a table from ids to positions; its two ends are of ids that are none of the classes
        low = min(*self.ids, MISSING) - 1
        table = np.full(max(self.ids) - low + 2, -1, dtype=np.int64)
        table[np.array(self.ids) - low] = np.arange(len(self.ids))
        table[MISSING - low] = MISSING
        positions = table.take(ids - low, mode="clip")

        unknown = positions == -1
        if unknown.any():
            index = np.argwhere(unknown)[0]
            shown = ", ".join(map(str, self.ids[:8])) + (", ..." if len(self.ids) > 8 else "")
            ignored = "" if self.ignore_index is None else f", and {self.ignore_index} for none"
            raise BadLabel(
                int(index[0]),
                f"holds the id {ids[tuple(index)]} {describe_place(index)}, where the classes have "
                f"{shown}{ignored}",
            )
        return torch.from_numpy(positions)

    def _to_ids(self, values: np.ndarray) -> np.ndarray:
        """Returns labels as read as integers, ``MISSING`` where there is none."""
        with np.errstate(invalid="ignore"):
            ids = values.astype(np.int64)
        if values.dtype.kind == "f" and not (ids == values).all():
            known = ~np.isnan(values)
            broken = np.argwhere(known & (ids != values))
            if len(broken):
                index = broken[0]
                raise BadLabel(
                    int(index[0]),
                    f"holds {values[tuple(index)]} {describe_place(index)}, where the id of a "
                    "class, a whole number, is expected",
                )
            ids[~known] = MISSING
        if self.ignore_index is not None:
            ids[ids == self.ignore_index] = MISSING
        return ids

    # -- the loss ----------------------------------------------------------------------------------
    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns unreduced losses, 0 where the label is missing.

        Args:
            outputs: (B, H, W, K, C), fp32.
            targets: (B, H, W, K).
        """
        losses = super().losses(outputs, targets)
        if not self.dice_weight:
            return losses
        known = is_labelled(targets)
        truth = F.one_hot(targets.where(known, 0), len(self.classes)) * known[..., None]
        shares = outputs.softmax(-1) * known[..., None]

        # sums over the pixels of each image
        pixels = tuple(range(1, targets.ndim - 1))
        both = (shares * truth).sum(pixels, keepdim=True)
        either = (shares + truth).sum(pixels, keepdim=True)
        dice = 1 - ((2 * both + 1) / (either + 1)).mean(-1)
        return losses + self.dice_weight * dice * known

    # -- metrics -----------------------------------------------------------------------------------
    def build_metrics(self) -> MetricCollection:
        size = len(self.classes)
        return MetricCollection({"count": LabelCount(size, size)}, compute_groups=False)

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        known = is_labelled(targets)
        predictions = self.predict(outputs)
        return {"counts": count_pairs(targets[known], predictions[known], len(self.classes))}

    def derive(self, computed: dict[str, Any]) -> dict[str, Any]:
        counts = computed["count"]
        return {
            "miou": self._leave_out_background(compute_iou(counts)),
            "pixel_accuracy": compute_accuracy(counts),
            "dice": self._leave_out_background(compute_dice(counts)),
        }

    def _leave_out_background(self, values: Tensor) -> Tensor:
        """Returns the values (C,) of the classes that a mean counts."""
        if self.background is None:
            return values
        kept = [label != self.background for label in self.classes]
        return values[torch.tensor(kept, device=values.device)]

    def compute_per_output(self, metrics: MetricCollection) -> dict[str, Tensor]:
        if not self.per_class:
            return {}
        iou = compute_iou(metrics["count"].compute())
        return {f"iou/{label}": iou[k] for k, label in enumerate(self.classes)}

    def collect_rows(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns predictions (N,), since probabilities of all pixels would be too many."""
        return self.predict(outputs).flatten(), targets.flatten()

    def example_rows(self) -> tuple[Tensor, Tensor] | None:
        labels = torch.arange(8 * len(self.classes)) % len(self.classes)
        return labels.flip(0), labels

    # -- people ------------------------------------------------------------------------------------
    def measure_spread(self, outputs_M: Tensor, mixed: Tensor) -> dict[str, Any]:
        """Returns that of the probability of the class that is predicted, mean over pixels."""
        classes = self.predict(mixed)[..., None].expand(*outputs_M.shape[:-1], 1)
        chosen = outputs_M.double().softmax(-1).gather(-1, classes)
        return {"spread": chosen.std(0, correction=0).flatten(1).mean(1).tolist()}

    def decode_map(self, outputs: Tensor) -> np.ndarray:
        """Returns the id of each pixel's class: (B, H, W) in the smallest type that holds all."""
        ids = np.array(self.ids)
        small = np.uint8 if ids.min() >= 0 and ids.max() < 256 else np.int32
        return ids.astype(small)[self.predict(outputs).numpy()]

    def decode(self, outputs: Tensor) -> dict[str, Any]:
        """Returns the share of the pixels that each class has in an image, share_<class>."""
        return self.decode_targets(self.predict(outputs))

    def decode_targets(self, targets: Tensor) -> dict[str, Any]:
        known = is_labelled(targets).flatten(1)
        counts = known.sum(1)
        columns = {}
        for k, label in enumerate(self.classes):
            shares = (targets == k).flatten(1).sum(1) / counts
            pairs = zip(shares.tolist(), counts.tolist(), strict=True)
            columns[f"share_{label}"] = [share if count else None for share, count in pairs]
        return columns
