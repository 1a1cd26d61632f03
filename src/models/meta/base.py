"""The base of all ways to learn from episodes.

Shapes: an episode has S support rows, which a learner sees with their labels, and Q query rows, on
which it is judged. A batch has E episodes; K = 1 is the place of the one task among heads.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from src.balancing import StaticWeights
from src.batch import Batch
from src.errors import UserError
from src.models.meta.episodes import Episode, split_episodes
from src.models.meta.scores import EpisodeScores
from src.models.sharing import HardSharing
from src.runner import ScheduledGradients
from src.tasks import Task

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel
    from src.models.network import MultiTaskNetwork


class Meta(nn.Module, ABC):
    """Makes from the support rows of an episode a predictor for its query rows.

    The step then minimises the loss of the query rows, summed over the global batch of episodes and
    divided by the number of their labels, as it does with rows. So a run is the same on any number
    of processes. All state that changes from episode to episode is thrown away after it.

    Args:
        tasks: {name: task}; there is one, whose labels mean something else in each episode.
    """

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        method = type(self).__name__
        if len(tasks) != 1:
            raise UserError(
                f"model.meta {method} learns one task from each episode, but the data have "
                f"{', '.join(tasks)}: choose --data Episodes and name one with --data.target"
            )
        self.task, self.kind = next(iter(tasks.items()))
        self.scores: EpisodeScores | None = None

    # -- what a method provides --------------------------------------------------------------------
    @abstractmethod
    def learn(self, network: "MultiTaskModel", episodes: Episode) -> dict[int, Tensor]:
        """Learns each episode's support rows, and predicts its query rows.

        Args:
            network: The network, whose parameters stay as they are.
            episodes: Support and query rows of E episodes.

        Returns:
            {number of inner steps behind it: outputs (E, Q, K, O)}, in the graph while training.
            The last entry counts; others are reported.
        """

    # -- what a method may provide -----------------------------------------------------------------
    def prepare(self, network: "MultiTaskNetwork") -> None:
        """Prepares for a network that has just been built."""

    def take_gradients(self, network: "MultiTaskModel", batch: Batch) -> ScheduledGradients | None:
        """Takes the gradients of a training step itself; None: they are those of the query loss."""
        return None

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Returns the optimizer's groups of the method's own parameters, which do not decay."""
        own = list(self.parameters())
        if not own:
            return []
        return [{"name": "inner_rates", "params": own, "lr": lr, "weight_decay": 0.0}]

    # -- what a model calls ------------------------------------------------------------------------
    def check(self, network: "MultiTaskModel") -> None:
        """Checks a network that is built.

        Raises:
            UserError: It cannot be trained on episodes.
        """
        method = type(self).__name__
        sharing = network.sharing
        if not isinstance(sharing, HardSharing) or not sharing.one_feature:
            raise UserError(
                f"model.meta {method} trains one encoder for all episodes: use --model.sharing "
                "HardSharing without until"
            )
        if type(network.balancer) is not StaticWeights:
            raise UserError(
                f"model.meta {method} trains one task, which leaves nothing to balance: use "
                "--model.balancer StaticWeights"
            )
        if network.checkpoint_activations:
            raise UserError(
                f"model.meta {method} runs the encoder on small sets of rows and keeps what it "
                "needs: set --model.checkpoint_activations false"
            )
        for module in sharing.modules():
            if isinstance(module, nn.Dropout) and module.p > 0:
                raise UserError(
                    f"model.meta {method} needs an encoder without dropout, whose mask would "
                    "depend on how episodes lie on devices: set --model.encoder.dropout 0"
                )

    def run(self, network: "MultiTaskModel", batch: Batch) -> list[Tensor]:
        """Learns each episode of a batch, and predicts its query rows.

        Args:
            network: The network.
            batch: Whole episodes.

        Returns:
            The outputs of the one group of heads, [(B, K, O)], 0 at support rows, whose labels are
            no targets.
        """
        episodes = split_episodes(batch, self.task)
        if network.training:
            found = self.learn(network, episodes)
        else:
            with leave_inference_mode():
                found = self.learn(network, episodes.clone())
        if self.scores is not None:
            self.scores.add(found, episodes.targets)
        last = found[max(found)]
        supports = last.new_zeros(len(last), episodes.labels.shape[1], *last.shape[2:])
        return [torch.cat([supports, last], 1).flatten(0, 1)]

    def begin_scores(self) -> None:
        """Begins to gather the scores of single episodes."""
        self.scores = EpisodeScores(self.kind)

    def finish_scores(self, stage: str) -> dict[str, float]:
        """Returns the mean over episodes, and its 95 % interval, over all processes.

        Args:
            stage: 'val' or 'test'.
        """
        if self.scores is None:
            return {}
        found = self.scores.finish()
        prefix = f"{stage}/{self.task}/episodes"
        return {f"{prefix}/{name}": value for name, value in found.items()}

    def summary(self) -> list[str]:
        """Returns a line on the scores over the latest evaluation's episodes."""
        method = type(self).__name__
        return [] if self.scores is None else self.scores.describe(method)


@contextmanager
def leave_inference_mode() -> Iterator[None]:
    """Leaves torch's inference mode, in which no inner gradient could be taken."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def steps_to_report(steps: Sequence[int], last: int) -> list[int]:
    """Returns numbers of inner steps below the last one, in order, and the last one."""
    return [*sorted({step for step in steps if 0 <= step < last}), last]
