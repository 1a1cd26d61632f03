"""Hard parameter sharing: one encoder for all tasks."""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from src.models.sharing.sharing import EncoderFactory, Sharing


class HardSharing(Sharing):
    """z = f(x) for every task; only the heads are the tasks' own (Caruana, Machine Learning 1997)."""

    one_feature = True

    def __init__(self, encoder: EncoderFactory, tasks: Sequence[str]) -> None:
        super().__init__(encoder, tasks)
        self.encoder = encoder()
        self.feature_sizes = dict.fromkeys(tasks, self.encoder.features)

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns the same features for every task."""
        return dict.fromkeys(self.tasks, self.encoder(inputs))

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Yields the whole encoder."""
        return self.encoder.parameters()
