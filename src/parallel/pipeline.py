"""Pipeline parallelism: each process runs some stages of one encoder, on slices of the batch in turn."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from itertools import accumulate
from typing import Any, Literal

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.optim import Optimizer

from src import collectives
from src.batch import Batch
from src.errors import UserError
from src.launch.launcher import Launches
from src.parallel.stages import (
    Chunk,
    StageInterface,
    Weighed,
    balanced,
    flat,
    rows_of,
    tried,
    unflat,
)
from src.parallel.strategy import WorkerTimeout, refuse_second_models, refuse_timeout
from src.planning.communication import Traffic
from src.runner import Inputs, Runner, ScheduledGradients, ShardableModel

OTHERS = "use --strategy ddp, fsdp or placement"
STAGE = "sharing.encoder.stages."


class PipelineRunner(Runner):
    """Runs a network whose stages are spread over processes.

    Args:
        pipeline: The strategy that has spread them.
    """

    def __init__(self, pipeline: "Pipeline") -> None:
        self.pipeline = pipeline
        self.clip_gradients = pipeline.clip_gradients

    def features(self, model: ShardableModel, inputs: Inputs) -> Mapping[str, Tensor]:
        """Returns {task: features} on the last rank, and empty tensors on the others."""
        return dict.fromkeys(model.tasks, self.pipeline.features_of(inputs))

    def outputs(self, model: ShardableModel, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Returns the outputs of the heads, which the last rank runs, on all ranks."""
        return self.pipeline.outputs_of(features)

    def take_gradients(self, model: ShardableModel, batch: Batch) -> ScheduledGradients:
        """Runs the schedule of a step, forward and backward."""
        return self.pipeline.take_gradients(batch)


class Pipeline(WorkerTimeout, Launches, DDPStrategy):
    """Rank r runs the r-th run of stages, and the last one the heads too; all read the same batch, slice by slice.

    In a step every rank works on another slice, and sends what comes out to the next one, then
    gradients back. Only weights of its own stages are in a rank's memory, with their gradients and
    optimizer states. Losses, balancer and metrics are the same on all ranks, and checkpoints those
    that one device writes.

    Args:
        micro_batches: Into how many slices a step's rows are cut. Of M slices on R ranks a share (R
            - 1) / (M + R - 1) of the time is spent waiting.
        schedule: gpipe: all slices forward, then all backward (Huang et al., "GPipe", NeurIPS
            2019). 1f1b: one backward as soon as one forward is through, so that a rank keeps what
            at most R slices need (Narayanan et al., "PipeDream", SOSP 2019); for balancers whose
            weights are known before the losses.
        cut: How many stages each rank has; null: so that the largest share of the weights is
            smallest.
        timeout: Seconds that a process waits for the others before it gives up.
    """

    strategy_name = "pipeline"
    replicas = 1  # every rank reads all rows
    rows: int | None = None  # of a step, where they are known before it starts

    def __init__(
        self,
        micro_batches: int = 4,
        schedule: Literal["gpipe", "1f1b"] = "gpipe",
        cut: list[int] | None = None,
        timeout: float = 600.0,
    ) -> None:
        super().__init__(timeout=timedelta(seconds=timeout))
        self.micro_batches, self.schedule, self.cut = micro_batches, schedule, cut
        self._alone: Any = None  # the group of this process
        self._hosts: Any = None  # that of all processes, for what is on CPUs
        self._draws: list[int] | None = None  # keys of random layers that each stage takes
        self._own: list[str] = []  # the paths of what this rank runs
        self._known: dict[
            Any, list[StageInterface]
        ] = {}  # by the form of a batch, what travels over each border, the features at the end
        self._outputs: dict[
            Any, list[tuple[tuple[int, ...], torch.dtype]]
        ] = {}  # and what the heads put out
        self._built: dict[Any, tuple[Chunk, Any]] = {}
        self._latest: tuple[Any, int] | None = None  # the form and the rows of what runs now

    # -- what is known before any process starts ---------------------------------------------------
    def check(self, model: Any) -> None:
        """Looks at the model.

        Raises:
            UserError: It is no chain of stages, the balancer needs what slices cannot give, or a
                setting does not fit.
        """
        refuse_timeout(self._timeout)
        if self.rows is not None:
            self._check_slices(self.rows)
        if self.micro_batches < 1:
            raise UserError(
                f"strategy.micro_batches is {self.micro_batches}; it must be at least 1"
            )
        if self.schedule not in ("gpipe", "1f1b"):
            raise UserError(f"strategy.schedule is '{self.schedule}'; it must be gpipe or 1f1b")
        balancer, sharing = model.balancer, model.sharing
        name, kind = type(balancer).__name__, type(sharing).__name__
        if balancer.level is not None:
            raise UserError(
                f"--model.balancer {name} weighs gradients of tasks, and a pipeline's schedule has one backward pass for all: "
                f"{OTHERS}, or a balancer that looks at losses alone"
            )
        if balancer.needs_lookahead:
            raise UserError(
                f"{name} takes a step and takes it back, for which a pipeline has no schedule: {OTHERS}"
            )
        if self.schedule == "1f1b" and not balancer.weights_before_losses:
            raise UserError(
                f"--model.balancer {name} weighs tasks by the losses of the step, and with 1f1b the first slice goes backward "
                "before the last one's losses are there: set --strategy.schedule gpipe"
            )
        stages = self._stages(model)
        inside = {id(p) for stage in stages for p in stage.parameters()}
        if (
            not sharing.one_feature
            or not stages
            or any(id(p) not in inside for p in sharing.parameters())
        ):
            raise UserError(
                f"--strategy pipeline runs one chain of stages, which {kind} with these settings is not: set --model.sharing "
                f"HardSharing without until, or {OTHERS}"
            )
        if sharing.penalty() is not None:
            raise UserError(
                f"{kind} has a penalty on weights, of which a rank of a pipeline has only its own: {OTHERS}"
            )
        if self.precision_plugin.precision == "16-mixed":
            raise UserError(
                "--precision 16-mixed scales losses that a pipeline's schedule does not see: use bf16-mixed"
            )
        self.counts(model, self.ranks)
        self._draws, _ = tried(model, stages)

    def _check_slices(self, rows: int) -> None:
        if rows < self.micro_batches:
            raise UserError(
                f"strategy.micro_batches is {self.micro_batches}, but data.batch_size is {rows}: a slice needs a row"
            )

    @property
    def ranks(self) -> int:
        """Processes, over all nodes."""
        return max(self.num_nodes * self.num_processes, 1)

    @staticmethod
    def _stages(model: Any) -> list[nn.Module]:
        return [part for path, part in model.parts().items() if path.startswith(STAGE)]

    def counts(self, model: Any, ranks: int) -> list[int]:
        """How many stages each of so many ranks has.

        Raises:
            UserError: There are too few, or the cut is of others.
        """
        stages = self._stages(model)
        if ranks > len(stages):
            raise UserError(
                f"--strategy pipeline: {ranks} devices need a stage each, but {type(model.sharing.encoder).__name__} has "
                f"{len(stages)}: use --devices {len(stages)}, or an encoder of more depth"
            )
        if self.cut is None:
            sizes = [
                sum(p.numel() * p.element_size() for p in stage.parameters()) for stage in stages
            ]
            sizes[-1] += sum(p.numel() * p.element_size() for p in model.heads.parameters())
            return balanced(sizes, ranks)
        if len(self.cut) != ranks or sum(self.cut) != len(stages) or min(self.cut) < 1:
            raise UserError(
                f"strategy.cut is {self.cut}; it must be {ranks} numbers of at least 1, one for each device, of which the sum is "
                f"{len(stages)}, the stages of {type(model.sharing.encoder).__name__}"
            )
        return self.cut

    def _dealt(self, model: Any, ranks: int) -> list[list[str]]:
        """The paths of the parts of each rank."""
        parts = list(model.parts())
        stages = [path for path in parts if path.startswith(STAGE)]
        ends = list(accumulate(self.counts(model, ranks)))
        found = [
            stages[end - count : end]
            for end, count in zip(ends, self.counts(model, ranks), strict=True)
        ]
        found[-1] += [path for path in parts if not path.startswith(STAGE)]
        return found

    def arrangement(self, devices: int) -> str:
        """How so many devices work together, in words."""
        return f"stages in {devices} runs, {self.micro_batches} slices"

    def holds(self, model: Any, devices: int) -> list[dict[str, float]]:
        """What share of each part's parameters lies on each device."""
        return [
            {**dict.fromkeys(paths, 1.0), "balancer": 1.0} for paths in self._dealt(model, devices)
        ]

    def traffic(self, model: Any, devices: int) -> list[Traffic]:
        """What a device sends or receives in a step over its widest border; where sequences differ, of five tokens."""
        if devices == 1:
            return []
        _, borders = tried(model, self._stages(model))
        ends = list(accumulate(self.counts(model, devices)))[:-1]
        x = max((borders[end - 1].empty(1, "meta") for end in ends), key=lambda x: x.nbytes)
        passes = 3 if model.balancer.needs_reevaluation else 2
        sums = Traffic("sums of losses", 1, len(model.names) * 8)
        return [
            Traffic(
                "activations and their gradients",
                passes * self.micro_batches,
                passes * x.nbytes,
                each_row=True,
            ),
            sums,
        ]

    # -- processes and modules ---------------------------------------------------------------------
    def setup_environment(self) -> None:
        """Every rank reads the whole batch: each is a replica's only process among those that share the batch.

        Raises:
            UserError: There are fewer rows than slices, or a callback that needs a whole model.
        """
        trainer: Any = self._network.trainer
        rows = getattr(trainer.datamodule, "batch_size", self.micro_batches)
        if trainer.state.fn == TrainerFn.FITTING:
            self._check_slices(rows)
        refuse_second_models(trainer.callbacks, "pipeline")
        super().setup_environment()
        if self._alone is None:
            self._alone = [dist.new_group([rank]) for rank in range(self.world_size)][
                self.global_rank
            ]
            self._hosts = dist.new_group(backend="gloo")
        collectives.use(self._alone)

    def setup(self, trainer: L.Trainer) -> None:
        """Lets go of what others run, once, and takes the place of the encoder and the heads."""
        model: Any = self.lightning_module
        if not self._own:
            if self._draws is None:
                self.check(model)
            self._own = self._dealt(model, self.world_size)[self.global_rank]
            for path, part in model.parts().items():
                if path not in self._own:
                    part.to("meta")
                    part._apply = lambda *_, part=part, **__: (
                        part
                    )  # what is elsewhere cannot be moved
        super(DDPStrategy, self).setup(trainer)
        self._built = {}
        model.runner = PipelineRunner(self)

    def _setup_model(self, model: Any) -> Any:
        """There is no wrapper."""
        return model

    @property
    def _network(self) -> Any:
        return self.lightning_module

    def teardown(self) -> None:
        """Gives the encoder and the heads their place back."""
        model: Any = self.lightning_module
        if model is not None:
            model.runner = Runner()
        collectives.use(None)
        super().teardown()

    def predict_step(self, *args: Any, **kwargs: Any) -> Any:
        """All ranks have the same rows: those of the first count."""
        ids, outputs = super().predict_step(*args, **kwargs)
        return (
            (ids, outputs)
            if self.is_global_zero
            else (ids[:0], {name: output[:0] for name, output in outputs.items()})
        )

    # -- forward passes alone ----------------------------------------------------------------------
    @property
    def _last(self) -> bool:
        return self.global_rank == self.world_size - 1

    def _form(self, inputs: Any) -> Any:
        """What the sizes of all that travels are a function of."""
        names = () if isinstance(inputs, Tensor) else tuple(sorted(inputs))
        tensors = tuple((tuple(x.shape[1:]), x.dtype) for x in flat(inputs))
        return names, tensors, torch.is_autocast_enabled(self.root_device.type)

    @torch.no_grad()
    def _borders(self, inputs: Any) -> tuple[Any, list[StageInterface]]:
        """The form of a batch, and what travels over the border above each rank, found out with a single row."""
        form = self._form(inputs)
        if form not in self._known:
            state: Any = unflat(inputs)(*(x[:1] for x in flat(inputs)))
            borders: list[StageInterface] = []
            outputs: list[Any] = [None]
            with evaluating(self._network):
                for rank in range(self.world_size):
                    here = rank == self.global_rank
                    if here:
                        for path in self._own:
                            state = (
                                self._network.get_submodule(path)(state)
                                if path.startswith(STAGE)
                                else state
                            )
                    told = [StageInterface.of(state) if here else None]
                    dist.broadcast_object_list(told, rank, group=self._hosts)
                    assert told[0] is not None
                    borders.append(told[0])
                    x = borders[-1].pack(state) if here else borders[-1].empty(1, self.root_device)
                    dist.broadcast(x, rank)
                    state = borders[-1].unpack(x)
                if self._last:
                    outputs = [
                        [
                            (tuple(out.shape[1:]), out.dtype)
                            for out in self._network.heads(self._features(state))
                        ]
                    ]
            dist.broadcast_object_list(outputs, self.world_size - 1, group=self._hosts)
            self._known[form], self._outputs[form] = borders, outputs[0]
        return form, self._known[form]

    def _features(self, z: Tensor) -> dict[str, Tensor]:
        return dict.fromkeys(self._network.tasks, z)

    def _chunk(self, inputs: Any) -> Chunk:
        """What this rank runs, for batches like this one."""
        _, borders = self._borders(inputs)
        below = borders[self.global_rank - 1].unpack if self.global_rank else unflat(inputs)
        stages = [self._network.get_submodule(path) for path in self._own if path.startswith(STAGE)]
        recompute = self._network.sharing.encoder.recompute
        return Chunk(
            stages,
            recompute,
            below,
            borders[self.global_rank],
            self.precision_plugin.forward_context,
        )

    def _begin(self, chunk: Chunk, rows: int) -> None:
        """Before the first slice: keys that stages of ranks below draw are drawn here too, so that the next ones are ours."""
        chunk.begin(rows)
        assert self._draws is not None
        first = int(self._own[0].removeprefix(STAGE))
        for _ in range(sum(self._draws[:first]) if self._network.training else 0):
            torch.randint(2**62, ())

    def features_of(self, inputs: Any) -> Tensor:
        """Stands in for the encoder's forward: features on the last rank, nothing on the others.

        Raises:
            UserError: Gradients are wanted.
        """
        if torch.is_grad_enabled():
            raise UserError(
                "--strategy pipeline takes gradients by its schedule alone, and no task's for itself: set --watch.geometry_every 0"
            )
        form, borders = self._borders(inputs)
        rows, rank = rows_of(inputs), self.global_rank
        self._latest = form, rows
        chunk = self._chunk(inputs)
        self._begin(chunk, rows)
        sent: list[tuple[Any, Tensor]] = []
        found = []
        size = -(-rows // self.micro_batches)
        for first in range(0, rows, size):
            count = min(size, rows - first)
            if rank:
                arrived = [borders[rank - 1].empty(count, self.root_device)]
                dist.recv(arrived[0], rank - 1)
            else:
                arrived = [x[first : first + count] for x in flat(inputs)]
            x = chunk(*arrived)
            if self._last:
                found.append(borders[rank].unpack(x))
            else:
                sent.append((dist.isend(x, rank + 1), x))
        for work, _ in sent:
            work.wait()
        return torch.cat(found) if self._last else torch.empty(0)  # type: ignore[arg-type]

    def outputs_of(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Stands in for the heads' forward: the last rank runs them, and all have what they put out."""
        assert self._latest is not None
        form, rows = self._latest
        found = [
            torch.empty(rows, *shape, dtype=kind, device=self.root_device)
            for shape, kind in self._outputs[form]
        ]
        if self._last:
            found = [out.contiguous() for out in self._network.heads(features)]
        for out in found:
            dist.broadcast(out, self.world_size - 1)
        return found

    # -- one training step -------------------------------------------------------------------------
    def take_gradients(self, batch: Any) -> ScheduledGradients:
        """Runs the schedule, and takes the gradients out again.

        Lightning's own backward pass puts them where they belong.
        """
        model, slices = self._network, self.micro_batches
        rows = rows_of(batch.inputs)
        size = -(-rows // slices)
        (chunk, schedule), (_, borders) = (
            self._schedule(batch.inputs, size),
            self._borders(batch.inputs),
        )
        self._begin(chunk, rows)
        learnt = [p for p in model.balancer.parameters() if p.requires_grad]
        counts_T = model.heads.label_counts(batch.targets)
        done: list[Tensor] = []  # sums of the losses of the slices so far
        decided: list[Any] = []

        def decide(sums_T: Tensor) -> None:
            """Asks the balancer: the value, sums and counts, d total / d sums, and the gradients of what it learns."""
            with torch.enable_grad(), self.precision_plugin.forward_context():
                places = [sums_T.requires_grad_(), *learnt]
                value, totals_2T = model.step.weigh_losses(sums_T, counts_T, batch)
                gradients = torch.autograd.grad(value, places, materialize_grads=True)
            decided[:] = value.detach(), totals_2T, *gradients

        def loss(x: Tensor, slice_: Tensor) -> Tensor:
            first = int(slice_) * size
            real = min(size, rows - first)
            if real > 0:
                with self.precision_plugin.forward_context():
                    z = borders[-1].unpack(x[:real])
                    targets = {
                        name: target[first : first + real] for name, target in batch.targets.items()
                    }
                    sums_T, _ = model.heads.loss_sums(model.heads(self._features(z)), targets)  # type: ignore[arg-type]
                done.append(sums_T.detach())
                value = Weighed.apply(sums_T, lambda: decided[2])
            else:
                value = x.flatten()[:0].sum()
            if self.schedule == "gpipe" and int(slice_) == slices - 1:
                decide(torch.stack(done).sum(0))
            return value

        own = [
            p
            for path in self._own
            for p in model.get_submodule(path).parameters()
            if p.requires_grad
        ]
        kept = [p.grad for p in own]
        for p in own:
            p.grad = None
        if self._last and self.schedule == "1f1b":
            decide(
                torch.zeros(
                    len(model.names), device=self.root_device, dtype=torch.get_default_dtype()
                )
            )
        self._loss = loss
        # each chunk has its own autocast, and backward passes have none
        with torch.autocast(self.root_device.type, enabled=False):
            self._run(schedule, batch.inputs, size * slices)
        sums_T = (
            torch.stack(done).sum(0).double()
            if self._last
            else torch.empty_like(counts_T, dtype=torch.float64)
        )
        dist.broadcast(sums_T, self.world_size - 1)
        if not self._last or self.schedule == "1f1b":
            decide(sums_T.to(torch.get_default_dtype()))
        value, totals_2T, _, *of_learnt = decided
        anchor = torch.zeros(
            (), device=self.root_device, requires_grad=True
        )  # a rank may have nothing that trains
        pairs = [(p, p.grad) for p in own if p.grad is not None] + [
            *zip(learnt, of_learnt, strict=True),
            (anchor, anchor.detach()),
        ]
        for p, gradient in zip(own, kept, strict=True):
            p.grad = gradient
        gradients = [gradient for _, gradient in pairs]
        parameters: list[Tensor] = [p for p, _ in pairs]
        return ScheduledGradients(value, gradients, parameters, totals_2T)

    def _schedule(self, inputs: Any, size: int) -> tuple[Chunk, Any]:
        """What this rank runs, and in which order, for slices of so many rows."""
        form, borders = self._borders(inputs)
        key = form, size
        if key not in self._built:
            if len(self._built) > 7:  # each keeps room for what arrives
                self._built.clear()
            rank, chunk = self.global_rank, self._chunk(inputs)
            if rank:
                arriving = [borders[rank - 1].empty(size, "meta").requires_grad_()]
            else:
                arriving = [
                    torch.empty(size, *x.shape[1:], dtype=x.dtype, device="meta")
                    for x in flat(inputs)
                ]
            leaving = borders[rank].empty(size, "meta").requires_grad_()
            sizes: dict[str, Any] = {"input_args": tuple(arriving), "output_args": (leaving,)}
            stage = PipelineStage(chunk, rank, self.world_size, self.root_device, **sizes)
            kind = ScheduleGPipe if self.schedule == "gpipe" else Schedule1F1B
            loss = lambda x, slice_: self._loss(x, slice_)  # that of the step  # noqa: E731
            self._built[key] = (
                chunk,
                kind(stage, self.micro_batches, loss_fn=loss, scale_grads=False),
            )
        return self._built[key]

    def _run(self, schedule: Any, inputs: Any, rows: int) -> None:
        """One step of the schedule, on slices of one size: the first row fills up the last of them."""
        arrived: list[Tensor] = []
        if self.global_rank == 0:
            short = rows - rows_of(inputs)
            arrived = [
                torch.cat([x, x[:1].expand(short, *x.shape[1:])]) if short else x
                for x in flat(inputs)
            ]
        more = {"target": torch.arange(self.micro_batches), "losses": []} if self._last else {}
        schedule.step(*arrived, return_outputs=False, **more)

    def alike(self) -> list[tuple[dist.ProcessGroup | None, dict[str, Tensor]]]:
        """What is the same on all ranks: all that the balancer has."""
        balancer = self._network.balancer
        named = {
            f"balancer.{name}": x
            for name, x in (*balancer.named_parameters(), *balancer.named_buffers())
        }
        return [(None, {name: x for name, x in named.items() if x.is_floating_point()})]

    def clip_gradients(
        self, parameters: Iterable[nn.Parameter], limit: float, by: str | None
    ) -> None:
        """Clips to a norm over all ranks, in which what every rank has counts once, or by value."""
        everywhere = {id(p) for p in self._network.balancer.parameters()}
        found = [p for p in parameters if p.grad is not None]
        if by == "value":
            torch.nn.utils.clip_grad_value_(found, limit)
            return
        counted = [
            p.grad
            for p in found
            if p.grad is not None and (self.global_rank == 0 or id(p) not in everywhere)
        ]
        square = torch.nn.utils.get_total_norm(counted).double().square().to(self.root_device)
        dist.all_reduce(square)
        torch.nn.utils.clip_grads_with_norm_(found, limit, square.sqrt().float())

    # -- checkpoints -------------------------------------------------------------------------------
    def _collected(self, mine: dict[Any, Any]) -> dict[Any, Any]:
        """What all ranks have, on the first; nothing on the others."""
        if not self.is_global_zero:
            dist.send_object_list([mine], 0, group=self._hosts)
            return {}
        for rank in range(1, self.world_size):
            theirs: list[Any] = [None]
            dist.recv_object_list(theirs, rank, group=self._hosts)
            mine = theirs[0] | mine
        return mine

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole model, as one device has it, on the first rank; nothing on the others."""
        assert self.lightning_module is not None
        state = self.lightning_module.state_dict()
        whole = self._collected(
            {name: value.cpu() for name, value in state.items() if not value.is_meta}
        )
        for name in state:
            state[name] = whole.get(name)
        return state if self.is_global_zero else {}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Every rank takes what is its own."""
        assert self.lightning_module is not None
        elsewhere = {
            name for name, value in self.lightning_module.state_dict().items() if value.is_meta
        }
        state = {
            name: value.to("meta") if name in elsewhere else value
            for name, value in checkpoint["state_dict"].items()
        }
        self.lightning_module.load_state_dict(state, strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole state, as one device has it, on the first rank; nothing on the others."""
        plain = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        saved = plain.state_dict()
        whole = self._collected(
            {n: {k: on_cpu(v) for k, v in entry.items()} for n, entry in saved["state"].items()}
        )
        return {**saved, "state": dict(sorted(whole.items()))} if self.is_global_zero else {}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Every rank takes what is its own."""
        states = []
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            numbers = [number for group in saved["param_groups"] for number in group["params"]]
            ours = {number for number, p in zip(numbers, parameters, strict=True) if not p.is_meta}
            states.append(
                {**saved, "state": {n: entry for n, entry in saved["state"].items() if n in ours}}
            )
        super().load_optimizer_state_dict({"optimizer_states": states})


def on_cpu(value: Any) -> Any:
    """A tensor on the CPU, anything else as it is."""
    return value.cpu() if isinstance(value, Tensor) else value


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """While it lasts, a module and all within are in evaluation; then each is as it was."""
    before = {m: m.training for m in module.modules()}
    for m in before:
        m.training = False
    try:
        yield
    finally:
        for m, training in before.items():
            m.training = training
