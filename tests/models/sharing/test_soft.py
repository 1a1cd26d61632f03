from functools import partial
from math import inf

import pytest
import torch

from src.batch import InputShape
from src.models.encoders import MLP, ConvNet
from src.models.sharing import Separate, SoftSharing, check_owners
from src.models.sharing.soft import distance

SHAPES = {MLP: InputShape((5,)), ConvNet: InputShape((1, 6, 6))}
TASKS = ["a", "b", "c"]


def made(kind=MLP, tasks=TASKS, seed=0, **settings):
    torch.manual_seed(seed)
    return SoftSharing(partial(kind, SHAPES[kind], width=4), tasks, **settings).double()


def encoders_of(kind, seed=0):
    torch.manual_seed(seed)
    return [kind(SHAPES[kind], width=4).double() for _ in TASKS]


@pytest.mark.parametrize("kind", [MLP, ConvNet])
@pytest.mark.parametrize("norm", ["l2", "trace"])
def test_the_penalty_is_its_formula(kind, norm):
    strengths = [0.5, 0.0, 2.0]
    sharing, encoders = made(kind, norm=norm, strength=strengths), encoders_of(kind)
    expected = torch.zeros((), dtype=torch.float64)
    for k, strength in enumerate(strengths):
        for same in zip(*(encoder.stages[k].parameters() for encoder in encoders), strict=True):
            M = torch.stack([p.flatten() for p in same])
            mean = M.mean(0)
            omega = (
                sum(((row - mean) ** 2).sum() for row in M)
                if norm == "l2"
                else torch.linalg.svdvals(M).sum()
            )
            expected = expected + strength * omega
    torch.testing.assert_close(
        sharing.penalty(), expected, rtol=1e-10 if norm == "l2" else 1e-4, atol=1e-12
    )
    assert made(kind, norm=norm, strength=0.0).penalty() is None
    sharing.penalty().backward()
    for name, p in sharing.named_parameters():
        reached = p.grad is not None and bool(p.grad.any())
        assert not (reached and "stages.1." in name)
        assert (
            reached or "stages.1." in name or name.endswith("bias") or p.unique().numel() == 1
        )  # norms begin alike


def test_the_trace_norms_gradient_is_u_v():
    """And 0 for tensors of 0, where any direction would do."""
    M = torch.randn(3, 20, dtype=torch.float64, requires_grad=True)
    U, _, V = torch.linalg.svd(M.detach(), full_matrices=False)
    (gradient,) = torch.autograd.grad(distance(M, "trace"), M)
    torch.testing.assert_close(gradient, U @ V, rtol=1e-4, atol=1e-5)
    for alike in (torch.zeros(3, 4), torch.ones(3, 4)):
        alike.requires_grad_()
        (gradient,) = torch.autograd.grad(distance(alike, "trace"), alike)
        torch.testing.assert_close(gradient, alike.detach() / 12**0.5, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", [MLP, ConvNet])
def test_without_an_infinite_strength_encoders_are_separate(kind):
    torch.manual_seed(0)
    separate = Separate(partial(kind, SHAPES[kind], width=4), TASKS).double()
    x = SHAPES[kind].example(5).double()
    for ours, theirs in zip(made(kind)(x).values(), separate(x).values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [MLP, ConvNet])
def test_an_infinite_penalty_moves_all_encoders_alike(kind):
    """All run with their mean: each task's loss moves all of them alike, as one shared encoder."""
    sharing, encoders = made(kind, strength=inf), encoders_of(kind)
    mean = kind(SHAPES[kind], width=4).double()
    with torch.no_grad():
        for p, *same in zip(*(e.parameters() for e in (mean, *encoders)), strict=True):
            p.copy_(torch.stack(same).mean(0))
    x = SHAPES[kind].example(5).double()
    features = sharing(x)
    for z in features.values():
        torch.testing.assert_close(z, mean(x), rtol=1e-10, atol=1e-12)
    features["b"].square().sum().backward()
    mean(x).square().sum().backward()
    for k in range(3):
        for name, p in mean.named_parameters():
            grad = (
                sharing.encoders.get_parameter(name).grad[k]
                if kind is MLP
                else sharing.encoders.encoders[k].get_parameter(name).grad
            )
            torch.testing.assert_close(grad, p.grad / 3, rtol=1e-9, atol=1e-12)
    assert {id(p) for p in sharing.shared_parameters()} == {id(p) for p in sharing.parameters()}
    assert sharing.penalty() is None


@pytest.mark.parametrize("tasks", [TASKS, ["a"]])
@pytest.mark.parametrize("strength", [0.1, [0.0, inf, 1.0]])
@pytest.mark.parametrize("kind", [MLP, ConvNet])
def test_owners(kind, tasks, strength):
    check_owners(made(kind, tasks, strength=strength).float(), SHAPES[kind].example())


def test_a_stronger_penalty_keeps_encoders_closer():
    distances = []
    for strength in (0.0, 0.1, 10.0):
        sharing = made(strength=strength)
        optimizer = torch.optim.SGD(sharing.parameters(), lr=0.01)
        x, y = (
            SHAPES[MLP].example(20).double(),
            torch.randn(3, 20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
        )
        for _ in range(50):
            optimizer.zero_grad()
            loss = sum((z - t).square().mean() for z, t in zip(sharing(x).values(), y, strict=True))
            (loss + (sharing.penalty() if strength else 0.0)).backward()
            optimizer.step()
        distances.append(
            sum(float((p - p.mean(0)).detach().square().sum()) for p in sharing.parameters())
        )
    assert distances[0] > 1.2 * distances[1] > 5 * distances[2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strength": -1.0}, "strength -1.0 must be at least 0"),
        ({"strength": float("nan")}, "strength nan must be at least 0"),
        ({"strength": [1.0]}, "strength has 1 entries, but the encoder has 3 stages"),
        ({"strength": inf, "norm": "trace"}, "infinite strength goes with norm l2 alone"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=f"SoftSharing: .*{message}"):
        made(**settings)
