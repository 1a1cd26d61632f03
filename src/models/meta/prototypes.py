"""Prototypical networks."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from src.errors import UserError
from src.models.meta.anil import encode_episodes
from src.models.meta.base import Meta
from src.models.meta.episodes import Episode
from src.tasks import BinaryClassification, Classification, Task
from src.tasks.labels import MISSING

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel
    from src.models.network import MultiTaskNetwork


class Prototypes(Meta):
    """The class whose mean support feature is nearest: nothing is learnt within an episode.

    With features z = f(x), the prototype of class c is c_c = mean of z over its support rows, and

    p(c | x) = softmax_c(-|z - c_c|^2).

    (Snell, Swersky and Zemel, "Prototypical networks for few-shot learning", NeurIPS 2017, with
    squared Euclidean distances.) A binary task has the logit |z - c_0|^2 - |z - c_1|^2. The head is
    not used, and does not train. On an encoder that was trained in another way, this is the
    classifier of the nearest centroid.

    Args:
        tasks: {name: task}; classes only.
        scale: Factor on the distances.
    """

    def __init__(self, tasks: Mapping[str, Task], scale: float = 1.0) -> None:
        super().__init__(tasks)
        if type(self.kind) not in (Classification, BinaryClassification):
            raise UserError(
                f"model.meta Prototypes has a mean of each class, but task '{self.task}' is a "
                f"{type(self.kind).__name__}: use MAML, ANIL or Reptile"
            )
        if not 0 < scale < float("inf"):
            raise UserError(f"model.meta.scale is {scale}; it must be a number above 0")
        self.scale = scale

    def prepare(self, network: "MultiTaskNetwork") -> None:
        """Freezes the head, which is not used."""
        network.heads.requires_grad_(False)

    def learn(self, network: "MultiTaskModel", episodes: Episode) -> dict[int, Tensor]:
        support, query = encode_episodes(network, episodes, self.task)
        if support.ndim > 3:
            raise UserError(
                "model.meta Prototypes compares one feature of each row, but the encoder has "
                f"features of shape {tuple(support.shape[2:])}: use ANIL with a pooled task"
            )
        binary = isinstance(self.kind, BinaryClassification)
        classes = 2 if binary else self.kind.out_features
        distances = measure_distances(support, episodes.labels, query, classes) * self.scale
        outputs = -distances
        if binary:
            # the logit of the second class
            outputs = outputs[..., 1:] - outputs[..., :1]
        return {0: outputs.unsqueeze(2)}


def measure_distances(support: Tensor, labels: Tensor, query: Tensor, classes: int) -> Tensor:
    """Returns the squared distances (E, Q, C) of query features from the prototypes.

    Args:
        support: (E, S, D) features.
        labels: (E, S) classes; a row whose label is missing counts in no prototype, and a class
            without a row has its prototype at 0.
        query: (E, Q, D) features.
        classes: C.
    """
    if labels.is_floating_point():
        labels = labels.nan_to_num(MISSING).long()
    # a missing label has a column of its own, which is cut off
    places = labels.where(labels >= 0, torch.full_like(labels, classes))
    members = F.one_hot(places, classes + 1)[..., :classes].to(support.dtype)
    sums = torch.einsum("esc,esd->ecd", members, support)
    prototypes = sums / members.sum(1).clamp(min=1)[..., None]
    return (query[:, :, None] - prototypes[:, None]).square().sum(-1)
