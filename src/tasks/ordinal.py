"""One of several classes that have an order, such as grades."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection

from src.errors import UserError
from src.tasks.classification import Classification
from src.tasks.ensembling import mix_log_probabilities, name_spread
from src.tasks.increments import invert_softplus
from src.tasks.label_count import LabelCount
from src.tasks.labels import Label, find_classes, is_labelled
from src.tasks.metric_classes import TaskMetric
from src.tasks.sums import spread_weights
from src.tasks.task import make_constant


@dataclass(frozen=True, kw_only=True)
class Ordinal(Classification):
    """Classes in an order: targets (...) of positions, outputs (..., C - 1).

    Both methods model the probabilities p_c of the C classes, and the loss is -log p_y, the
    negative log likelihood of the label y.

    - ``corn``: output o_k is the logit of P(y > k | y >= k), so that p_c is the product of
      sigmoid(o_k) over k < c, times 1 - sigmoid(o_c) (Shi, Cao and Raschka, "Deep neural networks
      for rank-consistent ordinal regression based on conditional probabilities", 2021). The paper
      divides the sum of the binary losses by their number; here it is divided by the number of
      labels, as any likelihood.
    - ``cumulative``: P(y > k) = sigmoid(a_k) with a_0 = o_0 and a_k = a_(k-1) - softplus(o_k), so
      that the thresholds are in order whatever the outputs are (cumulative logits; McCullagh,
      "Regression models for ordinal data", JRSS B 1980). The distances of the thresholds are
      outputs, too: odds need not be proportional.

    The prediction is the median: the number of k with P(y > k) > 1/2. Metrics: ``mae``, the mean
    distance in ranks; ``quadratic_kappa``, 1 - sum(w O) / sum(w E) with w = (i - j)^2, the
    confusion matrix O and its expectation E of independent margins; ``accuracy``.

    Attributes:
        classes: The classes from the lowest to the highest; numbers need none, and are ordered by
            size.
        method: corn or cumulative.
        class_weights: A factor on the loss of each class, or none.
    """

    not_in_loss: ClassVar[tuple[str, ...]] = ("classes",)
    metric_names: ClassVar[tuple[str, ...]] = ("mae", "quadratic_kappa", "accuracy")
    minimised: ClassVar[tuple[str, ...]] = ("mae",)

    method: Literal["corn", "cumulative"] = "corn"
    monitor: str = "quadratic_kappa"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in ("corn", "cumulative"):
            raise UserError(f"Ordinal: method '{self.method}' is none of corn, cumulative")
        if self.label_smoothing:
            raise UserError(
                "Ordinal: label_smoothing would spread a label over distant classes; leave it out"
            )
        if len(self.classes) == 1 or len(set(self.classes)) < len(self.classes):
            raise UserError(
                f"Ordinal: classes are {', '.join(map(str, self.classes))}, where at least two "
                "different ones are expected, the lowest first"
            )

    # -- labels ------------------------------------------------------------------------------------
    def fit(self, values: np.ndarray, names: Sequence[str]) -> Self:
        if values.ndim > 1:
            raise UserError(f"has {values.shape[1]} columns, where an Ordinal has one")
        return self if self.classes else replace(self, classes=find_order(find_classes(values)))

    # -- the loss ----------------------------------------------------------------------------------
    @property
    def out_features(self) -> int:
        return len(self.classes) - 1

    @property
    def output_names(self) -> tuple[Hashable, ...]:
        return tuple(f"{self.method} above {label}" for label in self.classes[:-1])

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        mask = is_labelled(targets)
        known = targets.where(mask, 0)
        logs = self.log_probabilities(outputs)
        losses = -logs.gather(-1, known.unsqueeze(-1)).squeeze(-1)
        if self.class_weights:
            weights = make_constant(self.class_weights, (outputs.device, outputs.dtype))
            losses = losses * weights[known]
        return losses * mask

    def log_probabilities(self, outputs: Tensor) -> Tensor:
        """Returns the logarithms of the classes' probabilities (..., C)."""
        none = torch.zeros_like(outputs[..., :1])
        if self.method == "corn":
            reached = torch.cat([none, F.logsigmoid(outputs).cumsum(-1)], -1)
            stays = torch.cat([F.logsigmoid(-outputs), none], -1)
            return reached + stays
        # p_c = sigmoid(a_(c-1)) sigmoid(-a_c) sigmoid(o_c), a product that loses no digits
        logits = self._cumulative_logits(outputs)
        above = torch.cat([none, F.logsigmoid(logits)], -1)
        below = torch.cat([F.logsigmoid(-logits), none], -1)
        between = torch.cat([none, F.logsigmoid(outputs[..., 1:]), none], -1)
        return above + below + between

    def _cumulative_logits(self, outputs: Tensor) -> Tensor:
        """Returns the logits of P(y > k), which decrease: (..., C - 1)."""
        gaps = F.softplus(outputs[..., 1:]).cumsum(-1)
        first = outputs[..., :1]
        return torch.cat([first, first - gaps], -1)

    def to_outputs(self, log_probabilities: Tensor) -> Tensor:
        """Returns the outputs (..., C - 1) that give these log probabilities (..., C), fp64."""
        logs = log_probabilities.double()
        # log P(y > k) and log P(y <= k)
        above = logs.flip(-1).logcumsumexp(-1).flip(-1)[..., 1:]
        if self.method == "corn":
            return above - logs[..., :-1]
        logits = above - logs.logcumsumexp(-1)[..., :-1]
        gaps = invert_softplus(-logits.diff(dim=-1))
        return torch.cat([logits[..., :1], gaps], -1)

    # -- metrics -----------------------------------------------------------------------------------
    def build_metrics(self) -> MetricCollection:
        classes = len(self.classes)
        return MetricCollection(
            {"confusion": RankConfusion(classes), "count": LabelCount(classes)},
            compute_groups=False,
        )

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        # defined here, since measure_weights is
        return super().measure(outputs, targets)

    def measure_weights(self, targets: Tensor, weights: Tensor) -> dict[str, Tensor]:
        return {"row_weights": spread_weights(weights, targets)}

    def derive(self, computed: dict[str, Any]) -> dict[str, Any]:
        if "confusion" not in computed:
            return computed
        return compute_rank_metrics(computed["confusion"]) | computed

    # -- people ------------------------------------------------------------------------------------
    def predict(self, outputs: Tensor) -> Tensor:
        """Turns outputs (..., C - 1) into positions in ``classes`` (...), the medians."""
        if self.method == "corn":
            # P(y > k) > 1/2 for k = 0, 1, ... as long as it holds: it decreases
            logs = F.logsigmoid(outputs.double()).cumsum(-1)
            return (logs > -np.log(2)).sum(-1)
        return (self._cumulative_logits(outputs) > 0).sum(-1)

    def mix(self, outputs_M: Tensor) -> Tensor:
        return self.to_outputs(mix_log_probabilities(self.log_probabilities(outputs_M)))

    def measure_spread(self, outputs_M: Tensor, mixed: Tensor) -> dict[str, Any]:
        """Returns that of the probability of the class that is predicted."""
        classes = self.predict(mixed)[..., None].expand(*outputs_M.shape[:-1], 1)
        probabilities = self.log_probabilities(outputs_M.double()).exp()
        return name_spread(probabilities.gather(-1, classes), ())

    def decode(self, outputs: Tensor) -> dict[str, Any]:
        decoded: dict[str, Any] = {"": [self.classes[i] for i in self.predict(outputs).tolist()]}
        probabilities = self.log_probabilities(outputs).exp()
        for i, name in enumerate(self.classes):
            decoded[f"p_{name}"] = probabilities[..., i].tolist()
        return decoded


class RankConfusion(TaskMetric):
    """Counts pairs of a label and a prediction, each with the weight of its row.

    Args:
        classes: Number C of classes.
    """

    pairs: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        state = torch.zeros(classes, classes, dtype=torch.float64)
        self.add_state("pairs", state, dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, row_weights: Tensor | None = None) -> None:
        """Adds positions of classes (N,); missing labels do not count."""
        known = is_labelled(target)
        cells = target[known] * len(self.pairs) + preds[known]
        weights = torch.ones_like(cells) if row_weights is None else row_weights[known]
        self.pairs.view(-1).index_add_(0, cells, weights.double())

    def compute(self) -> Tensor:
        """Returns the sums of weights over all batches and ranks: (C, C), rows the labels."""
        return self.pairs


def compute_rank_metrics(pairs: Tensor) -> dict[str, Tensor]:
    """Computes the metrics of a confusion matrix (C, C) of ranks, rows the labels.

    The kappa is NaN where labels and predictions are all of one class.
    """
    total = pairs.sum()
    ranks = torch.arange(len(pairs), device=pairs.device, dtype=pairs.dtype)
    distances = (ranks[:, None] - ranks).abs()
    expected = pairs.sum(1, keepdim=True) * pairs.sum(0, keepdim=True) / total
    return {
        "mae": (distances * pairs).sum() / total,
        "quadratic_kappa": 1 - (distances**2 * pairs).sum() / (distances**2 * expected).sum(),
        "accuracy": pairs.diagonal().sum() / total,
    }


def find_order(classes: tuple[Label, ...]) -> tuple[Label, ...]:
    """Returns classes by size.

    Raises:
        UserError: They are words, whose alphabet is no order, or there is a single one.
    """
    if len(classes) < 2:
        raise UserError("has a single value in the training split; there is nothing to learn")
    try:
        return tuple(sorted(classes, key=lambda label: float(str(label).replace(",", "."))))
    except ValueError:
        words = ", ".join(map(str, classes[:5])) + (", ..." if len(classes) > 5 else "")
        raise UserError(
            f"has words for classes ({words}), and the alphabet does not know their order: list "
            "them from the lowest to the highest in the setting classes of this Ordinal"
        ) from None
