"""Plans against shards on a fake process group, and against collectives that are counted."""

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning as L
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import SingleDeviceStrategy
from rich.console import Console
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, AdamW
from torch.profiler import ProfilerActivity, profile
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

import src.balancing
from src import collectives
from src.balancing import GradDrop, LossBalancer, PCGrad, StaticWeights
from src.batch import InputShape
from src.cli.batch_sums import list_batch_sums
from src.models import MultiTaskModel
from src.models.encoders import MLP, Transformer
from src.parallel import DDP, FSDP, DDPPlacement, Pipeline, Placement
from src.parallel.sharded_runner import ShardedRunner
from src.planning.communication import Traffic, estimate_transfers
from src.planning.devices import Devices, format_bytes
from src.planning.measure import REST, Cost, collect_tensors, weigh_parts
from src.planning.memory import (
    Footprint,
    Load,
    count_task_gradients,
    measure_optimizer_ratio,
)
from src.planning.plan import Plan, compute_loads, configure_offline, make_plan
from src.planning.plan_table import (
    describe_parts,
    format_fraction,
    format_plan,
    format_ranges,
    make_table,
)
from tests.cli.calling import call, refused
from tests.integration.grid import cells
from tests.launching import only_run, read_json
from tests.models.test_matrix import SHARINGS
from tests.toy import Toy, bare_trainer

TOY = (
    "--data",
    "tests.toy.Toy",
    "--max_epochs",
    1,
    "--model.encoder.width",
    8,
    "--watch.figures_every",
    0,
    "--accelerator",
    "cpu",
)

PERCEPTRON = partial(MLP, width=20, depth=2, dropout=0.1)


class Steps(Transformer):
    """A transformer that reads each of five columns as a step of a sequence."""

    def __init__(self, shape: InputShape) -> None:
        super().__init__(InputShape((5, 1)), width=16, depth=2, heads=2, pool="mean")
        self.stages.insert(0, torch.nn.Unflatten(-1, (5, 1)))


def toy(**settings: Any) -> MultiTaskModel:
    data = Toy()
    settings = {
        "encoder": partial(MLP, width=20, depth=2),
        "scheduler": None,
        "optimizer": partial(SGD, lr=0.01),
    } | settings
    model = MultiTaskModel(data.tasks, data.input_shape, **settings)
    model.configure_model()
    return model


def plan_of(
    model: MultiTaskModel, strategy: Any, devices: Devices, rows: int = 64, **settings: Any
) -> Plan:
    strategy = strategy and configure_offline(strategy, devices, "32-true")
    costs = {part: replace(cost, activations=100) for part, cost in weigh_parts(model).items()}
    footprint = Footprint(costs, measure_optimizer_ratio(AdamW), count_task_gradients(model))
    return make_plan(
        model,
        strategy,
        devices,
        lambda rows: footprint,
        rows,
        batch_sums=partial(list_batch_sums, model),
        **settings,
    )


def text_of(plan: Plan) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(make_table(plan))
    return "\n".join(line.rstrip() for line in console.export_text().splitlines())


@pytest.fixture
def pretended() -> Iterator[Any]:
    """Makes this process one of many; the others are not there."""

    def begin(rank: int, world: int) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()
        dist.init_process_group("fake", rank=rank, world_size=world, store=FakeStore())

    yield begin
    collectives.use(None)
    if dist.is_initialized():
        dist.destroy_process_group()


def count_collectives(step: Any, before: int) -> dict[str, int]:
    """Counts the collectives of a step by kind, after some steps that do not count."""
    for _ in range(before):
        step()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        step()
    names = [
        event.name.removeprefix("c10d::").strip("_")
        for event in seen.events()
        if event.name.startswith("c10d::")
    ]
    return {name: names.count(name) for name in names}


# -- what is sent ----------------------------------------------------------------------------------
@pytest.mark.parametrize(("width", "buckets"), [(20, 1), (700, 2), (2000, 3)])
def test_ddp_sends_as_many_buckets_as_said(width: int, buckets: int) -> None:
    model = toy(encoder=partial(MLP, width=width, depth=2))
    (said,) = DDP().traffic(model, 2)
    assert said == Traffic("gradients", buckets, sum(p.numel() for p in model.parameters()) * 4)
    assert DDP().traffic(model, 1) == []
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    try:
        wrapped = DistributedDataParallel(model, static_graph=True, gradient_as_bucket_view=True)
        inputs = model.input_shape.example(4)
        step = lambda: sum(z.sum() for z in wrapped(inputs).values()).backward()  # noqa: E731
        assert count_collectives(step, before=3) == {
            "allreduce": buckets
        }  # in its third, ddp agrees on buckets
    finally:
        dist.destroy_process_group()


def test_ddp_sends_buffers_of_one_type_together() -> None:
    model = toy()
    model.sharing.register_module("norm", torch.nn.BatchNorm1d(20))
    assert DDP().traffic(model, 2)[1] == Traffic("buffers", 2, 2 * 20 * 4 + 8)


@pytest.mark.parametrize(
    ("name", "level"), [(name, level) for kind, name, level in cells() if kind == "balancing"]
)
def test_sums_over_the_batch(
    name: str, level: str | None, pretended: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each balancer at each level: the bytes of every collective of a step."""
    kind = getattr(src.balancing, name)
    extra: dict[str, Any] = {"beta": 0.5} if (name, level) == ("DualBalance", "parameters") else {}
    balancer = (
        partial(kind, **extra)
        if issubclass(kind, LossBalancer)
        else partial(kind, level=level, **extra)
    )
    model = toy(balancer=balancer, encoder=partial(MLP, width=8, depth=1))
    trainer = bare_trainer(1, 1, limit_train_batches=1, limit_test_batches=0)
    pretended(0, 2)
    sent: list[int] = []
    monkeypatch.setattr(
        dist, "all_reduce", lambda tensor, **_: sent.append(tensor.numel() * tensor.element_size())
    )
    trainer.fit(model, Toy())
    said = list_batch_sums(model)
    assert sum(t.count for t in said) == len(sent)
    assert sum(t.bytes for t in said) == sum(sent)


# -- shards ----------------------------------------------------------------------------------------
def sharded(model: MultiTaskModel, strategy: FSDP, shards: int) -> None:
    shape = (shards // strategy.tensor_parallel_size, strategy.tensor_parallel_size)
    strategy.mesh = init_device_mesh("cpu", shape, mesh_dim_names=("data", "tensor"))
    collectives.use(strategy.mesh["data"].get_group())
    strategy.shard_model(model)
    model.runner = ShardedRunner()


@pytest.mark.parametrize(
    ("name", "tensor"),
    [("HardSharing", 1), ("MMoE", 1), ("Separate", 1), ("HardSharing", 2), ("HardSharing", 4)],
)
@pytest.mark.parametrize("rank", [0, 63])
def test_shards_are_as_large_as_said(name: str, tensor: int, rank: int, pretended: Any) -> None:
    model, strategy = toy(sharing=SHARINGS[name]), FSDP(tensor_parallel_size=tensor)
    said = strategy.holds(model, 64)
    sizes = {
        part: sum(p.numel() for p in weights)
        for part, (weights, _) in collect_tensors(model).items()
    }
    for part, numbers in sizes.items():
        if tensor == 1:
            assert sum(held[part] for held in said) == pytest.approx(1.0 if numbers else 64.0)
    pretended(rank, 64)
    sharded(model, strategy, 64)
    for part, (weights, _) in collect_tensors(model).items():
        there = sum(p.to_local().numel() for p in weights)  # type: ignore[attr-defined]
        assert said[rank][part] * sizes[part] == pytest.approx(there if sizes[part] else 0), part


@pytest.mark.filterwarnings("ignore:.*returned a view tensor.*")
@pytest.mark.parametrize(
    ("balancer", "reshard"),
    [
        (StaticWeights, True),
        (StaticWeights, False),
        (PCGrad, True),
        (partial(PCGrad, level="parameters"), True),
        (partial(PCGrad, level="parameters"), False),
        (partial(GradDrop, level="parameters"), True),
    ],
)
def test_fsdp_fetches_and_sums_as_often_as_said(
    balancer: Any, reshard: bool, pretended: Any
) -> None:
    model, strategy = (
        toy(balancer=balancer, encoder=partial(MLP, width=20, depth=1)),
        FSDP(reshard_after_forward=reshard),
    )
    weights, gradients = strategy.traffic(model, 8)
    said = list_batch_sums(model, shards=True)
    pretended(0, 8)
    sharded(model, strategy, 8)
    assert model.step.jacobian  # as they lie between two steps
    trainer: Any = SimpleNamespace(
        global_step=0, accumulate_grad_batches=1, is_last_batch=True, num_training_batches=1
    )
    model._trainer = trainer
    batch = Toy().split("train")[torch.arange(16)]
    sent = count_collectives(lambda: model.training_step(batch, 0).backward(), before=1)
    assert sent["allgather_base"] == weights.count
    assert sent["reduce_scatter_base"] == gradients.count
    assert sent["allreduce"] + sent.get("allgather_into_tensor_coalesced", 0) == sum(
        t.count for t in said
    )


@pytest.mark.filterwarnings("ignore:.*returned a view tensor.*")
@pytest.mark.parametrize(
    ("encoder", "balancer", "recompute", "shards", "frozen"),
    [
        (PERCEPTRON, StaticWeights, False, 1, 0),
        (PERCEPTRON, StaticWeights, False, 2, 1),
        (PERCEPTRON, partial(PCGrad, level="parameters"), False, 1, 0),
        (PERCEPTRON, partial(PCGrad, level="parameters"), True, 2, 0),
        (PERCEPTRON, PCGrad, True, 1, 1),
        (Steps, StaticWeights, False, 2, 0),
        (Steps, PCGrad, True, 1, 0),
        (Steps, partial(PCGrad, level="parameters"), True, 1, 0),
    ],
)
def test_layers_that_devices_compute_together_are_summed_as_said(
    encoder: Any,
    balancer: Any,
    recompute: bool,
    shards: int,
    frozen: int,
    pretended: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = toy(encoder=encoder, balancer=balancer, checkpoint_activations=recompute)
    for stage in cast(Any, model.sharing.encoder).stages[:frozen]:
        stage.requires_grad_(False)
    strategy, rows = FSDP(tensor_parallel_size=2), 16
    said = [t.of(rows) for t in strategy.traffic(model, 2 * shards)]
    *_, inside = said
    assert (inside.what, len(said)) == ("sums within layers", 1 if shards == 1 else 3)
    before = [p.grad for p in model.parameters()]
    assert before == [None] * len(before)
    pretended(0, 2 * shards)
    sharded(model, strategy, 2 * shards)
    assert strategy.mesh is not None
    assert model.step.jacobian
    trainer: Any = SimpleNamespace(
        global_step=0, accumulate_grad_batches=1, is_last_batch=True, num_training_batches=1
    )
    model._trainer = trainer
    batch = Toy().split("train")[torch.arange(rows)]
    sent: list[int] = []
    group = strategy.mesh["tensor"].get_group().group_name

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is torch.ops._c10d_functional.all_reduce.default and args[2] == group:
                sent.append(args[0].numel() * args[0].element_size())
            return func(*args, **(kwargs or {}))

    with Seen():
        model.training_step(batch, 0).backward()
    assert (len(sent), sum(sent)) == (inside.count, inside.bytes)


def test_what_is_carried_over_borders() -> None:
    """By hand: 3 stages of width 20 on 5 columns, features and labels' losses on device 0."""
    model = toy()
    stages = [path for path in model.parts() if ".stages." in path]
    heads = [path for path in model.parts() if path.startswith("heads.")]
    width = 20 * 4

    def bytes_of_a_row(places: list[int], at_heads: int, home: int = 0) -> float:
        plan = (
            dict(zip(stages, places, strict=True))
            | dict.fromkeys(heads, at_heads)
            | {"sharing": home}
        )
        return sum(t.bytes for t in estimate_transfers(model, plan))

    assert bytes_of_a_row([0, 0, 0], 0) == 0
    assert bytes_of_a_row([0, 1, 1], 0) == 2 * width + 2 * width  # over the border, and back home
    assert bytes_of_a_row([0, 1, 2], 0) == 6 * width
    assert bytes_of_a_row([1, 1, 0], 0) == 5 * 4 + 2 * width  # inputs have no gradient
    assert bytes_of_a_row([0, 0, 0], 1) == 2 * width
    assert bytes_of_a_row([1, 1, 1], 0, home=1) == 5 * 4 + 2 * width
    assert estimate_transfers(model, dict.fromkeys(model.parts(), 1))[0].of(64).bytes == 64 * (
        5 * 4 + 2 * width + 2 * width
    )


# -- bytes -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("optimizer", "ratio"),
    [
        (SGD, 0.0),
        (partial(SGD, momentum=0.9), 1.0),
        (AdamW, 2.0),
        (partial(AdamW, amsgrad=True), 3.0),
        (partial(torch.optim.Adafactor, lr=0.1), 2 / 64),
        (torch.optim.LBFGS, None),
    ],
)
def test_what_an_optimizer_keeps(optimizer: Any, ratio: float | None) -> None:
    found = measure_optimizer_ratio(optimizer)
    assert found == pytest.approx(ratio) if ratio is not None else found > 0


def test_copies_and_parts_add_up() -> None:
    model = toy()
    parts = {
        part: Cost(100 * k, 50 * k, 7, 30 * k, 0.0)
        for k, part in enumerate(collect_tensors(model), start=1)
    }
    names = list(parts)
    whole = dict.fromkeys(names, 1.0)
    footprint = Footprint(parts, optimizer_ratio=2.0)
    copy = footprint.load(whole)
    weights, trained = (
        sum(c.parameters for c in parts.values()),
        sum(c.gradients for c in parts.values()),
    )
    assert copy == Load(
        weights + 7 * len(names), trained, 2 * trained, sum(c.activations for c in parts.values())
    )
    halves = [dict.fromkeys(names[:4], 1.0), dict.fromkeys(names[4:], 1.0)]
    apart = compute_loads(footprint, halves)
    assert sum(load.total for load in apart) == copy.total
    shard = footprint.load(dict.fromkeys(names, 0.25))
    assert shard.gradients == copy.gradients / 4
    assert shard.activations == copy.activations
    assert replace(footprint, scale=2.0).load(whole).total == 2 * copy.total


def test_what_no_device_names_is_on_all() -> None:
    parts = {"sharing": Cost(0, 0, 0, 10, 0.0), "heads.a": Cost(4, 4, 0, 1, 0.0)}
    everyone: list[dict[str, float]] = [{}, {"heads.a": 1.0}]
    assert [load.total for load in compute_loads(Footprint(parts, 0.0), everyone)] == [10.0, 19.0]


def test_gradients_of_tasks_take_room() -> None:
    model = toy(balancer=partial(PCGrad, level="parameters"))
    assert sum(count_task_gradients(model).values()) == 8 * 4 * sum(
        p.numel() for p in model.sharing.parameters()
    )
    assert count_task_gradients(toy()) == {}
    loads = [plan_of(m, DDP(), Devices(2)).loads[0] for m in (model, toy())]
    assert loads[0].gradients - loads[1].gradients == sum(count_task_gradients(model).values())


# -- in words --------------------------------------------------------------------------------------
def test_table_of_copies() -> None:
    plan = plan_of(toy(), DDP(), Devices(4, memory=16 * 10**9), micro_batches=3)
    title, _, row, batch, *wrapped = text_of(plan).splitlines()
    sent = " ".join(wrapped)
    assert title == "strategy ddp, data 4: 4 x CPU (16 GB together)"
    assert "memory" not in sent
    assert row.startswith("0-3")
    assert "encoder stages 0-2, 8 heads" in row
    assert batch == "batch: 64 rows, 16 on each device; 3 batches a step"
    assert sent.startswith("sent in a step by each process: gradients ")
    assert sent.endswith("(1 message), losses 192 B (3 messages)")
    assert plan.replicas == 4


def test_table_of_shards_is_one_row() -> None:
    plan = plan_of(toy(), FSDP(), Devices(8, 8, "gpu"))
    assert (plan.replicas, len(plan.loads)) == (64, 64)
    title, _, row, *below = text_of(plan).splitlines()
    assert title == "strategy fsdp, data 64, each with 1/64 of the parameters: 8 x 8 x GPU"
    assert row.startswith("0-63")
    assert "about 1/64 of encoder" in row
    assert "bytes: of the fullest device in each row" in below
    plan = plan_of(toy(), FSDP(tensor_parallel_size=4), Devices(8, memory=10**9))
    assert text_of(plan).startswith("strategy fsdp, data 2 x tensor 4: 8 x CPU")
    assert plan.replicas == 2
    assert (
        next(t for t in plan.traffic or () if t.what == "sums within layers").bytes
        == 4 * 32 * 20 * 4
    )


@pytest.mark.parametrize(
    ("placement", "device", "held", "copies"),
    [
        ({"heads.number": "cpu"}, "cpu", "heads.number", 2),
        ({"heads": "cuda:7"}, "cuda:7", "heads.class", 2),
        ({"heads.number": "cuda:1"}, 1, "heads.number", 2),
        ({"sharing": "cuda"}, 0, "sharing.encoder.stages.0", 0),
    ],
)
def test_a_device_that_goes_by_its_name(
    placement: dict[str, Any], device: str | int, held: str, copies: int
) -> None:
    """It is a row of its own, unless it is one of the Trainer's."""
    plan = plan_of(toy(), Placement(placement), Devices(2, kind="gpu"))
    assert plan.names == ([device] if isinstance(device, str) else [])
    place = 2 if isinstance(device, str) else device
    assert [k for k, parts in enumerate(plan.holds) if held in parts] == [place]
    assert sum(load.parameters for load in plan.loads) == sum(
        p.numel() * 4 for p in toy().parameters()
    )
    assert plan.loads[place].activations == 100 * len(
        [part for part in plan.holds[place] if part not in REST]
    )
    assert [t.count for t in plan.traffic or ()] == [copies] * bool(copies)
    text = text_of(plan)
    assert "1 replica x 2 devices: 2 x GPU" in text
    assert ("carried between devices in a step: activations and their gradients" in text) == bool(
        copies
    )
    assert ("sent in a step: nothing" in text) == (not copies)
    assert "by each process" not in text
    if isinstance(device, str):
        (row,) = (line for line in text.splitlines() if line.startswith(device))
        assert ("head number" if held == "heads.number" else "8 heads") in row


def test_copies_that_share_a_device() -> None:
    """Each of two processes places its heads on the second GPU of the first process."""
    plan = plan_of(toy(), DDPPlacement(2, {"heads": "cuda:1"}), Devices(4, 2, "gpu"))
    assert [held.get("heads.class") for held in plan.holds] == [None, 2.0, None, None] * 2
    assert plan.loads[1].parameters == 2 * 4 * sum(p.numel() for p in toy().heads.parameters())
    assert plan.loads[1].activations == 2 * 8 * 100
    beside = plan_of(toy(), DDPPlacement(2, {"heads": "cuda:9"}), Devices(4, 2, "gpu"))
    assert beside.loads[-1] == plan.loads[1]


def test_several_nodes_are_not_for_placement() -> None:
    strategy = configure_offline(Placement(), Devices(2, 2), "32-true")
    with pytest.raises(ValueError, match=r"--num_nodes is 2, .* use --strategy ddp_placement"):
        strategy.check(toy())
    with pytest.raises(ValueError, match="--num_nodes is 2"):
        cast(
            Any,
            L.Trainer(
                accelerator="cpu", devices=2, num_nodes=2, strategy=Placement(), logger=False
            ),
        ).strategy.check(toy())


@pytest.mark.parametrize(
    ("share", "text"),
    [(1 / 32, "1/32"), (0.25, "1/4"), (0.28, "28%"), (0.75, "75%"), (0.0031, "1/323")],
)
def test_fractions(share: float, text: str) -> None:
    assert format_fraction(share) == text


def test_what_will_not_fit_is_said() -> None:
    assert "this will not fit" in text_of(
        plan_of(toy(), DDP(), Devices(2, kind="gpu", memory=1000))
    )
    unknown = text_of(plan_of(toy(), DDP(), Devices(2, kind="gpu")))
    assert "will not fit" not in unknown
    assert "whether this fits is unknown, as is the memory of these devices" in unknown
    roomy = text_of(
        plan_of(toy(), Placement({"heads": "cpu"}), Devices(2, kind="gpu", memory=10**9))
    )
    assert "fit" not in roomy


def test_one_device_is_a_line() -> None:
    model = toy()
    plan = plan_of(model, None, Devices(1, memory=16 * 10**9))
    assert format_plan(plan) == "CPU (16 GB): 38.3 kB of weights, gradients and optimizer"
    assert text_of(plan).startswith("plan: CPU (16 GB)\n")
    assert plan.traffic == []
    assert plan.loads[0].state == 16 * sum(p.numel() for p in model.parameters())


def test_one_device_that_runs_by_a_strategy() -> None:
    for strategy in (DDP(), FSDP(), Pipeline(), Placement()):
        plan = plan_of(toy(), strategy, Devices(1, memory=16 * 10**9))
        start = f"CPU (16 GB), strategy {strategy.strategy_name}: 38.3 kB of weights, "
        assert format_plan(plan) == start + "gradients and optimizer"
        assert text_of(plan).startswith(f"strategy {strategy.strategy_name}: CPU (16 GB)\n")
    assert format_plan(plan_of(toy(), SingleDeviceStrategy("cpu"), Devices(1))).startswith(
        "CPU: 38.3 kB"
    )
    apart = plan_of(toy(), Placement({"heads.class": "cpu"}), Devices(1, kind="gpu"))
    assert format_plan(apart).startswith("GPU, strategy placement: 37")
    assert format_plan(apart).endswith(f"; {format_bytes(apart.loads[1].state)} on cpu")


def test_a_pipeline_in_words() -> None:
    plan = plan_of(toy(), Pipeline(), Devices(2, memory=10**9))
    assert text_of(plan).startswith(
        "strategy pipeline, stages in 2 runs, 4 slices: 2 x CPU (1 GB together)\n"
    )


def test_each_batch_of_a_step_is_carried() -> None:
    once, thrice = (
        plan_of(toy(), Placement({"heads": 1}), Devices(2), micro_batches=n).traffic for n in (1, 3)
    )
    assert [t.times(3) for t in once or ()] == thrice


class Opaque(torch.nn.Module):
    """A strategy that does not say what it will do."""

    strategy_name = "opaque"


def test_a_strategy_that_does_not_say() -> None:
    text = text_of(make_plan(toy(), Opaque(), Devices(2), lambda rows: Footprint({}, 2.0), 64))  # type: ignore[arg-type]
    assert "opaque decides what each device holds and sends" in text


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([0], "0"),
        ([0, 1, 2], "0-2"),
        ([0, 2, 3], "0, 2-3"),
        ([0, 2, 4, 6], "0, 2, 4, 6"),
        (range(0, 64, 2), "0, 2 .. 62 (32)"),
    ],
)
def test_ranges(numbers: Any, text: str) -> None:
    assert format_ranges(list(numbers)) == text


def test_parts() -> None:
    encoders = {f"sharing.encoders.{name}.stages.{k}": 1.0 for name in "abc" for k in range(2)}
    assert (
        describe_parts(encoders | {"heads.a": 1.0, "sharing": 1.0})
        == "3 encoders stages 0-1, head a, the rest of sharing"
    )
    assert describe_parts({"sharing.encoder.stages.2": 1.0}) == "encoder stage 2"


# -- the command line ------------------------------------------------------------------------------
def test_a_plan_leaves_nothing(tmp_path: Path) -> None:
    for words in (
        (),
        ("--devices", 2),
        ("--fast_dev_run",),
        ("--devices", 2, "--strategy", "fsdp"),
    ):
        ended = call("train", *TOY, "--logs", tmp_path, "--plan", *words)
        assert ended.code == 0, ended.err
        assert "batch: 16 rows" in ended.out
        assert "encoder" in ended.out
    assert list(tmp_path.iterdir()) == []


def test_a_plan_for_devices_that_are_not_here(tmp_path: Path) -> None:
    words = ("--accelerator", "gpu", "--devices", 8, "--num_nodes", 8, "--batch_size", 1024)
    ended = call("train", *TOY[:-2], "--logs", tmp_path, "--plan", *words, "--strategy", "fsdp")
    assert ended.code == 0, ended.err
    assert "8 x 8 x GPU" in ended.out
    ended = call("train", *TOY[:-2], "--logs", tmp_path, "--plan", *words)
    assert ended.out.count("strategy") == 1
    assert "ddp was chosen, the simplest" in ended.out
    placed = (
        *words[:2],
        "--devices",
        4,
        "--strategy",
        "placement",
        "--strategy.placement.heads.number",
        "cuda:3",
    )
    ended = call("train", *TOY[:-2], "--logs", tmp_path, "--plan", *placed)
    assert ended.code == 0, ended.err
    assert re.search(r"\n3 +head number ", ended.out)
    refused(call("train", *TOY[:-2], "--logs", tmp_path, *words), ["--num_nodes is 8"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--devices", 20), ["data.batch_size is 16", "20 devices"]),
        (("--devices", "two"), ["--devices is two"]),
        (("--num_nodes", 0), ["--num_nodes is 0"]),
        (
            ("--num_nodes", 2, "--devices", 2, "--strategy", "placement"),
            ["--num_nodes is 2", "use --strategy ddp_placement"],
        ),
        (("--accelerator", "gpu", "--devices", -1), ["give a number"]),
        (
            ("--devices", 2, "--strategy", "fsdp", "--model.balancer", "AutoLambda"),
            ["AutoLambda", "use --strategy ddp"],
        ),
        (("--devices", 2, "--strategy", "fdsp"), ["did you mean 'fsdp'?"]),
    ],
)
def test_a_plan_refuses_what_a_run_would(tmp_path: Path, words: Any, says: list[str]) -> None:
    refused(call("train", *TOY, "--logs", tmp_path, "--plan", *words), says)
    assert list(tmp_path.iterdir()) == []


def test_of_a_run(tmp_path: Path) -> None:
    """One device is a line before training; a plan of a run to resume leaves the run alone."""
    ended = call("train", *TOY, "--logs", tmp_path, "--name", "x")
    assert ended.code == 0, ended.err
    (line,) = (line for line in ended.out.splitlines() if line.startswith("CPU ("))
    assert line.endswith("of weights, gradients and optimizer")
    run = only_run(tmp_path / "x")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    ended = call("train", "--resume", run, "--plan", "--devices", 2)
    assert ended.code == 0, ended.err
    assert "data 2" in ended.out
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert read_json(run / "run.json")["sessions"][-1]["status"] == "finished"
    assert call("evaluate", "--run", run).code == 0
