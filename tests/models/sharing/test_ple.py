from functools import partial
from itertools import chain
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map

from src.batch import InputShape
from src.models.encoders import MLP
from src.models.encoders.encoder import top
from src.models.sharing.ple import CGC, PLE
from src.models.sharing.sharing import check_owners
from src.models.sharing.stacked_encoders import StackedEncoders
from tests.models.sharing.test_gates import ENCODERS, check_contract, example, rows, short

TASKS = ["a", "b", "c"]


@pytest.mark.parametrize(("shared", "own", "levels"), [(2, 2, 1), (1, 2, 2), (2, 1, 2)])
def test_contract(shared, own, levels):
    check_contract(partial(PLE, shared=shared, own=own, levels=levels))


def test_owners_of_three_levels_and_more():
    for encoder in (partial(MLP, InputShape((5,)), width=3, depth=3), ENCODERS["words"]):
        for levels in (3, 4):
            sharing = PLE(encoder, TASKS, shared=1, own=1, levels=levels).double()
            check_owners(sharing, example(encoder))


def expert(copies: StackedEncoders, k, state):
    """What expert k makes of a state."""
    each = tree_map(lambda x: x.expand(len(copies), *x.shape), state) if copies.apart else state
    return tree_map(lambda x: x[k], copies(each, copies.apart))


def weighted(shares, states):
    def add(*parts):
        return (
            sum(w * x for w, x in zip(shares, parts, strict=True))
            if parts[0].is_floating_point()
            else parts[0]
        )

    return tree_map(add, *states)


def softmax(logits):
    return [logit.exp() / sum(other.exp() for other in logits) for logit in logits]


def gates(module, t, v):
    return softmax(
        [module.weight[t, e] @ v + module.bias[t, e] for e in range(module.bias.shape[1])]
    )


def places(state, image, tokens):
    """The mean over the real places of one row."""
    x = top(state)[0]
    if image:
        return x.mean((-2, -1))
    return x[tokens > 0].mean(0) if tokens is not None else x


def by_hand(sharing: PLE, inputs, image):
    """One row through all levels, in loops over tasks and experts."""
    tokens = inputs["tokens"][0] if isinstance(inputs, dict) and "tokens" in inputs else None
    T, own = len(sharing.tasks), sharing.own
    read = [sharing.read(inputs)[0]] * (T + 1)
    states = [inputs] * (T + 1)
    level: Any
    for level in sharing.levels:
        of_tasks = [
            [expert(level.own, t * own + k, states[t]) for k in range(own)] for t in range(T)
        ]
        of_all = [expert(level.shared, k, states[T]) for k in range(len(level.shared))]
        mixed = [weighted(gates(level.gates, t, read[t]), of_tasks[t] + of_all) for t in range(T)]
        if level.shared_gate is not None:
            mixed.append(
                weighted(gates(level.shared_gate, 0, read[T]), [*chain(*of_tasks), *of_all])
            )
            read = [places(state, image, tokens) for state in mixed]
        states = mixed
    return states


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize(("shared", "own", "levels"), [(2, 1, 1), (1, 2, 2)])
def test_levels_are_the_papers(kind, shared, own, levels):
    torch.manual_seed(0)
    sharing = PLE(ENCODERS[kind], TASKS, shared, own, levels).double()
    for name, p in sharing.named_parameters():
        if "gate" in name:
            nn.init.normal_(p)
    inputs = example(ENCODERS[kind])
    found = sharing(inputs)
    for b in range(6):
        for task, z in zip(
            TASKS, by_hand(sharing, rows(inputs, [b]), kind == "image"), strict=True
        ):
            torch.testing.assert_close(found[task][b], z[0])


def test_stages_are_cut_into_levels_as_equal_as_can_be():
    for depth, levels, lengths in [
        (4, 2, [2, 3]),
        (3, 4, [1, 1, 1, 1]),
        (7, 3, [2, 3, 3]),
        (0, 1, [1]),
    ]:
        sharing = PLE(partial(MLP, InputShape((5,)), width=2, depth=depth), ["a"], 1, 1, levels)
        assert [len(level.shared.names) for level in sharing.levels] == lengths


def test_cgc_is_ple_of_one_level():
    torch.manual_seed(7)
    one = CGC(ENCODERS["table"], TASKS, shared=1, own=2)
    torch.manual_seed(7)
    other = PLE(ENCODERS["table"], TASKS, shared=1, own=2, levels=1)
    inputs = ENCODERS["table"]().shape.example(6)
    for task, z in one(inputs).items():
        assert torch.equal(z, other(inputs)[task])
    assert list(one.state_dict()) == list(other.state_dict())


def test_a_task_reaches_its_own_experts_and_gate_alone():
    sharing = CGC(ENCODERS["vector"], TASKS, shared=1, own=2).double()
    loss = sharing(example(ENCODERS["vector"]))["b"].square().sum()
    level = sharing.levels[0]
    for p, gradient in zip(
        level.own.parameters(),
        torch.autograd.grad(loss, list(level.own.parameters()), retain_graph=True),
        strict=True,
    ):
        assert gradient.shape == p.shape
        assert gradient[2:4].flatten(1).any(1).all()
        assert not gradient[[0, 1, 4, 5]].any()
    for gradient in torch.autograd.grad(loss, [*level.gates.parameters()], retain_graph=True):
        assert gradient[1].any()
        assert not gradient[[0, 2]].any()
    assert all(g.any() for g in torch.autograd.grad(loss, [*level.shared.parameters()]))
    private = {id(p) for p in [*level.own.parameters(), *level.gates.parameters()]}
    assert not private & {id(p) for p in sharing.shared_parameters()}


def test_the_gates_of_the_last_two_levels_are_the_tasks_own():
    torch.manual_seed(0)
    sharing = PLE(
        partial(MLP, InputShape((5,)), width=3, depth=3), TASKS, shared=1, own=1, levels=4
    ).double()
    z = sharing(torch.randn(4, 5, dtype=torch.float64))
    for k, level in enumerate(sharing.levels):
        rows = [
            torch.autograd.grad(z[t].sin().sum(), level.gates.weight, retain_graph=True)[0]
            .flatten(1)
            .any(1)
            for t in TASKS
        ]
        assert torch.equal(torch.stack(rows), torch.eye(3) > 0 if k >= 2 else torch.ones(3, 3) > 0)
        groups = [
            owned
            for owned in sharing.owners()
            if any(p is level.gates.weight for p in owned.parameters)
        ]
        assert [owned.slices for owned in groups] == [k >= 2]


def test_what_fills_up_a_sequence_does_not_count():
    sharing = PLE(ENCODERS["words"], TASKS).double()
    inputs = example(ENCODERS["words"])
    for task, z in sharing(short(inputs)).items():
        torch.testing.assert_close(z[:, :-1], sharing(inputs)[task])


def test_gates_are_seen_in_evaluation_alone_and_drawn():
    sharing = PLE(ENCODERS["vector"], TASKS, shared=1, own=2)
    x = torch.randn(4, 5)
    sharing(x)
    assert (sharing.observe(), sharing.figures({}), sharing.summary({})) == ({}, {}, [])
    sharing.eval()(x)
    seen = sharing.observe()
    assert {title: tuple(gates.shape) for title, gates in seen.items()} == {
        "gates of level 1": (4, 3, 3),
        "gates of level 2": (4, 3, 3),
    }
    torch.testing.assert_close(seen["gates of level 1"], sharing.levels[0].gates(x).softmax(-1))
    assert not seen["gates of level 2"].requires_grad
    mean = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.0, 0.0, 1.0]])
    means = {"gates of level 1": mean, "gates of level 2": mean.flip(0)}
    figures = sharing.figures(means)
    assert list(figures["gates of level 1"].columns) == ["own 1", "own 2", "shared 1"]
    assert figures["gates of level 2"].loc["c", "own 1"] == 0.5
    assert sharing.summary(means) == [
        "gates of level 1: share of the shared experts a 0.25, b 0.70, c 1.00",
        "gates of level 2: share of the shared experts a 1.00, b 0.70, c 0.25",
    ]


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (PLE, {"shared": 0}, "PLE: shared 0 and own 2 must be at least 1"),
        (PLE, {"own": 0}, "PLE: shared 2 and own 0 must be at least 1"),
        (CGC, {"own": -1}, "CGC: shared 2 and own -1 must be at least 1"),
        (PLE, {"levels": 0}, r"PLE: levels 0 is outside 1 \.\.\. 3, the stages of MLP"),
        (PLE, {"levels": 4}, r"PLE: levels 4 is outside 1 \.\.\. 3, the stages of MLP"),
    ],
)
def test_bad_settings_are_named(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(ENCODERS["vector"], TASKS, **settings)
