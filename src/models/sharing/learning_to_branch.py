"""Learning to branch: a tree of stages that is found while its weights are trained."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.models.encoders.encoder import Inputs, State, map_state, top
from src.models.sharing.gates import make_table, mix
from src.models.sharing.sharing import EncoderFactory, Owned, Sharing
from src.models.sharing.stacked_encoders import StackedEncoders

if TYPE_CHECKING:
    from pandas import DataFrame

# at this temperature a sample is nearly one node; far below it gradients vanish
COLDEST = 0.1


class LearningToBranch(Sharing):
    """Learning to branch: a tree of stages that is found while the weights are trained.

    Each stage has N nodes, copies of the stage. Node j of the next stage, and in the end task j,
    reads sum_i d_ji x_i with d_j = softmax((alpha_j + G) / tau) and Gumbel noise G. When tau is
    small this is nearly one node i, drawn with probability softmax(alpha_j)_i (Guo, Lee and
    Ulbricht, "Learning to branch for multi-task learning", ICML 2020). Noise is drawn once per step
    for all rows. In evaluation the most probable node is taken. All nodes of the first stage read
    the inputs.

    The paper trains weights and alpha on batches in turn; here they train on the same batches.

    Args:
        encoder: Makes an encoder.
        tasks: The tasks' names.
        branches: N; None: as many as tasks.
        temperature: tau at first.
        cooling: Factor on tau at the end of each epoch, down to 0.1.
        speed: Factor from the trained parameter to alpha, which has further to go than weights at
            the same learning rate.
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
                f"LearningToBranch: branches {branches} must be at least 1, or null for as many as "
                "tasks"
            )
        if temperature < COLDEST or not 0 < cooling <= 1:
            raise UserError(
                f"LearningToBranch: temperature {temperature} must be at least {COLDEST} and "
                f"cooling {cooling} in (0, 1]"
            )
        if speed <= 0:
            raise UserError(f"LearningToBranch: speed {speed} must be above 0")
        count = len(tasks) if branches is None else branches
        self.nodes = StackedEncoders(encoder, count)
        self.feature_sizes = dict.fromkeys(tasks, self.nodes.features)
        choosers = [count] * (len(self.nodes.layouts) - 1) + [len(tasks)]
        self.choices = nn.ParameterList(torch.zeros(n, count) for n in choosers)
        self.cooling = cooling
        self.speed = speed
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns each task's mixture of the last nodes; in evaluation the node of its branch."""
        state: Inputs | State = inputs
        *between, last = self.choices
        for k, choice in enumerate(self.choices):
            output: State = self.nodes(state, apart=k > 0, first=k, last=k + 1)
            # behind each stage, the nodes of the next choose what they read
            if self.training:
                output = mix(self._sample(choice), output)
            elif k < len(between):
                output = select_nodes(output, choice.argmax(1))
            state = output

        z = top(cast(State, state))
        if not self.training:
            z = z[last.argmax(1)]
        return dict(zip(self.tasks, z.unbind(), strict=True))

    def _sample(self, choice: Tensor) -> Tensor:
        """Draws a soft sample of each row's node."""
        # noise from the CPU's generator is the same on every rank
        gumbel = -torch.empty(choice.shape, dtype=torch.float64).exponential_().log()
        return ((self.speed * choice + gumbel.to(choice)) / self.temperature).softmax(-1)

    def on_epoch_end(self) -> None:
        """Lowers the temperature."""
        self.temperature.mul_(self.cooling).clamp_(min=COLDEST)

    def owners(self) -> Iterator[Owned]:
        """Yields nodes and choices for all tasks, a row of the last choice for its task.

        Soft samples let all tasks reach all nodes; in evaluation a task has its branch alone.
        """
        yield from self.nodes.owners([self.tasks] * len(self.nodes))
        *between, last = self.choices
        yield Owned(self.tasks, between)
        yield Owned(self.tasks, [last], slices=True)

    @torch.no_grad()
    def routes(self) -> Tensor:
        """Returns the node that each task goes through in each stage, (T, stages)."""
        *between, last = self.choices
        # from the tasks back to the inputs
        route = [last.argmax(1)]
        for choice in reversed(between):
            route.insert(0, choice.argmax(1)[route[0]])
        return torch.stack(route, 1)

    def figures(self, means: Mapping[str, Tensor]) -> "dict[str, DataFrame]":
        """Returns each task's branch in each stage, from 0 on, and how certain the last one is."""
        routes = self.routes()
        sure = (self.speed * self.choices[-1].detach()).softmax(-1)
        return {
            "branches": make_table(
                routes, self.tasks, [f"stage {k + 1}" for k in range(routes.shape[1])]
            ),
            "last branch": make_table(
                sure, self.tasks, [f"branch {i}" for i in range(sure.shape[1])]
            ),
        }

    def summary(self, means: Mapping[str, Tensor]) -> list[str]:
        """Returns the tree in one line: the groups of tasks that share a node of each stage."""
        stages = []
        for k, nodes in enumerate(self.routes().T.tolist()):
            groups: dict[int, list[str]] = {}
            for task, node in zip(self.tasks, nodes, strict=True):
                groups.setdefault(node, []).append(task)
            words = " ".join(f"{{{', '.join(group)}}}" for group in groups.values())
            stages.append(f"stage {k + 1} {words}")
        return ["tree: " + "; ".join(stages)]


def select_nodes(state: State, nodes: Tensor) -> State:
    """Returns the outputs of some nodes, from a state (N, ...)."""
    return map_state(lambda x: x[nodes], state)
