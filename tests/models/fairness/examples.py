"""A few outputs, labels and groups of every comparable kind of task, in float64."""

from collections.abc import Mapping

import torch
from torch import Tensor

from src.batch import SENSITIVE, Batch
from src.models.heads import Heads
from src.tasks import (
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Ordinal,
    Regression,
    Task,
)

GROUPS = ("a", "b", "c")
TASKS: dict[str, Task] = {
    "binary": BinaryClassification(classes=("no", "yes")),
    "class": Classification(classes=(0, 1, 2)),
    "labels": MultilabelClassification(labels=("x", "y")),
    "rank": Ordinal(classes=("low", "middle", "high")),
    "number": Regression(mean=(0.0,), std=(1.0,)),
    "vector": Regression(mean=(0.0, 0.0), std=(1.0, 1.0), names=("u", "v")),
}


def make_heads(tasks: Mapping[str, Task] = TASKS) -> Heads:
    """Heads on four features."""
    return Heads(tasks, dict.fromkeys(tasks, 4))


def make_batch(rows: int = 40, seed: int = 0, weighted: bool = True) -> Batch:
    """Rows of three groups with labels of all tasks, a fifth of which are missing."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(rows, *shape, generator=generator, dtype=torch.float64)

    targets = {
        "binary": (draw() > 0.5).double(),
        "class": (draw() * 3).long(),
        "labels": (draw(2) > 0.4).double(),
        "rank": (draw() * 3).long(),
        "number": draw(),
        "vector": draw(2),
    }
    for name, target in targets.items():
        gone = draw(*target.shape[1:]) < 0.2
        missing = float("nan") if target.is_floating_point() else -100
        targets[name] = target.masked_fill(gone, missing)
    weights = {"binary": draw() * 2, "vector": draw()} if weighted else {}
    codes = (draw() * 3).long()
    return Batch(draw(4), targets, torch.arange(rows), {SENSITIVE: codes}, weights)


def make_outputs(heads: Heads, seed: int = 1, rows: int = 40) -> list[Tensor]:
    """Outputs of the heads' groups, leaves in float64."""
    generator = torch.Generator().manual_seed(seed)
    outputs = []
    for group in heads.groups:
        shape = rows, len(group.names), group.task.out_features
        found = torch.randn(shape, generator=generator, dtype=torch.float64)
        outputs.append(found.requires_grad_())
    return outputs
