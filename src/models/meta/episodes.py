"""The episodes of a batch: which rows are learnt, and which are predicted."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from src.batch import Batch
from src.errors import UserError

Inputs = Tensor | dict[str, Tensor]


@dataclass(frozen=True)
class Episode:
    """E episodes of equal size.

    Attributes:
        support: Inputs of the support rows (E, S, ...).
        labels: Their labels (E, S, ...).
        query: Inputs of the query rows (E, Q, ...).
        targets: Labels of the query rows (E, Q, ...).
    """

    support: Inputs
    labels: Tensor
    query: Inputs
    targets: Tensor

    @property
    def count(self) -> int:
        """The number E of episodes."""
        return len(self.labels)

    def clone(self) -> "Episode":
        """Returns a copy of the tensors that an inner loop reads, made outside inference mode."""
        return replace(
            self,
            support=map_inputs(torch.clone, self.support),
            labels=self.labels.clone(),
            query=map_inputs(torch.clone, self.query),
        )


def split_episodes(batch: Batch, task: str) -> Episode:
    """Cuts a batch into its episodes, and these into support and query rows.

    Args:
        batch: Rows of whole episodes, one episode after the other, the support rows of each first.
            Query rows alone have targets. ``extras`` has 'episode', the number of a row's episode
            in this batch; 'support', whether it is a support row; and 'label', which it then shows.
        task: The task that is learnt.

    Raises:
        UserError: These are no episodes.
    """
    if "episode" not in batch.extras:
        raise UserError(
            "model.meta learns from episodes, but the data give rows: use --data Episodes, and "
            "name the data that episodes are drawn from with --data.source"
        )
    count = int(batch.extras["episode"][-1]) + 1
    supports = int(batch.extras["support"].sum()) // count

    def cut(tensor: Tensor) -> tuple[Tensor, Tensor]:
        by_episode = tensor.unflatten(0, (count, -1))
        return by_episode[:, :supports], by_episode[:, supports:]

    return Episode(
        map_inputs(lambda tensor: cut(tensor)[0], batch.inputs),
        cut(batch.extras["label"])[0],
        map_inputs(lambda tensor: cut(tensor)[1], batch.inputs),
        cut(batch.targets[task])[1],
    )


def flatten_rows(inputs: Inputs) -> Inputs:
    """Returns inputs (E, R, ...) as those of E R rows."""
    return map_inputs(lambda tensor: tensor.flatten(0, 1), inputs)


def map_inputs(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """Applies a function to each tensor of inputs."""
    if isinstance(inputs, Tensor):
        return function(inputs)
    return {name: function(tensor) for name, tensor in inputs.items()}


def join_rows(first: Inputs, second: Inputs) -> Inputs:
    """Returns inputs (E, S, ...) and others (E, Q, ...) as those of S + Q rows an episode."""
    if isinstance(first, Tensor):
        assert isinstance(second, Tensor)
        return torch.cat([first, second], 1)
    assert isinstance(second, dict)
    return {name: torch.cat([rows, second[name]], 1) for name, rows in first.items()}
