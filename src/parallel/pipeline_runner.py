"""The network of a model over the processes of a pipeline: forward passes, and scheduled steps."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

from src.batch import Batch
from src.errors import UserError
from src.parallel.scheduled_step import ScheduledStep
from src.parallel.stages import Chunk, StageInterface, list_inputs, make_input_builder
from src.runner import (
    Inputs,
    Runner,
    ScheduledGradients,
    ShardableModel,
    StagedModule,
    State,
    count_rows,
)

STAGE = "sharing.encoder.stages."
ScheduleName = Literal["gpipe", "1f1b"]

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


class PipelineRunner(Runner):
    """Runs a network whose stages are spread over processes.

    Args:
        place: The place of this process.
        micro_batches: The number of slices of a step's rows.
        schedule: The order of forward and backward passes of the slices.
        precision: Gives the context in which the network runs.
        balancer_parameters: Yields the parameters of the balancer, which every process holds.
    """

    def __init__(
        self,
        place: PipelineRank,
        micro_batches: int,
        schedule: ScheduleName,
        precision: Callable[[], AbstractContextManager[object]],
        balancer_parameters: Callable[[], Iterable[nn.Parameter]],
    ) -> None:
        self.place = place
        self.micro_batches = micro_batches
        self.schedule = schedule
        self.precision = precision
        self.balancer_parameters = balancer_parameters

        # by the form of a batch: what each process sends on, the features at the end; and the
        # shapes and types of what the heads put out
        self._interfaces: dict[Form, list[StageInterface]] = {}
        self._outputs: dict[Form, list[tuple[tuple[int, ...], torch.dtype]]] = {}
        self._schedules: dict[tuple[Form, int], tuple[Chunk, ScheduleGPipe | Schedule1F1B]] = {}
        # the form and the number of rows of the latest forward pass
        self._latest: tuple[Form, int] | None = None
        self._step: ScheduledStep | None = None

    # -- forward passes alone ----------------------------------------------------------------------
    def features(self, model: ShardableModel, inputs: Inputs) -> Mapping[str, Tensor]:
        """Returns {task: features} on the last process, and empty tensors on the others.

        Raises:
            UserError: Gradients are wanted.
        """
        if torch.is_grad_enabled():
            raise UserError(
                "--strategy pipeline takes gradients by its schedule alone, and no task's for "
                "itself: set --watch.geometry_every 0"
            )
        form, interfaces = self._find_interfaces(model, inputs)
        rows = count_rows(inputs)
        rank = self.place.rank
        self._latest = form, rows
        chunk = self._make_chunk(model, inputs)
        self._begin_step(model, chunk, rows)

        # while this process works on a slice, the last one is on its way to the next process
        sent: list[tuple[dist.Work | None, Tensor]] = []
        found: list[Tensor] = []
        size = -(-rows // self.micro_batches)
        for first in range(0, rows, size):
            count = min(size, rows - first)
            if rank:
                arrived = [interfaces[rank - 1].empty(count, self.place.device)]
                dist.recv(arrived[0], rank - 1)
            else:
                arrived = [x[first : first + count] for x in list_inputs(inputs)]
            x = chunk(*arrived)
            if self.place.is_last:
                found.append(unpack_features(interfaces[rank], x))
            else:
                sent.append((dist.isend(x, rank + 1), x))
        for work, _ in sent:
            assert work is not None
            work.wait()
        features = torch.cat(found) if self.place.is_last else torch.empty(0)
        return dict.fromkeys(model.tasks, features)

    def outputs(self, model: ShardableModel, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Returns the outputs of the heads, which the last process runs, on all processes."""
        assert self._latest is not None
        form, rows = self._latest
        if self.place.is_last:
            found = [out.contiguous() for out in model.heads(features)]
        else:
            found = []
            for shape, kind in self._outputs[form]:
                found.append(torch.empty(rows, *shape, dtype=kind, device=self.place.device))
        for out in found:
            dist.broadcast(out, self.place.ranks - 1)
        return found

    @torch.no_grad()
    def _find_interfaces(
        self, model: ShardableModel, inputs: Inputs
    ) -> tuple[Form, list[StageInterface]]:
        """Returns the form of a batch, and what each process sends on, found with a single row."""
        form = describe_form(inputs, self.place.device)
        if form in self._interfaces:
            return form, self._interfaces[form]

        place = self.place
        state: object = make_input_builder(inputs)(*(x[:1] for x in list_inputs(inputs)))
        interfaces: list[StageInterface] = []
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
                interfaces.append(interface)
                x = interface.empty(1, place.device)
                if here:
                    x = interface.pack(cast(State, state))
                dist.broadcast(x, rank)
                state = interface.unpack(x)
            if place.is_last:
                features = dict.fromkeys(model.tasks, cast(Tensor, state))
                outputs = [[(tuple(o.shape[1:]), o.dtype) for o in model.heads(features)]]
        dist.broadcast_object_list(outputs, place.ranks - 1, group=place.hosts)
        self._interfaces[form] = interfaces
        self._outputs[form] = outputs[0]
        return form, interfaces

    def _make_chunk(self, model: ShardableModel, inputs: Inputs) -> Chunk:
        """Returns the stages of this process, for batches like this one."""
        _, interfaces = self._find_interfaces(model, inputs)
        rank = self.place.rank
        below = interfaces[rank - 1].unpack if rank else make_input_builder(inputs)
        stages = [model.get_submodule(path) for path in self.place.stages]
        encoder = cast(StagedModule, model.get_submodule("sharing.encoder"))
        return Chunk(stages, encoder.recompute, below, interfaces[rank], self.precision)

    def _begin_step(self, model: ShardableModel, chunk: Chunk, rows: int) -> None:
        """Prepares for the first slice of some rows."""
        chunk.begin_step(rows)
        # keys that the processes below draw are drawn here, too, so that the next ones are ours
        for _ in range(self.place.draws_below if model.training else 0):
            torch.randint(2**62, ())

    # -- one training step -------------------------------------------------------------------------
    def take_gradients(self, model: ShardableModel, batch: Batch) -> ScheduledGradients:
        """Runs the schedule of a step, forward and backward, and takes the gradients out again.

        Lightning's own backward pass puts them where they belong.
        """
        rows = count_rows(batch.inputs)
        size = -(-rows // self.micro_batches)
        chunk, schedule = self._find_schedule(model, batch.inputs, size)
        _, interfaces = self._find_interfaces(model, batch.inputs)
        self._begin_step(model, chunk, rows)
        step = ScheduledStep(model, batch, self.micro_batches, interfaces[-1], self.precision)
        step.decides_at_end = self.schedule == "gpipe"
        self._step = step

        # gradients of earlier micro-batches are put aside: the schedule's own are to be read
        own = [p for path in self.place.paths for p in model.get_submodule(path).parameters()]
        own = [p for p in own if p.requires_grad]
        earlier = [p.grad for p in own]
        for p in own:
            p.grad = None

        device = self.place.device
        if self.place.is_last and not step.decides_at_end:
            # these weights do not depend on the losses
            step.decide(torch.zeros(len(model.names), device=device))
        # each chunk has its own autocast, and backward passes have none
        with torch.autocast(device.type, enabled=False):
            self._run(schedule, batch.inputs, size * self.micro_batches)
        sums_T = torch.empty_like(step.counts_T, dtype=torch.float64)
        if self.place.is_last:
            sums_T = step.sum_losses().double()
        dist.broadcast(sums_T, self.place.ranks - 1)
        if not self.place.is_last or not step.decides_at_end:
            step.decide(sums_T.to(torch.get_default_dtype()))

        found: list[tuple[Tensor, Tensor]] = [(p, p.grad) for p in own if p.grad is not None]
        for p, gradient in zip(own, earlier, strict=True):
            p.grad = gradient
        return step.collect(found, device)

    def _find_schedule(
        self, model: ShardableModel, inputs: Inputs, size: int
    ) -> tuple[Chunk, ScheduleGPipe | Schedule1F1B]:
        """Returns the stages of this process, and the order of its passes.

        Args:
            model: The model.
            inputs: The inputs of a batch.
            size: The number of rows of a slice.
        """
        form, interfaces = self._find_interfaces(model, inputs)
        key = form, size
        if key in self._schedules:
            return self._schedules[key]
        if len(self._schedules) > 7:
            # each keeps room for what arrives
            self._schedules.clear()

        rank = self.place.rank
        chunk = self._make_chunk(model, inputs)
        if rank:
            arriving = [interfaces[rank - 1].empty(size, "meta").requires_grad_()]
        else:
            arriving = []
            for x in list_inputs(inputs):
                arriving.append(torch.empty(size, *x.shape[1:], dtype=x.dtype, device="meta"))
        leaving = interfaces[rank].empty(size, "meta").requires_grad_()
        stage = PipelineStage(
            chunk,
            rank,
            self.place.ranks,
            self.place.device,
            input_args=tuple(arriving),
            output_args=(leaving,),
        )
        kind = ScheduleGPipe if self.schedule == "gpipe" else Schedule1F1B
        schedule = kind(stage, self.micro_batches, loss_fn=self._slice_loss, scale_grads=False)
        self._schedules[key] = chunk, schedule
        return chunk, schedule

    def _slice_loss(self, x: Tensor, number: Tensor) -> Tensor:
        """Returns the scalar from which the backward pass of a slice starts."""
        # a schedule is kept for many steps
        assert self._step is not None
        return self._step.slice_loss(x, int(number))

    def _run(self, schedule: ScheduleGPipe | Schedule1F1B, inputs: Inputs, rows: int) -> None:
        """Runs one step of the schedule, on slices of one size.

        Args:
            schedule: The schedule.
            inputs: The inputs of the batch.
            rows: The rows of all slices; the first row fills up the last of them.
        """
        arrived: list[Tensor] = []
        if self.place.rank == 0:
            short = rows - count_rows(inputs)
            for x in list_inputs(inputs):
                filler = x[:1].expand(short, *x.shape[1:])
                arrived.append(torch.cat([x, filler]) if short else x)
        if self.place.is_last:
            numbers = torch.arange(self.micro_batches)
            schedule.step(*arrived, target=numbers, losses=[], return_outputs=False)
        else:
            schedule.step(*arrived, return_outputs=False)

    def clip_gradients(
        self, parameters: Iterable[nn.Parameter], limit: float, by: str | None
    ) -> None:
        """Clips gradients to a norm over all processes, or each value."""
        found = [p for p in parameters if p.grad is not None]
        if by == "value":
            torch.nn.utils.clip_grad_value_(found, limit)
            return
        # the gradients that every process holds count once
        everywhere = {id(p) for p in self.balancer_parameters()}
        own = [p for p in found if self.place.rank == 0 or id(p) not in everywhere]
        norm = torch.nn.utils.get_total_norm([p.grad for p in own if p.grad is not None])
        square = norm.double().square().to(self.place.device)
        dist.all_reduce(square)
        torch.nn.utils.clip_grads_with_norm_(found, limit, square.sqrt().float())


def unpack_features(interface: StageInterface, x: Tensor) -> Tensor:
    """Returns the features that have travelled as a tensor."""
    features = interface.unpack(x)
    assert isinstance(features, Tensor)
    return features


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
