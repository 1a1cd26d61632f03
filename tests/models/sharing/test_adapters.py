from functools import partial

import pytest
import torch
from torch import nn
from torch.func import functional_call

from src.batch import InputShape
from src.models.encoders import MLP, ConvNet
from src.models.sharing import HardSharing, TaskAdapters, check_owners
from src.models.sharing.adapters import modulate

SHAPES = {MLP: InputShape((5,)), ConvNet: InputShape((2, 6, 6))}
TASKS = ["a", "b", "c"]


def made(encoder=MLP, tasks=TASKS, **settings):
    torch.manual_seed(0)
    return TaskAdapters(partial(encoder, SHAPES[encoder], width=4), tasks, **settings).double()


def hard(kind):
    torch.manual_seed(0)
    return kind(SHAPES[kind], width=4).double()


@pytest.mark.parametrize("kind", [MLP, ConvNet])
@pytest.mark.parametrize("settings", [{"rank": 0}, {"rank": 3}, {"kind": "film"}])
def test_adapters_begin_as_hard_sharing_and_rank_0_stays_it(kind, settings):
    sharing, encoder = made(kind, **settings), hard(kind)
    x = SHAPES[kind].example(5).double()
    features = sharing(x)
    for z in features.values():
        torch.testing.assert_close(z, encoder(x), rtol=1e-10, atol=1e-12)
    sum(z.square().sum() for z in features.values()).backward()
    torch.manual_seed(0)
    one = HardSharing(partial(kind, SHAPES[kind], width=4), TASKS).double()
    sum(z.square().sum() for z in one(x).values()).backward()
    ours = [p.grad.flatten() for p in sharing.encoder.parameters()]
    torch.testing.assert_close(
        torch.cat(ours),
        torch.cat([p.grad.flatten() for p in one.parameters()]),
        rtol=1e-9,
        atol=1e-12,
    )
    assert (not sharing.down and not sharing.films) == (settings == {"rank": 0})


@pytest.mark.parametrize("kind", [MLP, ConvNet])
def test_lora_adds_a_product_to_each_matrix(kind):
    sharing, encoder = made(kind, rank=2), hard(kind)
    with torch.no_grad():
        for up in sharing.up.values():
            up.copy_(torch.randn(up.shape))
    x = SHAPES[kind].example(5).double()
    for t, z in enumerate(sharing(x).values()):
        theta = {}
        for name, p in encoder.named_parameters():
            _, stage, inside = name.split(".", 2)
            key = f"{stage}_{inside.replace('.', '_')}"
            assert (key in sharing.down) == (p.ndim > 1)
            theta[name] = (
                p + (sharing.up[key][t] @ sharing.down[key][t]).view_as(p) if p.ndim > 1 else p
            )
        torch.testing.assert_close(z, functional_call(encoder, theta, (x,)), rtol=1e-9, atol=1e-12)
    assert (
        {p.shape[1] for p in sharing.down.values()}
        == {p.shape[2] for p in sharing.up.values()}
        == {2}
    )


@pytest.mark.parametrize("kind", [MLP, ConvNet])
def test_film_scales_and_shifts_the_channels_behind_each_stage(kind):
    sharing, encoder = made(kind, kind="film"), hard(kind)
    with torch.no_grad():
        for numbers in sharing.films:
            numbers.copy_(torch.randn(numbers.shape))
    x = SHAPES[kind].example(5).double()
    for t, z in enumerate(sharing(x).values()):
        state = x
        for stage, numbers in zip(encoder.stages, sharing.films, strict=True):
            state = stage(state)
            gamma, beta = numbers[t]
            if state.ndim == 4:
                gamma, beta = gamma[:, None, None], beta[:, None, None]
            state = state * (1 + gamma) + beta
        torch.testing.assert_close(z, state, rtol=1e-9, atol=1e-12)


def test_film_of_sequences():
    x, numbers = torch.randn(2, 3, 4, 5), torch.randn(2, 2, 5)
    out = modulate(x, numbers, image=False)
    assert torch.allclose(out[1, 2, 3], x[1, 2, 3] * (1 + numbers[1, 0]) + numbers[1, 1], atol=1e-6)


@pytest.mark.parametrize("kind", [MLP, ConvNet])
@pytest.mark.parametrize("tasks", [TASKS, ["a"]])
@pytest.mark.parametrize("settings", [{}, {"kind": "film"}, {"rank": 0}])
def test_owners_and_size(kind, tasks, settings):
    sharing = made(kind, tasks, **settings).float()
    check_owners(sharing, SHAPES[kind].example())
    one = sum(p.numel() for p in hard(kind).parameters())
    assert sum(p.numel() for p in sharing.encoder.parameters()) == one
    if settings == {"rank": 0}:
        assert sum(p.numel() for p in sharing.parameters()) == one


def test_an_adapter_of_one_task_is_not_reached_by_another():
    sharing = made()
    sharing(SHAPES[MLP].example(5).double())["b"].square().sum().backward()
    for up in sharing.up.values():
        assert up.grad[1].abs().sum() > 0
        assert not up.grad[[0, 2]].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": -1}, "rank -1 must be at least 0"),
        ({"kind": "film", "rank": 4}, "rank 4 is of lora"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=f"TaskAdapters: {message}"):
        made(**settings)


def test_an_encoder_whose_first_stage_has_no_parameters():
    class Flat(MLP):
        def __init__(self, shape, width):
            super().__init__(shape, width=width, depth=1)
            self.stages = nn.Sequential(nn.Flatten(), *self.stages)

    torch.manual_seed(0)
    sharing = TaskAdapters(partial(Flat, SHAPES[MLP], width=4), TASKS).double()
    torch.manual_seed(0)
    x = SHAPES[MLP].example(5).double()
    torch.testing.assert_close(
        sharing(x)["c"], Flat(SHAPES[MLP], 4).double()(x), rtol=1e-10, atol=1e-12
    )
    check_owners(sharing.float(), SHAPES[MLP].example())
