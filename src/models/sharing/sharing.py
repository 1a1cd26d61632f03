"""The contract of every sharing architecture: from one input to the features of each task."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call

from src.models.encoders import Encoder

if TYPE_CHECKING:
    from pandas import DataFrame

EncoderFactory = Callable[[], Encoder]


@dataclass(frozen=True)
class Owned:
    """Parameters, and the tasks whose losses reach them.

    Attributes:
        tasks: The tasks.
        parameters: Reached by all of these tasks, unless:
        slices: of each parameter the part k along its first dimension is reached by ``tasks[k]`` alone.
    """

    tasks: tuple[str, ...]
    parameters: list[nn.Parameter]
    slices: bool = False


class Sharing(nn.Module, ABC):
    """Inputs -> {task: features}. Built from a factory, so that an architecture makes as many encoders as it needs.

    Attributes:
        feature_sizes: {task: size D of its features}, filled by the subclass.
        one_feature: Whether all tasks read the same features.

    Args:
        encoder: Makes a fresh encoder at each call.
        tasks: The tasks' names, in the order of T.
    """

    feature_sizes: dict[str, int]
    one_feature: bool = False

    def __init__(self, encoder: EncoderFactory, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)

    @abstractmethod
    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns {task: features (B, ..., D)}; tasks that see the same features get the same tensor object."""

    @abstractmethod
    def owners(self) -> Iterator[Owned]:
        """Yields every parameter once, with the tasks whose losses reach it."""

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Yields the parameters that two tasks or more reach; a single task has all of them."""
        for owned in self.owners():
            if len(self.tasks) == 1 or (len(owned.tasks) > 1 and not owned.slices):
                yield from owned.parameters

    def penalty(self) -> Tensor | None:
        """Returns a scalar that the step minimises besides the losses, or None.

        It must depend on parameters alone: rows that fill up a batch differ with the number of devices.
        """
        return None

    def on_epoch_end(self) -> None:
        """Comes at the end of each epoch of training, for what cools down."""

    def seen(self) -> dict[str, Tensor]:
        """What the latest forward pass decided per sample, {name: (B, ...)}, detached; evaluation averages it over its rows."""
        return {}

    def pictures(self, means: Mapping[str, Tensor]) -> "dict[str, DataFrame]":
        """What can be drawn, {title: a table with named rows and columns}.

        Numbers are drawn as a map of colours. Integers are routes: row r goes through place (r, c) at column c.

        Args:
            means: Averages over the validation rows of what :meth:`seen` gave.
        """
        return {}

    def lines(self) -> list[str]:
        """What a person should know of what was learnt, a line each, when training ends."""
        return []


def check_owners(sharing: Sharing, inputs: Tensor | dict[str, Tensor]) -> None:
    """Proves what :meth:`Sharing.owners` says, on weights near the real ones that no gradient of 0 hides behind.

    Args:
        sharing: The architecture.
        inputs: Some samples.

    Raises:
        ValueError: A parameter is in no group or in two; a task's features reach one that is not theirs, or not one that is.
    """
    kind, owner = type(sharing).__name__, owner_names(sharing)
    generator = torch.Generator().manual_seed(0)
    near = {
        name: (p.detach() + 0.02 * torch.randn(p.shape, generator=generator).to(p)).requires_grad_()
        for name, p in sharing.named_parameters()
        if p.requires_grad
    }
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), torch.compiler.set_stance("force_eager"):
        features = functional_call(sharing, near, (inputs,))
    places = list(near.values())
    reached: dict[str, set[str]] = {name: set() for name in near}
    of_features: dict[int, set[str]] = {}  # the names that these features reach
    for task, z in features.items():
        if id(z) not in of_features:
            weights = torch.randn(z.shape, generator=generator).to(z)
            gradients = torch.autograd.grad((z * weights).sum(), places, retain_graph=True, allow_unused=True)
            of_features[id(z)] = {
                part
                for name, gradient in zip(near, gradients, strict=True)
                if gradient is not None
                for part, g in (
                    [(f"{name}[{k}]", g) for k, g in enumerate(gradient)] if f"{name}[0]" in owner else [(name, gradient)]
                )
                if g.any()
            }
        for name in of_features[id(z)]:
            reached.setdefault(name, set()).add(task)
    for name, tasks in reached.items():
        if tasks and tasks != owner[name]:  # a dead one, which no task reaches, belongs to whom it may
            task = min(tasks ^ owner[name])
            raise ValueError(f"{kind}.owners() is wrong: task '{task}' {'reaches' if task in tasks else 'does not reach'} {name}")


def owner_names(sharing: Sharing) -> dict[str, set[str]]:
    """{parameter's name, or name[k] for the parts of one: the tasks that reach it}.

    Raises:
        ValueError: A parameter is in no group or in two.
    """
    names = {id(p): name for name, p in sharing.named_parameters()}
    owner: dict[str, set[str]] = {}
    kind = type(sharing).__name__
    for owned in sharing.owners():
        for p in owned.parameters:
            name = names.pop(id(p), None)
            if name is None:
                raise ValueError(f"{kind}.owners() has a parameter of shape {tuple(p.shape)} twice, or one that it does not hold")
            owner |= {f"{name}[{k}]": {task} for k, task in enumerate(owned.tasks)} if owned.slices else {name: set(owned.tasks)}
    if names:
        raise ValueError(f"{kind}.owners() leaves out {', '.join(names.values())}")
    return owner
