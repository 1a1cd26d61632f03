from functools import partial

import pytest
import torch
from torch.func import functional_call

from src.batch import InputShape
from src.models.encoders import MLP, ConvNet
from src.models.sharing import Separate, WeightedSharing, check_owners

SHAPES = {MLP: InputShape((5,)), ConvNet: InputShape((1, 6, 6))}
TASKS = ["a", "b", "c"]


def made(kind=MLP, tasks=TASKS, **settings):
    torch.manual_seed(0)
    return WeightedSharing(partial(kind, SHAPES[kind], width=4), tasks, **settings).double()


@pytest.mark.parametrize("kind", [MLP, ConvNet])
def test_each_task_runs_with_its_mean_of_all_parameters(kind):
    sharing = made(kind)
    with torch.no_grad():
        sharing.logits.add_(torch.randn(sharing.logits.shape))
    torch.manual_seed(0)
    encoders = [kind(SHAPES[kind], width=4).double() for _ in TASKS]
    x = SHAPES[kind].example(5).double()
    weights = sharing.logits.detach().exp()
    weights = weights / weights.sum(-1, keepdim=True)  # (tasks, stages, tasks)
    for t, z in enumerate(sharing(x).values()):
        theta = {
            name: sum(
                weights[t, int(name.split(".")[1]), i] * e.get_parameter(name)
                for i, e in enumerate(encoders)
            )
            for name, _ in encoders[0].named_parameters()
        }
        torch.testing.assert_close(
            z, functional_call(encoders[0], theta, (x,)), rtol=1e-10, atol=1e-12
        )


@pytest.mark.parametrize("kind", [MLP, ConvNet])
def test_one_hot_weights_are_separate_networks(kind):
    sharing = made(kind)
    with torch.no_grad():
        sharing.logits.copy_(1e4 * torch.eye(3)[:, None].expand_as(sharing.logits))
    torch.manual_seed(0)
    separate = Separate(partial(kind, SHAPES[kind], width=4), TASKS).double()
    x = SHAPES[kind].example(5).double()
    ours, theirs = sharing(x), separate(x)
    for name in TASKS:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-12, atol=1e-12)
    ours["b"].square().sum().backward()
    theirs["b"].square().sum().backward()
    pairs = zip(sharing.encoders.named_parameters(), separate.encoders.parameters(), strict=True)
    for (name, p), q in pairs:
        torch.testing.assert_close(
            p.grad,
            torch.zeros_like(p) if q.grad is None else q.grad,
            rtol=1e-9,
            atol=1e-12,
            msg=name,
        )


def test_even_weights_are_hard_sharing():
    sharing = made(own=1 / 3)
    z = list(sharing(SHAPES[MLP].example(5).double()).values())
    torch.testing.assert_close(z[0], z[1], rtol=1e-10, atol=1e-12)


def test_weights_start_as_told_and_are_drawn():
    sharing = made(own=0.8)
    figures = sharing.figures({})
    assert list(figures) == ["weights of stage 1", "weights of stage 2", "weights of stage 3"]
    table = figures["weights of stage 2"]
    assert list(table.index) == list(table.columns) == TASKS
    assert table.to_numpy() == pytest.approx(0.1 + 0.7 * torch.eye(3).numpy(), abs=1e-6)


@pytest.mark.parametrize("kind", [MLP, ConvNet])
@pytest.mark.parametrize("tasks", [TASKS, ["a"]])
def test_owners(kind, tasks):
    sharing = made(kind, tasks).float()
    check_owners(sharing, SHAPES[kind].example())
    assert len(list(sharing.shared_parameters())) == len(list(sharing.parameters())) - (
        len(tasks) > 1
    )


@pytest.mark.parametrize("own", [0.0, 1.0, -1.0, 2.0])
def test_bad_settings_are_named(own):
    with pytest.raises(ValueError, match=rf"WeightedSharing: own {own} is outside \(0, 1\)"):
        made(own=own)
