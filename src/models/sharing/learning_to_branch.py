"""Learning to branch: a tree of stages that is found while its weights are trained."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from src.errors import UserError
from src.models.sharing.gates import mix, table
from src.models.sharing.sharing import EncoderFactory, Owned, Sharing
from src.models.sharing.stacked_encoders import StackedEncoders

if TYPE_CHECKING:
    from pandas import DataFrame

COLDEST = (
    0.1  # samples are nearly one node; far below it gradients vanish, and in the end tau would be 0
)


class LearningToBranch(Sharing):
    """Each node of a stage, and in the end each task, learns which node of the stage before it goes on from.

    Stage l has N nodes, copies of it. Node j of the next stage reads sum_i d_ji x_i with d_j =
    softmax((alpha_j + G) / tau), G
    Gumbel noise: nearly one node i, drawn with probability softmax(alpha_j)_i, when tau is small
    (Guo, Lee and Ulbricht, "Learning to branch for multi-task learning", ICML 2020). Noise is drawn
    once per step for all rows. In evaluation the most probable node is taken. All nodes of the
    first stage read the inputs.

    The paper trains weights and alpha on batches in turn; here they are trained together.

    Args:
        encoder: Makes an encoder.
        tasks: The tasks' names.
        branches: N; None: as many as tasks.
        temperature: tau at first.
        cooling: Factor on tau at the end of each epoch, down to 0.1.
        speed: alpha is so many times a parameter: it has further to go than weights, at the same
            learning rate.
    """

    temperature: Tensor

    def __init__(
        self,
        encoder: EncoderFactory,
        tasks: Sequence[str],
        branches: int | None = None,
        temperature: float = 5.0,
        cooling: float = 0.8,
        speed: float = 30.0,
    ) -> None:
        super().__init__(encoder, tasks)
        if branches is not None and branches < 1:
            raise UserError(
                f"LearningToBranch: branches {branches} must be at least 1, or null for as many as tasks"
            )
        if temperature < COLDEST or not 0 < cooling <= 1:
            raise UserError(
                f"LearningToBranch: temperature {temperature} must be at least {COLDEST} and cooling {cooling} in (0, 1]"
            )
        if speed <= 0:
            raise UserError(f"LearningToBranch: speed {speed} must be above 0")
        count = len(tasks) if branches is None else branches
        self.nodes = StackedEncoders(encoder, count)
        self.feature_sizes = dict.fromkeys(tasks, self.nodes.features)
        choosers = [count] * (len(self.nodes.layouts) - 1) + [len(tasks)]
        self.choices = nn.ParameterList(torch.zeros(n, count) for n in choosers)
        self.cooling, self.speed = cooling, speed
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns each task's mixture of the last nodes; in evaluation those of its branch."""
        state: Any = inputs
        *between, last = self.choices
        for k, choice in enumerate(self.choices):
            state = self.nodes(state, apart=k > 0, first=k, last=k + 1)
            if self.training:
                state = mix(self._drawn(choice), state)
            elif k < len(between):
                state = of_nodes(state, choice.argmax(1))
        z = state.unbind()
        return dict(
            zip(
                self.tasks,
                z if self.training else [z[i] for i in last.argmax(1).tolist()],
                strict=True,
            )
        )

    def _drawn(self, choice: Tensor) -> Tensor:
        """A soft sample of each row's node: noise from the CPU's generator is the same on every rank."""
        gumbel = -torch.empty(choice.shape, dtype=torch.float64).exponential_().log()
        return ((self.speed * choice + gumbel.to(choice)) / self.temperature).softmax(-1)

    def on_epoch_end(self) -> None:
        """Cools."""
        self.temperature.mul_(self.cooling).clamp_(min=COLDEST)

    def owners(self) -> Iterator[Owned]:
        """Soft samples let all tasks reach all nodes; the last choice is each task's own. In evaluation a task has its branch."""
        yield from self.nodes.owners([self.tasks] * len(self.nodes))
        *between, last = self.choices
        yield Owned(self.tasks, between)
        yield Owned(self.tasks, [last], slices=True)

    @torch.no_grad()
    def routes(self) -> Tensor:
        """The node that each task goes through in each stage, (T, stages)."""
        *between, last = self.choices
        route = [last.argmax(1)]
        for choice in reversed(between):
            route.insert(0, choice.argmax(1)[route[0]])
        return torch.stack(route, 1)

    def figures(self, means: Mapping[str, Tensor]) -> "dict[str, DataFrame]":
        """The branch of each task in each stage, from 0 on, and how sure the tasks are of the last one."""
        routes, sure = self.routes(), (self.speed * self.choices[-1].detach()).softmax(-1)
        return {
            "branches": table(
                routes, self.tasks, [f"stage {k + 1}" for k in range(routes.shape[1])]
            ),
            "last branch": table(sure, self.tasks, [f"branch {i}" for i in range(sure.shape[1])]),
        }

    def summary(self, means: Mapping[str, Tensor]) -> list[str]:
        """The tree."""
        stages = []
        for k, nodes in enumerate(self.routes().T.tolist()):
            groups = {
                i: [task for task, node in zip(self.tasks, nodes, strict=True) if node == i]
                for i in dict.fromkeys(nodes)
            }
            stages.append(
                f"stage {k + 1} " + " ".join(f"{{{', '.join(group)}}}" for group in groups.values())
            )
        return ["tree: " + "; ".join(stages)]


def of_nodes(state: Any, nodes: Tensor) -> Any:
    """What these nodes put out."""
    return tree_map(lambda x: x[nodes], state)
