"""The form of what travels between processes of a pipeline, found by sending one row through."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor

from src.parallel.stages import StageInterface, list_inputs, make_input_builder
from src.runner import Inputs, ShardableModel, State

STAGE = "sharing.encoder.stages."

# the names of the inputs, the shape and type of each, and whether autocast is on
Form = tuple[tuple[str, ...], tuple[tuple[tuple[int, ...], torch.dtype], ...], bool]


@dataclass(frozen=True)
class PipelineRank:
    """The place of this process in a pipeline.

    Attributes:
        rank: The number of this process.
        ranks: The number of processes.
        device: The device of this process.
        hosts: The group of all processes for objects that are on CPUs.
        paths: The paths of the parts that this process runs.
        draws_below: The number of keys that random layers of the processes below draw in a step.
    """

    rank: int
    ranks: int
    device: torch.device
    hosts: dist.ProcessGroup
    paths: list[str]
    draws_below: int

    @property
    def is_last(self) -> bool:
        """Whether this process has the last stages, and the heads."""
        return self.rank == self.ranks - 1

    @property
    def stages(self) -> list[str]:
        """The paths of the stages that this process runs."""
        return [path for path in self.paths if path.startswith(STAGE)]


@dataclass(frozen=True)
class Interfaces:
    """The forms of what travels between the processes of a pipeline, for batches of one form.

    Attributes:
        form: The form of the batches.
        between: The interface behind each process; the last one is that of the features.
        outputs: The shape, without the rows, and the type of what each group of heads puts out.
    """

    form: Form
    between: list[StageInterface]
    outputs: list[tuple[tuple[int, ...], torch.dtype]]


@torch.no_grad()
def probe_interfaces(model: ShardableModel, inputs: Inputs, place: PipelineRank) -> Interfaces:
    """Sends the first row of a batch through the pipeline; every process must call this.

    Args:
        model: The model; each process has its own stages.
        inputs: The inputs of the batch.
        place: The place of this process.
    """
    state: object = make_input_builder(inputs)(*(x[:1] for x in list_inputs(inputs)))
    between: list[StageInterface] = []
    outputs: list[list[tuple[tuple[int, ...], torch.dtype]]] = [[]]
    with evaluation_mode(model):
        for rank in range(place.ranks):
            here = rank == place.rank
            for path in place.stages if here else ():
                state = model.get_submodule(path)(state)

            # the process that has run its stages tells the others, and sends them the row
            message = [StageInterface.of(cast(State, state)) if here else None]
            dist.broadcast_object_list(message, rank, group=place.hosts)
            interface = message[0]
            assert interface is not None
            between.append(interface)
            x = interface.empty(1, place.device)
            if here:
                x = interface.pack(cast(State, state))
            dist.broadcast(x, rank)
            state = interface.unpack(x)
        if place.is_last:
            features = dict.fromkeys(model.tasks, cast(Tensor, state))
            outputs = [[(tuple(o.shape[1:]), o.dtype) for o in model.heads(features)]]
    dist.broadcast_object_list(outputs, place.ranks - 1, group=place.hosts)
    return Interfaces(describe_form(inputs, place.device), between, outputs[0])


def describe_form(inputs: Inputs, device: torch.device) -> Form:
    """Returns the form of a batch, from which the sizes of everything that travels follow."""
    names = () if isinstance(inputs, Tensor) else tuple(sorted(inputs))
    tensors = tuple((tuple(x.shape[1:]), x.dtype) for x in list_inputs(inputs))
    return names, tensors, torch.is_autocast_enabled(device.type)


@contextmanager
def evaluation_mode(model: ShardableModel) -> Iterator[None]:
    """Puts a model and all its modules in evaluation mode, and each back in the end."""
    before = {m: m.training for m in model.modules()}
    for m in before:
        m.training = False
    try:
        yield
    finally:
        for m, training in before.items():
            m.training = training
