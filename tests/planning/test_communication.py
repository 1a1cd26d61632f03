"""What a step sends, against shards on a fake process group and collectives that are counted."""

from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel
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
from src.parallel import DDP, FSDP
from src.parallel.sharded_runner import ShardedRunner
from src.planning.communication import Traffic, estimate_transfers
from src.planning.measure import collect_tensors
from tests.integration.grid import cells
from tests.models.test_matrix import SHARINGS
from tests.planning.toys import toy
from tests.toy import Toy, bare_trainer

PERCEPTRON = partial(MLP, width=20, depth=2, dropout=0.1)


class Steps(Transformer):
    """A transformer that reads each of five columns as a step of a sequence."""

    def __init__(self, shape: InputShape) -> None:
        super().__init__(InputShape((5, 1)), width=16, depth=2, heads=2, pool="mean")
        self.stages.insert(0, torch.nn.Unflatten(-1, (5, 1)))


@pytest.fixture
def fake_processes() -> Iterator[Any]:
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
    name: str, level: str | None, fake_processes: Any, monkeypatch: pytest.MonkeyPatch
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
    fake_processes(0, 2)
    sent: list[int] = []
    monkeypatch.setattr(
        dist, "all_reduce", lambda tensor, **_: sent.append(tensor.numel() * tensor.element_size())
    )
    trainer.fit(model, Toy())
    said = list_batch_sums(model)
    assert sum(t.count for t in said) == len(sent)
    assert sum(t.bytes for t in said) == sum(sent)


def shard_model(model: MultiTaskModel, strategy: FSDP, shards: int) -> None:
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
def test_shards_are_as_large_as_said(
    name: str, tensor: int, rank: int, fake_processes: Any
) -> None:
    model, strategy = toy(sharing=SHARINGS[name]), FSDP(tensor_parallel_size=tensor)
    said = strategy.holds(model, 64)
    sizes = {
        part: sum(p.numel() for p in weights)
        for part, (weights, _) in collect_tensors(model).items()
    }
    for part, numbers in sizes.items():
        if tensor == 1:
            assert sum(held[part] for held in said) == pytest.approx(1.0 if numbers else 64.0)
    fake_processes(rank, 64)
    shard_model(model, strategy, 64)
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
    balancer: Any, reshard: bool, fake_processes: Any
) -> None:
    model, strategy = (
        toy(balancer=balancer, encoder=partial(MLP, width=20, depth=1)),
        FSDP(reshard_after_forward=reshard),
    )
    weights, gradients = strategy.traffic(model, 8)
    said = list_batch_sums(model, shards=True)
    fake_processes(0, 8)
    shard_model(model, strategy, 8)
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
    fake_processes: Any,
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
    fake_processes(0, 2 * shards)
    shard_model(model, strategy, 2 * shards)
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
