"""A pipeline: its checks, its cut of the stages, and what travels between its processes."""

from contextlib import nullcontext
from functools import partial
from itertools import combinations, pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from src.balancing import AutoLambda, GeometricMean, PCGrad, RandomWeights, StaticWeights
from src.models import MultiTaskModel
from src.models.encoders import MLP, Transformer
from src.models.sharing import HardSharing, MMoE, SoftSharing
from src.parallel import Pipeline
from src.parallel.stages import (
    Chunk,
    DeferredWeights,
    StageInterface,
    list_inputs,
    make_input_builder,
    probe_stages,
)
from src.planning.auto_placement import distribute
from tests.integration.test_pipeline import Sentences
from tests.toy import Toy


def strategy(devices: int = 2, **settings: Any) -> Pipeline:
    made = Pipeline(**settings)
    made.parallel_devices = [torch.device("cpu")] * devices
    return made


def model(**parts: Any) -> MultiTaskModel:
    data = Toy()
    made = MultiTaskModel(
        data.tasks,
        data.input_shape,
        **{"encoder": partial(MLP, width=8, depth=3, dropout=0.1), **parts},
    )
    made.configure_model()
    return made


class Restless(MLP):
    """A stage that draws random numbers as it likes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stages[1] = nn.Sequential(self.stages[1], nn.Dropout(0.5))


class Roundabout(MLP):
    """More than its stages."""

    def forward(self, inputs: Any) -> Tensor:
        return 2 * super().forward(inputs)


@pytest.mark.parametrize(
    ("settings", "parts", "says"),
    [
        ({}, {"balancer": PCGrad}, "PCGrad weighs gradients of tasks.*ddp"),
        ({}, {"balancer": AutoLambda}, "AutoLambda takes a step and takes it back.*ddp"),
        (
            {"schedule": "1f1b"},
            {"balancer": GeometricMean},
            "GeometricMean.*strategy.schedule gpipe",
        ),
        (
            {},
            {"sharing": MMoE},
            "which MMoE with these settings is not: set --model.sharing HardSharing",
        ),
        ({}, {"sharing": SoftSharing}, "SoftSharing with these settings is not"),
        ({}, {"sharing": partial(HardSharing, until=2)}, "HardSharing with these settings is not"),
        ({"devices": 5}, {}, "5 devices need a stage each, but MLP has 4: use --devices 4"),
        ({"cut": [3]}, {}, r"strategy.cut is \[3\]; it must be 2 numbers"),
        ({"cut": [4, 0]}, {}, "at least 1"),
        ({"cut": [2, 3]}, {}, "the sum is 4, the stages of MLP"),
        ({"micro_batches": 0}, {}, "strategy.micro_batches is 0; it must be at least 1"),
        ({"schedule": "2f2b"}, {}, "it must be gpipe or 1f1b"),
        (
            {},
            {"encoder": partial(Restless, width=8)},
            "stage 1 of the encoder draws random numbers",
        ),
        (
            {},
            {"encoder": partial(Roundabout, width=8)},
            "HardSharing with this encoder does something else",
        ),
    ],
)
def test_what_it_cannot_run_is_refused(
    settings: dict[str, Any], parts: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        strategy(**settings).check(model(**parts))


@pytest.mark.parametrize(
    ("schedule", "balancer"),
    [("gpipe", GeometricMean), ("1f1b", StaticWeights), ("1f1b", RandomWeights)],
)
def test_what_it_can_run_stays_as_it_was(schedule: Any, balancer: Any) -> None:
    made = model(balancer=balancer)
    before, random = {k: v.clone() for k, v in made.state_dict().items()}, torch.get_rng_state()
    strategy(schedule=schedule).check(made)
    assert torch.equal(torch.get_rng_state(), random)
    torch.testing.assert_close(dict(made.state_dict()), before, rtol=0, atol=0)


def test_where_parts_lie() -> None:
    made = model()
    held = strategy(cut=[3, 1]).holds(made, 2)
    stages = [f"sharing.encoder.stages.{k}" for k in range(4)]
    assert list(held[0]) == [*stages[:3], "balancer"]
    assert list(held[1]) == [
        stages[3],
        *(f"heads.{made.heads.paths[name]}" for name in made.tasks),
        "balancer",
    ]
    parts = [path for part in strategy().holds(made, 4) for path in part if path != "balancer"]
    assert parts == list(made.parts())


def test_what_is_sent() -> None:
    """8 features of 4 bytes a row travel twice, in 4 slices; then the sums of 8 tasks."""
    activations, sums = strategy(cut=[3, 1]).traffic(model(), 2)
    assert (activations.count, activations.bytes) == (8, 64)
    assert (sums.count, sums.bytes) == (1, 64)
    assert strategy().traffic(model(), 1) == []


@given(st.lists(st.integers(0, 20), min_size=1, max_size=8), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_no_cut_is_better(sizes: list[int], ranks: int) -> None:
    ranks = min(ranks, len(sizes))
    places, _ = distribute(sizes, [], ranks, at_least=1)
    found = [places.count(rank) for rank in range(ranks)]
    assert len(found) == ranks
    assert sum(found) == len(sizes)
    assert min(found) >= 1

    def largest(ends: tuple[int, ...]) -> int:
        return max(sum(sizes[first:end]) for first, end in pairwise((0, *ends, len(sizes))))

    ends = tuple(sum(found[:k]) for k in range(1, ranks))
    assert largest(ends) == min(map(largest, combinations(range(1, len(sizes)), ranks - 1)))


def test_more_cuts_than_can_be_tried() -> None:
    places, _ = distribute([1.0] * 40, [], 16, at_least=1)
    assert places == sorted(places)
    counts = [places.count(rank) for rank in range(16)]
    assert min(counts) >= 1
    assert max(counts) == 3


STATES = {
    "a tensor": torch.randn(3, 4, 5),
    "bfloat16": torch.randn(3, 4).bfloat16(),
    "a mask": (torch.randn(3, 4, 5), torch.rand(3, 4) < 0.5),
    "integers": (torch.randn(3, 4), torch.randint(-1000, 1000, (3,))),
    "integers beside halves": (torch.randn(3, 4).half(), torch.randint(-1000, 1000, (3, 2))),
    "skips": (torch.randn(3, 2, 4, 4), torch.randn(3, 0, 8, 8), torch.randn(3, 1, 8, 8)),
    "a mask alone": (torch.rand(3, 4) < 0.5,),
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
def test_a_state_arrives_as_it_left(state: Any) -> None:
    interface = StageInterface.of(state)
    x = interface.pack(state)
    assert x.is_floating_point()
    assert (x.shape, x.dtype) == (interface.empty(3, "cpu").shape, interface.type)
    torch.testing.assert_close(interface.unpack(x), state, rtol=0, atol=0)
    assert StageInterface.of(interface.unpack(x)) == interface


def test_gradients_come_back() -> None:
    x, mask = torch.randn(3, 4, requires_grad=True), torch.rand(3, 4) < 0.5
    interface = StageInterface.of((x, mask))
    arrived = interface.pack((x, mask)).detach().requires_grad_()
    y, kept = interface.unpack(arrived)
    (y.square() * kept).sum().backward()
    interface.pack((x, mask)).backward(arrived.grad)
    torch.testing.assert_close(x.grad, 2 * x.detach() * mask)


@pytest.mark.parametrize("recompute", [False, True])
def test_slices_of_chunks_are_the_whole(recompute: bool) -> None:
    """Two chunks on slices, backwards in another order, give the numbers of one whole pass."""
    data = Sentences()
    parts: dict[str, Any] = {
        "encoder": partial(Transformer, width=8, depth=3, heads=2, dropout=0.3)
    }
    made = MultiTaskModel(data.tasks, data.input_shape, **parts)
    made.configure_model()
    inputs = data.split("train")[torch.arange(12)].inputs
    torch.manual_seed(1)
    z = next(iter(made.sharing(inputs).values()))
    along = torch.randn_like(z)
    (z * along).sum().backward()
    wanted = {name: p.grad for name, p in made.named_parameters() if p.grad is not None}
    made.zero_grad()

    stages = [part for path, part in made.parts().items() if path.startswith("sharing")]
    draws, interfaces = probe_stages(made, stages)
    assert draws == [1, 3, 3, 3]

    def at(interface: StageInterface) -> StageInterface:  # the example's sentences are shorter
        return StageInterface(
            tuple((z.shape[1], *shape[1:]) for shape in interface.shapes),
            interface.types,
            interface.bare,
        )

    below, middle, above = make_input_builder(inputs), at(interfaces[1]), at(interfaces[3])
    chunks = (
        Chunk(stages[:2], recompute, below, middle, nullcontext),
        Chunk(stages[2:], recompute, middle.unpack, above, nullcontext),
    )
    torch.manual_seed(1)
    tops, arrived, left = [], [], []
    for first, chunk in zip((True, False), chunks, strict=True):
        chunk.begin_step(12)
        for m in range(3):
            if first:
                left.append(chunk(*(x[4 * m : 4 * m + 4] for x in list_inputs(inputs))))
            else:
                arrived.append(left[m].detach().requires_grad_())
                tops.append(chunk(arrived[m]))
    torch.testing.assert_close(torch.cat(tops), z.detach(), rtol=1e-5, atol=1e-6)
    for m in (2, 0, 1):
        tops[m].backward(along[4 * m : 4 * m + 4])
        left[m].backward(arrived[m].grad)
    torch.testing.assert_close(
        {n: p.grad for n, p in made.named_parameters() if p.grad is not None},
        wanted,
        rtol=1e-4,
        atol=1e-5,
    )


def test_weights_may_come_after_the_losses() -> None:
    x = torch.randn(3, requires_grad=True)
    later: list[Tensor] = []
    loss = DeferredWeights.apply(x.square(), lambda: later[0])
    later.append(torch.tensor([1.0, 0.0, 2.0]))
    loss.backward()
    torch.testing.assert_close(x.grad, 2 * x.detach() * later[0])
