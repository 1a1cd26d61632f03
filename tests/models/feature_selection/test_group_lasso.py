"""Group lasso: the proximal operator of a column, and where it applies."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from src.batch import InputShape
from src.errors import UserError
from src.models import MultiTaskModel
from src.models.encoders import MLP, ConvNet
from src.models.feature_selection import GroupLasso, StepSizes
from src.models.sharing import CrossStitch, HardSharing, MMoE, Separate, TaskAdapters
from src.tasks import Regression

TABLE = InputShape((3,), (4, 2), columns=("age", "age", "hours", "job", "sex"))
TASKS = {name: Regression(mean=(0.0,), std=(1.0,)) for name in "ab"}
SMALL = partial(MLP, width=4, depth=1)


def build(select=GroupLasso, shape=TABLE, encoder=SMALL, sharing=HardSharing):
    model = MultiTaskModel(TASKS, shape, encoder, sharing, select=select)
    model.configure_model()
    return model


def columns_of(weight):
    """The weights of each column of TABLE: embeddings have 3 and 2 numbers."""
    return weight.split([2, 1, weight.shape[-1] - 5, 2], -1)


def step(selection, optimizer):
    """A step in which gradients are 0: the operator acts alone."""
    selection.begin_step(0.0, None)
    optimizer.zero_grad()
    sum(0.0 * p.sum() for p in selection.parameters()).backward()
    optimizer.step()
    selection.finish_step(StepSizes(optimizer))


def test_each_column_shrinks_by_its_threshold():
    selection = build(partial(GroupLasso, strength=0.3)).selection
    (weight,) = selection.weights()
    before = [part.detach().clone() for part in columns_of(weight)]
    step(selection, SGD(selection.parameters(), lr=0.1))
    for old, new in zip(before, columns_of(weight), strict=True):
        cut = 0.1 * 0.3 * old.numel() ** 0.5
        expected = old * max(0, 1 - cut / float(old.norm()))
        torch.testing.assert_close(new.detach(), expected, rtol=1e-5, atol=1e-7)


def test_it_is_the_proximal_operator_of_the_penalty():
    """The result minimises 1/2 |V - W|^2 + eta lambda sqrt(p) |V|: no near point is better."""
    selection = build(partial(GroupLasso, strength=0.3)).double().selection
    (weight,) = selection.weights()
    old = columns_of(weight)[0].detach().clone()
    step(selection, SGD(selection.parameters(), lr=0.1))
    new = columns_of(weight)[0].detach()

    def objective(v):
        return 0.5 * (v - old).square().sum() + 0.1 * 0.3 * old.numel() ** 0.5 * v.norm()

    best = objective(new)
    generator = torch.Generator().manual_seed(0)
    for size in (1e-4, 1e-2, 1.0):
        for _ in range(50):
            move = torch.randn(new.shape, generator=generator, dtype=torch.float64)
            assert objective(new + size * move) >= best


def test_adam_shrinks_in_its_own_metric():
    selection = build(partial(GroupLasso, strength=0.01)).selection
    (weight,) = selection.weights()
    optimizer = Adam(selection.parameters(), lr=0.001)
    gradient = torch.rand(weight.shape) + 0.5
    weight.grad = gradient.clone()
    selection.begin_step(0.0, None)
    optimizer.step()
    before = [part.detach().clone() for part in columns_of(weight)]
    selection.finish_step(StepSizes(optimizer))
    for old, new, g in zip(before, columns_of(weight), columns_of(gradient), strict=True):
        # after one step the size of a gradient is its absolute value
        cut = 0.001 / float(g.mean()) * 0.01 * old.numel() ** 0.5
        torch.testing.assert_close(new.detach(), old * (1 - cut / old.norm()), rtol=1e-4, atol=1e-6)


def test_a_closed_column_is_zero_and_stays_closed():
    selection = build(partial(GroupLasso, strength=0.0)).selection
    (weight,) = selection.weights()
    with torch.no_grad():
        columns_of(weight)[1].zero_()
    selection.begin_step(0.0, None)
    optimizer = SGD(selection.parameters(), lr=0.1)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    selection.finish_step(StepSizes(optimizer))
    assert not columns_of(weight)[1].any()
    assert selection.list_open() == {task: ["age", "job", "sex"] for task in "ab"}

    model = build()
    rows = TABLE.example(5)
    other = {**rows, "dense": rows["dense"] + torch.tensor([0.0, 0.0, 2.0])}
    model.sharing.load_state_dict(selection.state_dict())
    assert torch.equal(model.eval()(rows)["a"], model(other)["a"])


def test_groups_span_the_encoders_of_all_tasks_or_are_of_each():
    shared = build(sharing=Separate).selection
    (weight,) = shared.weights()
    norms = torch.stack([part.norm() for part in columns_of(weight)])
    torch.testing.assert_close(shared.norms()[0].float(), norms.detach())

    own = build(partial(GroupLasso, per="task"), sharing=Separate).selection
    (weight,) = own.weights()
    with torch.no_grad():
        columns_of(weight)[2][1].zero_()
    assert own.list_open() == {"a": ["age", "hours", "job", "sex"], "b": ["age", "hours", "sex"]}


def test_a_frozen_layer_is_left_alone():
    selection = build(partial(GroupLasso, strength=9.0)).selection
    before = selection.weights()[0].detach().clone()
    selection.begin_step(0.0, None)
    selection.finish_step(StepSizes(SGD([nn.Parameter(torch.zeros(1))], lr=0.1)))
    assert torch.equal(selection.weights()[0], before)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"select": partial(GroupLasso, per="task")}, "HardSharing shares it"),
        ({"select": partial(GroupLasso, per="task"), "sharing": CrossStitch}, "CrossStitch shares"),
        ({"select": partial(GroupLasso, strength={"a": 1, "b": 1})}, "strength names tasks"),
        (
            {"select": partial(GroupLasso, per="both")},  # type: ignore[arg-type]
            "per 'both' must be shared or task",
        ),
        ({"sharing": MMoE}, "MMoE and this encoder task 'a' would still read them"),
        ({"sharing": TaskAdapters}, "TaskAdapters and this encoder task 'a'"),
        (
            {"shape": InputShape((3, 8, 8)), "encoder": partial(ConvNet, width=8, depth=1)},
            "dense, as MLP has",
        ),
    ],
)
def test_what_cannot_be_right_is_refused(settings, words):
    with pytest.raises(UserError, match=words):
        build(**settings)
