"""Features of a frozen encoder, computed once and then read in place of inputs."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from src.batch import Batch
from src.models.few_shot.examples import Examples
from src.runner import Inputs, Runner, ShardableModel

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel

MOST_NUMBERS = 2**28  # of features that are kept, 1 GiB; beyond it they are computed each time


class FeatureRunner(Runner):
    """Takes the inputs of a batch for the features that every head reads."""

    def features(self, model: ShardableModel, inputs: Inputs) -> Mapping[str, Tensor]:
        """Returns {task: the inputs}."""
        assert isinstance(inputs, Tensor)
        return dict.fromkeys(model.names, inputs)


@torch.no_grad()
def read_features(model: "MultiTaskModel", task: str, batch: Batch) -> Examples:
    """Returns the rows of a batch as the head of a task sees them.

    Args:
        model: The network, in evaluation mode.
        task: The task.
        batch: The rows, on the network's device.
    """
    features = model.runner.features(model, batch.inputs)[task]
    return Examples(features.float(), batch.targets[task], batch.weights.get(task))


class FrozenRows:
    """Batches of rows behind a frozen encoder, computed at the first pass over them.

    Args:
        model: The network, in evaluation mode.
        task: The task whose features are read.
        batches: The batches, the same in each pass.
    """

    def __init__(self, model: "MultiTaskModel", task: str, batches: Iterable[Batch]) -> None:
        self.model = model
        self.task = task
        self.batches = batches
        self.kept: list[Examples] | None = None

    def __iter__(self) -> Iterator[Examples]:
        if self.kept is not None:
            yield from self.kept
            return
        kept = []
        numbers = 0
        for batch in self.batches:
            examples = read_features(self.model, self.task, batch)
            numbers += examples.features.numel()
            # many large maps do not fit into memory
            if numbers <= MOST_NUMBERS:
                kept.append(examples)
            yield examples
        if numbers <= MOST_NUMBERS:
            self.kept = kept
