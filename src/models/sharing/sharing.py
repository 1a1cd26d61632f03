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
        parameters: The parameters; all of these tasks reach each of them, unless ``slices`` is set.
        slices: Whether part k of each parameter, along its first dimension, is reached by
            ``tasks[k]`` alone.
    """

    tasks: tuple[str, ...]
    parameters: list[nn.Parameter]
    slices: bool = False


class Sharing(nn.Module, ABC):
    """Inputs -> {task: features}.

    An architecture is built from a factory, so that it makes as many encoders as it needs. As in
    the encoders, the features at the padding of sequences and graphs are zero.

    Attributes:
        feature_sizes: {task: size D of its features}, filled by the subclass.
        one_feature: Whether all tasks read the same features.
        reads_weights: Whether the architecture reads parameters of its encoders besides running
            them, so that a strategy cannot place stages elsewhere.
        takes_preference: Whether it is one network for all preferences among the tasks.

    Args:
        encoder: Makes a fresh encoder at each call.
        tasks: The tasks' names, in the order of T.
    """

    feature_sizes: dict[str, int]
    one_feature: bool = False
    reads_weights: bool = False
    takes_preference: bool = False

    def __init__(self, encoder: EncoderFactory, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)

    @abstractmethod
    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns {task: features (B, ..., D)}; equal features are one tensor object."""

    @abstractmethod
    def owners(self) -> Iterator[Owned]:
        """Yields every parameter once, with the tasks whose losses reach it."""

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Yields the parameters that at least two tasks reach; a single task has all of them."""
        for owned in self.owners():
            if len(self.tasks) == 1 or (len(owned.tasks) > 1 and not owned.slices):
                yield from owned.parameters

    def parts(self) -> dict[str, nn.Module]:
        """Returns the modules that a strategy can place, by path, in the order in which they run.

        These are the stages of the encoders; there are none where parameters are read as well.
        """
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

    def draw_preference(self, key: int, progress: Callable[[], float]) -> Tensor:
        """Draws how much the next training step prefers each task, and runs by it from then on.

        Args:
            key: A number that is a function of (seed, step).
            progress: Returns the share of the training that is over.

        Returns:
            (T,) with sum 1, on the CPU.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no preference")

    def prefer(self, preference: Mapping[str, float]) -> None:
        """Runs evaluation by a preference from now on, {task: a number}, with sum 1."""
        raise NotImplementedError(f"{type(self).__name__} takes no preference")

    def on_epoch_end(self) -> None:
        """Runs at the end of each epoch of training, for architectures with a temperature."""

    def observe(self) -> dict[str, Tensor]:
        """Returns what the latest forward pass decided for each sample, {name: (B, ...)}, detached.

        Evaluation averages it over its rows.
        """
        return {}

    def figures(self, means: Mapping[str, Tensor]) -> "dict[str, DataFrame]":
        """Returns tables to be drawn, {title: a table with named rows and columns}.

        Numbers are drawn as a map of colours. Integers are routes: row r goes through place (r, c)
        at column c.

        Args:
            means: Averages over the validation rows of what :meth:`observe` returned.
        """
        return {}

    def summary(self, means: Mapping[str, Tensor]) -> list[str]:
        """Returns lines that tell a person, when training ends, what was learnt.

        Args:
            means: Averages over the validation rows of what :meth:`observe` returned.
        """
        return []


def keep_padding(x: Tensor, before: Tensor) -> Tensor:
    """Returns the features x of K tasks, zero at padding, once biases have been added to them.

    Padding is a place of a sequence or graph, (K, B, S, C), whose features were all zero before.
    Vectors and images have none.

    Args:
        x: (K, B, ..., C).
        before: Features of the same shape.
    """
    if x.ndim != 4:
        return x
    real = before.detach().any(-1, keepdim=True).any(0)
    return x.masked_fill(~real, 0)


def check_owners(sharing: Sharing, inputs: Tensor | dict[str, Tensor]) -> None:
    """Checks what :meth:`Sharing.owners` says against gradients.

    The weights are moved a little, so that no gradient is 0 by accident (a weight that starts at 0
    hides all behind it).

    Args:
        sharing: The architecture.
        inputs: Some samples.

    Raises:
        UserError: A parameter is in no group or in two; a task's features reach a parameter that is
            not the task's, or not one that is; or tasks that are said to share a parameter reach a
            part of their own each.
    """
    kind = type(sharing).__name__
    owner = owner_names(sharing)
    generator = torch.Generator().manual_seed(0)
    near = {
        name: (p.detach() + 0.02 * torch.randn(p.shape, generator=generator).to(p)).requires_grad_()
        for name, p in sharing.named_parameters()
        if p.requires_grad
    }
    if not near:
        return  # the encoder is frozen

    buffers = {name: buffer.clone() for name, buffer in sharing.named_buffers()}
    with (
        torch.random.fork_rng(devices=[]),
        torch.enable_grad(),
        torch.compiler.set_stance("force_eager"),
    ):
        features = functional_call(sharing, near | buffers, (inputs,))
    reached = find_reached(features, near, generator)

    for name, parts_of in reached.items():
        sliced = f"{name}[0]" in owner
        for k in range(len(near[name])) if sliced else [-1]:
            place = f"{name}[{k}]" if sliced else name
            tasks = {task for task, parts in parts_of.items() if not sliced or parts[k]}
            # a dead parameter, which no task reaches, may belong to any
            if tasks and tasks != owner[place]:
                task = min(tasks ^ owner[place])
                verb = "reaches" if task in tasks else "does not reach"
                raise UserError(f"{kind}.owners() is wrong: task '{task}' {verb} {place}")

        # each part is reached by one task at most
        if not sliced and len(parts_of) > 1:
            counts = torch.stack(list(parts_of.values())).sum(0)
            if counts.max() == 1:
                raise UserError(
                    f"{kind}.owners() is wrong: each task reaches a part of its own of {name}; "
                    "say slices=True"
                )


def find_reached(
    features: Mapping[str, Tensor], parameters: Mapping[str, Tensor], generator: torch.Generator
) -> dict[str, dict[str, Tensor]]:
    """Finds the parameters that each task's features depend on.

    Args:
        features: {task: features}.
        parameters: {name: parameter}.
        generator: Draws the direction in feature space along which gradients are taken.

    Returns:
        {name: {task: for each part along the first dimension, whether the task reaches it}}.
    """
    rows: dict[int, list[Tensor]] = {}  # tasks with the same features have the same gradients
    reached: dict[str, dict[str, Tensor]] = {name: {} for name in parameters}
    for task, z in features.items():
        if id(z) not in rows:
            weights = torch.randn(z.shape, generator=generator).to(z)
            gradients = torch.autograd.grad(
                (z * weights).sum(),
                list(parameters.values()),
                retain_graph=True,
                materialize_grads=True,
            )
            rows[id(z)] = [g.reshape(len(g) if g.ndim else 1, -1).any(1) for g in gradients]
        for name, parts in zip(parameters, rows[id(z)], strict=True):
            if parts.any():
                reached[name][task] = parts
    return reached


def owner_names(sharing: Sharing) -> dict[str, set[str]]:
    """Returns {parameter's name, or name[k] for its parts: the tasks that reach it}.

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
                    f"{kind}.owners() has a parameter of shape {tuple(p.shape)} twice, or one that "
                    "it does not hold"
                )
            if owned.slices:
                owner |= {f"{name}[{k}]": {task} for k, task in enumerate(owned.tasks)}
            else:
                owner[name] = set(owned.tasks)
    if names:
        raise UserError(f"{kind}.owners() leaves out {', '.join(names.values())}")
    return owner
