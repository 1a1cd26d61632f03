"""The contract of every sharing architecture: from one input to the features of each task."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call

from src.errors import UserError
from src.models.encoders import Encoder
from src.models.encoders.tensor_parallel import find_plan

if TYPE_CHECKING:
    from pandas import DataFrame

EncoderFactory = Callable[[], Encoder]


@dataclass(frozen=True)
class Owned:
    """Parameters, and the tasks whose losses reach them.

    Attributes:
        tasks: The tasks.
        parameters: ParameterJacobian by all of these tasks, unless:
        slices: of each parameter the part k along its first dimension is reached by ``tasks[k]``
            alone.
    """

    tasks: tuple[str, ...]
    parameters: list[nn.Parameter]
    slices: bool = False


class Sharing(nn.Module, ABC):
    """Inputs -> {task: features}. Built from a factory, so that an architecture makes as many encoders as it needs.

    Attributes:
        feature_sizes: {task: size D of its features}, filled by the subclass.
        one_feature: Whether all tasks read the same features.
        whole: Whether it reads parameters of its encoders besides running them, so that these
            cannot lie elsewhere.

    Args:
        encoder: Makes a fresh encoder at each call.
        tasks: The tasks' names, in the order of T.
    """

    feature_sizes: dict[str, int]
    one_feature: bool = False
    reads_weights: bool = False

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

    def parts(self) -> dict[str, nn.Module]:
        """What can lie elsewhere, by path, in running order: the stages of its encoders, unless their parameters are read, too."""
        found: dict[str, nn.Module] = {}
        for name, module in self.named_modules():
            stages = getattr(module, "stages", None)
            if not self.reads_weights and isinstance(stages, nn.Sequential):
                found |= {f"{name}.stages.{key}": stage for key, stage in stages.named_children()}
        return found

    def tensor_parallel_plan(self) -> dict[str, tuple[str, int]]:
        """Returns how devices can compute layers together, as an encoder states it.

        It is empty where several encoders run side by side: their stacked layers are not split.
        """
        encoder = getattr(self, "encoder", None)
        plan = find_plan(encoder) if isinstance(encoder, Encoder) else {}
        return {f"encoder.{path}": entry for path, entry in plan.items()}

    def penalty(self) -> Tensor | None:
        """Returns a scalar that the step minimises besides the losses, or None.

        It must depend on parameters alone: rows that fill up a batch differ with the number of
        devices.
        """
        return None

    def on_epoch_end(self) -> None:
        """Comes at the end of each epoch of training, for what cools down."""

    def observe(self) -> dict[str, Tensor]:
        """What the latest forward pass decided per sample, {name: (B, ...)}, detached; evaluation averages it over its rows."""
        return {}

    def figures(self, means: Mapping[str, Tensor]) -> "dict[str, DataFrame]":
        """What can be drawn, {title: a table with named rows and columns}.

        Numbers are drawn as a map of colours. Integers are routes: row r goes through place (r, c)
        at column c.

        Args:
            means: Averages over the validation rows of what :meth:`observe` gave.
        """
        return {}

    def summary(self, means: Mapping[str, Tensor]) -> list[str]:
        """What a person should know of what was learnt, a line each, when training ends; means are as for pictures."""
        return []


def check_owners(sharing: Sharing, inputs: Tensor | dict[str, Tensor]) -> None:
    """Proves what :meth:`Sharing.owners` says, on weights near the real ones that no gradient of 0 hides behind.

    Args:
        sharing: The architecture.
        inputs: Some samples.

    Raises:
        UserError: A parameter is in no group or in two; a task's features reach one that is not
            theirs, or not one that is; tasks that are said to share a parameter reach a part of
            their own each.
    """
    kind, owner = type(sharing).__name__, owner_names(sharing)
    generator = torch.Generator().manual_seed(0)
    near = {
        name: (p.detach() + 0.02 * torch.randn(p.shape, generator=generator).to(p)).requires_grad_()
        for name, p in sharing.named_parameters()
        if p.requires_grad
    }
    if not near:  # a frozen encoder
        return
    buffers = {name: buffer.clone() for name, buffer in sharing.named_buffers()}
    with (
        torch.random.fork_rng(devices=[]),
        torch.enable_grad(),
        torch.compiler.set_stance("force_eager"),
    ):
        features = functional_call(sharing, near | buffers, (inputs,))
    rows: dict[int, list[Tensor]] = {}  # per features and parameter, which of its parts they reach
    reached: dict[str, dict[str, Tensor]] = {name: {} for name in near}
    for task, z in features.items():
        if id(z) not in rows:
            weights = torch.randn(z.shape, generator=generator).to(z)
            places = list(near.values())
            gradients = torch.autograd.grad(
                (z * weights).sum(), places, retain_graph=True, materialize_grads=True
            )
            rows[id(z)] = [g.reshape(len(g) if g.ndim else 1, -1).any(1) for g in gradients]
        for name, parts in zip(near, rows[id(z)], strict=True):
            if parts.any():
                reached[name][task] = parts
    for name, parts_of in reached.items():
        sliced = f"{name}[0]" in owner
        for k in range(len(near[name])) if sliced else [-1]:
            place = f"{name}[{k}]" if sliced else name
            tasks = {task for task, parts in parts_of.items() if not sliced or parts[k]}
            if (
                tasks and tasks != owner[place]
            ):  # a dead one, which no task reaches, belongs to whom it may
                task = min(tasks ^ owner[place])
                verb = "reaches" if task in tasks else "does not reach"
                raise UserError(f"{kind}.owners() is wrong: task '{task}' {verb} {place}")
        if (
            not sliced
            and len(parts_of) > 1
            and torch.stack(list(parts_of.values())).sum(0).max() == 1
        ):
            raise UserError(
                f"{kind}.owners() is wrong: each task reaches a part of its own of {name}; say slices=True"
            )


def owner_names(sharing: Sharing) -> dict[str, set[str]]:
    """{parameter's name, or name[k] for the parts of one: the tasks that reach it}.

    Raises:
        UserError: A parameter is in no group or in two.
    """
    names = {id(p): name for name, p in sharing.named_parameters()}
    owner: dict[str, set[str]] = {}
    kind = type(sharing).__name__
    for owned in sharing.owners():
        for p in owned.parameters:
            name = names.pop(id(p), None)
            if name is None:
                raise UserError(
                    f"{kind}.owners() has a parameter of shape {tuple(p.shape)} twice, or one that it does not hold"
                )
            owner |= (
                {f"{name}[{k}]": {task} for k, task in enumerate(owned.tasks)}
                if owned.slices
                else {name: set(owned.tasks)}
            )
    if names:
        raise UserError(f"{kind}.owners() leaves out {', '.join(names.values())}")
    return owner
