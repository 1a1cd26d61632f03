"""No sharing: one encoder for each task."""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from src.models.encoders.encoder import top
from src.models.sharing.sharing import EncoderFactory, Owned, Sharing
from src.models.sharing.stacked_encoders import StackedEncoders


class Separate(Sharing):
    """No sharing: T single-task networks in one run, z_t = f_t(x).

    This is the baseline of every other architecture. Each network is as good as alone: best.ckpt
    keeps for each task the weights of its own best epoch, which the table of results names. The
    tasks have the learning rate, the number of steps and the order of batches in common; patience
    waits until no task gets better. Where processes write a checkpoint in shards
    (``--strategy.checkpoint folder``), one epoch counts for all tasks.
    """

    def __init__(self, encoder: EncoderFactory, tasks: Sequence[str]) -> None:
        super().__init__(encoder, tasks)
        self.encoders = StackedEncoders(encoder, len(tasks))
        self.feature_sizes = dict.fromkeys(tasks, self.encoders.features)

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns each task's own features."""
        return dict(zip(self.tasks, top(self.encoders(inputs)).unbind(), strict=True))

    def owners(self) -> Iterator[Owned]:
        """Yields each encoder for its task."""
        yield from self.encoders.owners([(task,) for task in self.tasks])
