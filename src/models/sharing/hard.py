"""Hard parameter sharing: one encoder for all tasks, whole or up to a stage."""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from src.errors import UserError
from src.models.encoders.encoder import top
from src.models.sharing.sharing import EncoderFactory, Owned, Sharing
from src.models.sharing.stacked_encoders import StackedEncoders


class HardSharing(Sharing):
    """Hard parameter sharing: z = f(x) for every task, with one head per task.

    (Caruana, "Multitask learning", Machine Learning 1997.) With ``until: k`` the first k stages are
    shared and each task has the other stages for itself: z_t = f_t(f(x)) (Vandenhende et al.,
    "Branched multi-task networks", BMVC 2020, with one branching point).

    Args:
        encoder: Makes an encoder.
        tasks: The tasks' names.
        until: Number of shared stages; None shares all.
    """

    def __init__(
        self, encoder: EncoderFactory, tasks: Sequence[str], until: int | None = None
    ) -> None:
        super().__init__(encoder, tasks)
        self.encoder = encoder()
        stages = len(self.encoder.stages) if until is not None else 0
        if until is not None and not 1 <= until <= stages:
            raise UserError(
                f"HardSharing: until {until} is outside 1 ... {stages}, the stages of "
                f"{type(self.encoder).__name__}"
            )

        # with all stages shared, tasks read one tensor, which cheap balancing needs
        self.one_feature = until is None or until == stages
        self.branches = (
            None if self.one_feature else StackedEncoders(encoder, len(tasks), first=until or 0)
        )
        if self.branches is not None:
            # the stages above belong to the branches
            self.encoder.cut(0, until)
        self.feature_sizes = dict.fromkeys(tasks, self.encoder.features)

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns the same features for every task, or the features of each branch."""
        z = self.encoder(inputs)
        if self.branches is None:
            return dict.fromkeys(self.tasks, z)
        return dict(zip(self.tasks, top(self.branches(z)).unbind(), strict=True))

    def owners(self) -> Iterator[Owned]:
        """Yields the encoder for all tasks, a branch for its task."""
        yield Owned(self.tasks, list(self.encoder.parameters()))
        if self.branches is not None:
            yield from self.branches.owners([(task,) for task in self.tasks])
