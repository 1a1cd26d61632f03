"""The layout of shards, on eight processes that send nothing, and on one process."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.testing._internal.distributed.fake_pg import FakeStore

from src.parallel.dtensor import (
    as_shard,
    clip_gradients,
    count_holders,
    full_tensor,
    gather_weights,
    local,
    locate_shard,
    reshard,
    shard_like,
    sum_over_processes,
    total_norm,
)


@contextmanager
def process(rank: int) -> Iterator[None]:
    """This process as one of eight, none of them sends anything."""
    dist.init_process_group("fake", rank=rank, world_size=8, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


class Layers(nn.Module):
    """Layers whose sizes neither two nor four divide, but for what tensor parallelism cuts."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down, self.head = (
            nn.LayerNorm(5),
            nn.Linear(5, 14),
            nn.Linear(14, 5),
            nn.Linear(5, 3),
        )


def on_eight(tensor_parallel: bool) -> Layers:
    model = Layers()
    data, tensor = (
        f"data of {dist.get_rank()}",
        f"tensor of {dist.get_rank()}",
    )  # else torch would take one mesh for another's
    if tensor_parallel:
        mesh = init_device_mesh("cpu", (4, 2), mesh_dim_names=(data, tensor))
        parallelize_module(model.up, mesh[tensor], ColwiseParallel())
        parallelize_module(model.down, mesh[tensor], RowwiseParallel())
        fully_shard(model, mesh=mesh[data])
    else:
        fully_shard(model, mesh=init_device_mesh("cpu", (8,), mesh_dim_names=(data,)))
    return model


@pytest.mark.parametrize("tensor_parallel", [False, True])
def test_pieces_lie_as_torch_lays_them(tensor_parallel: bool) -> None:
    """All shards together are the whole: each number as often as processes hold it."""
    seen: dict[str, Tensor] = {}
    for rank in range(8):
        with process(rank):
            for name, p in on_eight(tensor_parallel).named_parameters():
                assert isinstance(p, DTensor)
                counted = torch.arange(float(p.numel())).view(p.shape)
                part, first = locate_shard(counted, p)
                shape, offset = compute_local_shape_and_global_offset(
                    p.shape, p.device_mesh, p.placements
                )
                assert part.shape == local(p).shape == shape
                assert not part.numel() or first == offset
                laid = shard_like(counted, p)
                assert isinstance(laid, DTensor)
                assert (laid.placements, laid.shape, laid.stride()) == (
                    p.placements,
                    p.shape,
                    p.stride(),
                )
                assert torch.equal(local(laid), part)
                times = seen.setdefault(name, torch.zeros(p.shape)).view(-1)
                times[part.flatten().long()] += 1 / count_holders(p)
    torch.testing.assert_close(seen, {name: torch.ones_like(times) for name, times in seen.items()})


def test_how_many_hold_the_same() -> None:
    with process(5):
        found = {
            name: (count_holders(p), tuple(local(p).shape))
            for name, p in on_eight(True).named_parameters()
        }
        assert count_holders(torch.ones(2)) == 8
    assert found == {  # the third of four in the data dimension, the second of two in the other
        "norm.weight": (2, (1,)),
        "norm.bias": (2, (1,)),
        "up.weight": (1, (2, 5)),
        "up.bias": (1, (2,)),
        "down.weight": (1, (1, 7)),
        "down.bias": (2, (1,)),
        "head.weight": (2, (1, 5)),
        "head.bias": (2, (1,)),
    }


def test_parts_keep_where_they_lie() -> None:
    with process(0):
        p = next(on_eight(False).parameters())
        twice = as_shard(2 * local(p.detach()), p)
        assert isinstance(twice, DTensor)
        assert isinstance(p, DTensor)
        assert twice.placements == p.placements
        assert torch.equal(local(twice), 2 * local(p.detach()))
        made = as_shard(torch.zeros(1), p)
        assert isinstance(made, DTensor)
        assert made.shape == (5,)


def test_whole_tensors_pass() -> None:
    x = torch.arange(4.0)
    for same in (local(x), full_tensor(x), as_shard(x, x), shard_like(x, x), sum_over_processes(x)):
        assert same is x or torch.equal(same, x)
    assert count_holders(x) == 1
    module = nn.Linear(2, 2)
    with gather_weights(module):
        reshard(module)


@pytest.mark.parametrize("by", ["norm", "value", None])
@pytest.mark.parametrize("limit", [0.3, 100.0])
def test_clipping_on_one_process_is_that_of_torch(by: str | None, limit: float) -> None:
    parameters = [
        nn.Parameter(torch.zeros(3)),
        nn.Parameter(torch.zeros(2, 2)),
        nn.Parameter(torch.zeros(1)),
    ]
    ours, theirs = [torch.randn(3), torch.randn(2, 2)], []
    theirs = [gradient.clone() for gradient in ours]
    for gradients, clip in ((ours, clip_gradients), (theirs, None)):
        for p, gradient in zip(parameters, gradients, strict=False):  # the last one has none
            p.grad = gradient
        if clip is not None:
            assert float(total_norm(ours)) == pytest.approx(
                float(torch.nn.utils.get_total_norm(ours))
            )
            clip(iter(parameters), limit, by)
        elif by == "value":
            torch.nn.utils.clip_grad_value_(parameters, limit)
        else:
            torch.nn.utils.clip_grad_norm_(parameters, limit)
    torch.testing.assert_close(ours, theirs)
    assert float(total_norm([])) == 0
