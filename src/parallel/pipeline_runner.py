"""The network of a model over the processes of a pipeline: forward passes, and scheduled steps."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

from src.batch import Batch
from src.errors import UserError
from src.parallel.pipeline_interfaces import (
    Form,
    Interfaces,
    PipelineRank,
    describe_form,
    probe_interfaces,
)
from src.parallel.scheduled_step import ScheduledStep
from src.parallel.stages import Chunk, StageInterface, list_inputs, make_input_builder
from src.runner import (
    Inputs,
    Runner,
    ScheduledGradients,
    ShardableModel,
    StagedModule,
    count_rows,
)

ScheduleName = Literal["gpipe", "1f1b"]
Schedule = ScheduleGPipe | Schedule1F1B


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

        self._interfaces: dict[Form, Interfaces] = {}
        # by the form of a batch and the rows of a slice
        self._schedules: dict[tuple[Form, int], tuple[Chunk, Schedule]] = {}
        # the interfaces and the number of rows of the latest forward pass
        self._latest: tuple[Interfaces, int] | None = None
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
        interfaces = self._find_interfaces(model, inputs)
        rows = count_rows(inputs)
        rank = self.place.rank
        self._latest = interfaces, rows
        chunk = self._make_chunk(model, inputs, interfaces)
        self._begin_step(model, chunk, rows)

        # while this process works on a slice, the last one is on its way to the next process
        sent: list[tuple[dist.Work | None, Tensor]] = []
        found: list[Tensor] = []
        size = -(-rows // self.micro_batches)
        for first in range(0, rows, size):
            count = min(size, rows - first)
            if rank:
                arrived = [interfaces.between[rank - 1].empty(count, self.place.device)]
                dist.recv(arrived[0], rank - 1)
            else:
                arrived = [x[first : first + count] for x in list_inputs(inputs)]
            x = chunk(*arrived)
            if self.place.is_last:
                found.append(unpack_features(interfaces.between[rank], x))
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
        interfaces, rows = self._latest
        if self.place.is_last:
            found = [out.contiguous() for out in model.heads(features)]
        else:
            found = []
            for shape, kind in interfaces.outputs:
                found.append(torch.empty(rows, *shape, dtype=kind, device=self.place.device))
        for out in found:
            dist.broadcast(out, self.place.ranks - 1)
        return found

    def _find_interfaces(self, model: ShardableModel, inputs: Inputs) -> Interfaces:
        """Returns what travels between the processes for batches like this one."""
        form = describe_form(inputs, self.place.device)
        if form not in self._interfaces:
            self._interfaces[form] = probe_interfaces(model, inputs, self.place)
        return self._interfaces[form]

    def _make_chunk(self, model: ShardableModel, inputs: Inputs, interfaces: Interfaces) -> Chunk:
        """Returns the stages of this process, for batches like this one."""
        rank = self.place.rank
        below = interfaces.between[rank - 1].unpack if rank else make_input_builder(inputs)
        stages = [model.get_submodule(path) for path in self.place.stages]
        encoder = cast(StagedModule, model.get_submodule("sharing.encoder"))
        return Chunk(stages, encoder.recompute, below, interfaces.between[rank], self.precision)

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
        interfaces = self._find_interfaces(model, batch.inputs)
        chunk, schedule = self._find_schedule(model, batch.inputs, interfaces, size)
        self._begin_step(model, chunk, rows)
        top = interfaces.between[-1]
        step = ScheduledStep(model, batch, self.micro_batches, top, self.precision)
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
        self, model: ShardableModel, inputs: Inputs, interfaces: Interfaces, size: int
    ) -> tuple[Chunk, Schedule]:
        """Returns the stages of this process, and the order of its passes.

        Args:
            model: The model.
            inputs: The inputs of a batch.
            interfaces: What travels between the processes for batches like this one.
            size: The number of rows of a slice.
        """
        key = interfaces.form, size
        if key in self._schedules:
            return self._schedules[key]
        if len(self._schedules) > 7:
            # each keeps room for what arrives
            self._schedules.clear()

        rank = self.place.rank
        chunk = self._make_chunk(model, inputs, interfaces)
        if rank:
            arriving = [interfaces.between[rank - 1].empty(size, "meta").requires_grad_()]
        else:
            arriving = []
            for x in list_inputs(inputs):
                arriving.append(torch.empty(size, *x.shape[1:], dtype=x.dtype, device="meta"))
        leaving = interfaces.between[rank].empty(size, "meta").requires_grad_()
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

    def _run(self, schedule: Schedule, inputs: Inputs, rows: int) -> None:
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
