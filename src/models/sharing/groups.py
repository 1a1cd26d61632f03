"""Groups of tasks: hard sharing within each group, and nothing between groups."""

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from src.errors import UserError, suggest_or_list
from src.models.encoders import Encoder
from src.models.encoders.tensor_parallel import find_plan
from src.models.sharing.sharing import EncoderFactory, Owned, Sharing


class Groups(Sharing):
    """One network per group of tasks: z_t = f_g(x) with g the group of task t.

    (Standley et al., "Which tasks should be learned together in multi-task learning?", ICML 2020;
    Fifty et al., "Efficiently identifying task groupings for multi-task learning", NeurIPS 2021.)
    With one group this is hard sharing, and with a group for each task it is Separate.
    ``python -m src.affinity`` finds groups.

    Args:
        encoder: Makes an encoder.
        tasks: The tasks' names.
        groups: The groups, each a list of tasks; every task is in one of them.
    """

    def __init__(
        self, encoder: EncoderFactory, tasks: Sequence[str], groups: list[list[str]]
    ) -> None:
        super().__init__(encoder, tasks)
        check_groups(groups, tasks)
        self.groups = [tuple(group) for group in groups]
        self.encoders = nn.ModuleList(encoder() for _ in groups)

        # tasks of the only group read one tensor, which cheap balancing needs
        self.one_feature = len(groups) == 1
        self.feature_sizes = dict.fromkeys(tasks, self._list_encoders()[0].features)

    def _list_encoders(self) -> list[Encoder]:
        """Returns the encoders, in the order of the groups."""
        return [cast(Encoder, encoder) for encoder in self.encoders]

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns the features of each task's group; tasks of a group have one tensor."""
        found: dict[str, Tensor] = {}
        for group, encoder in zip(self.groups, self.encoders, strict=True):
            z = encoder(inputs)
            found |= dict.fromkeys(group, z)
        return {task: found[task] for task in self.tasks}

    def owners(self) -> Iterator[Owned]:
        """Yields each encoder for its group."""
        for group, encoder in zip(self.groups, self.encoders, strict=True):
            yield Owned(group, list(encoder.parameters()))

    def tensor_parallel_plan(self) -> dict[str, tuple[str, int]]:
        """Returns how devices can compute the layers of each encoder together."""
        plan: dict[str, tuple[str, int]] = {}
        for g, encoder in enumerate(self._list_encoders()):
            for path, entry in find_plan(encoder).items():
                plan[f"encoders.{g}.{path}"] = entry
        return plan


def check_groups(groups: Sequence[Sequence[str]], tasks: Sequence[str]) -> None:
    """Checks that groups are a partition of the tasks.

    Raises:
        UserError: A group is empty, names something else, or a task is in no group or in two.
    """
    key = "model.sharing.groups"
    seen: set[str] = set()
    for group in groups:
        if not group:
            raise UserError(f"{key} has an empty group: leave it out")
        for name in group:
            if name not in tasks:
                raise UserError(
                    f"{key} names '{name}', which is no task; {suggest_or_list(name, tasks)}"
                )
            if name in seen:
                raise UserError(f"{key} names '{name}' twice; each task is in one group")
            seen.add(name)
    absent = [task for task in tasks if task not in seen]
    if absent:
        words = f"the tasks {', '.join(absent)}" if len(absent) > 1 else f"task {absent[0]}"
        raise UserError(
            f"{key} leaves out {words}: put each in a group, such as [[..., {absent[0]}]] or "
            f"[..., [{absent[0]}]]"
        )
