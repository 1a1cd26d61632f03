import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map

from src.models.sharing.learning_to_branch import LearningToBranch
from tests.models.sharing.test_gates import ENCODERS, check_contract, example, rows

TASKS = ["a", "b", "c"]


def choose(sharing, *parents):
    """Makes each node, and each task, prefer the given one."""
    for alpha, chosen in zip(sharing.choices, parents, strict=True):
        nn.init.zeros_(alpha)
        with torch.no_grad():
            alpha[torch.arange(len(alpha)), chosen] = 1


def node(sharing, k, i, state):
    """What node i of stage k makes of a state of its own."""
    return tree_map(lambda x: x[i], sharing.nodes(state, first=k, last=k + 1))


def weighted(shares, states):
    def add(*parts):
        return (
            sum(w * x for w, x in zip(shares, parts, strict=True))
            if parts[0].is_floating_point()
            else parts[0]
        )

    return tree_map(add, *states)


@pytest.mark.parametrize("branches", [None, 2])
def test_contract(branches):
    check_contract(partial(LearningToBranch, branches=branches))


@pytest.mark.parametrize("kind", ENCODERS)
def test_soft_samples_are_the_papers(kind):
    torch.manual_seed(0)
    sharing = LearningToBranch(
        ENCODERS[kind], TASKS, branches=2, temperature=0.7, speed=1.5
    ).double()
    for alpha in sharing.choices:
        nn.init.normal_(alpha)
    inputs = example(ENCODERS[kind])
    torch.manual_seed(4)
    found = sharing(inputs)
    torch.manual_seed(4)
    noise = [
        -torch.empty(alpha.shape, dtype=torch.float64).exponential_().log()
        for alpha in sharing.choices
    ]
    states = [node(sharing, 0, i, inputs) for i in range(2)]
    for k, alpha in enumerate(sharing.choices):
        mixed = []
        for row, g in zip(alpha, noise[k], strict=True):
            terms = [((1.5 * row[i] + g[i]) / 0.7).exp() for i in range(2)]
            mixed.append(weighted([term / sum(terms) for term in terms], states))
        states = (
            [node(sharing, k + 1, j, mixed[j]) for j in range(2)]
            if k + 1 < len(sharing.choices)
            else mixed
        )
    for task, z in zip(TASKS, states, strict=True):
        torch.testing.assert_close(found[task], z)


def test_noise_is_drawn_anew_in_each_step_and_is_gumbels():
    torch.manual_seed(0)
    sharing = LearningToBranch(ENCODERS["vector"], TASKS, temperature=0.1, speed=2.0)
    x = torch.randn(2, 5)
    assert not torch.equal(sharing(x)["a"], sharing(x)["a"])
    alpha = torch.tensor([[0.0, 1.0, 2.0]]).expand(20000, 3)
    counts = sharing._sample(alpha / 2).argmax(1).bincount() / 20000
    torch.testing.assert_close(counts, alpha[0].softmax(0), atol=0.015, rtol=0)


def test_all_rows_have_the_same_sample():
    sharing = LearningToBranch(ENCODERS["vector"], TASKS).double()
    x = example(ENCODERS["vector"])
    torch.manual_seed(2)
    whole = sharing(x)
    torch.manual_seed(2)
    part = sharing(rows(x, [3]))
    for task in TASKS:
        torch.testing.assert_close(part[task][0], whole[task][3])


@pytest.mark.parametrize("kind", ENCODERS)
def test_in_evaluation_each_task_goes_through_its_branch(kind):
    torch.manual_seed(0)
    sharing = LearningToBranch(ENCODERS[kind], TASKS).double().eval()
    between = len(sharing.choices) - 1
    choose(sharing, *[[2, 0, 1]] * between, [1, 1, 2])
    inputs = example(ENCODERS[kind])
    found = sharing(inputs)
    assert torch.equal(found["a"], found["b"])
    assert not torch.equal(found["a"], found["c"])
    for task, last in (("a", 1), ("c", 2)):
        route = [last]
        for _ in range(between):
            route.insert(0, [2, 0, 1][route[0]])
        state = inputs
        for k, i in enumerate(route):
            state = node(sharing, k, i, state)
        torch.testing.assert_close(found[task], state)
        assert sharing.routes()[TASKS.index(task)].tolist() == route


def test_in_training_all_is_reached_and_the_last_choice_is_the_tasks_own():
    sharing = LearningToBranch(ENCODERS["vector"], TASKS).double()
    x = example(ENCODERS["vector"])
    *between, last = sharing.choices
    gradients = torch.autograd.grad(
        sharing(x)["b"].square().sum(), [*sharing.nodes.parameters(), *between]
    )
    assert all(gradient.flatten(1).any(1).all() for gradient in gradients)
    gradient = torch.autograd.grad(sharing(x)["b"].square().sum(), last)[0]
    assert gradient[1].all()
    assert not gradient[[0, 2]].any()


def test_it_cools_and_goes_on_from_a_checkpoint():
    torch.manual_seed(0)
    sharing = LearningToBranch(ENCODERS["vector"], TASKS, temperature=2.0, cooling=0.5).double()
    found = [sharing.temperature.item()]
    for _ in range(6):
        sharing.on_epoch_end()
        found.append(sharing.temperature.item())
    assert found == pytest.approx([2, 1, 0.5, 0.25, 0.125, 0.1, 0.1])
    sharing.temperature.fill_(0.5)
    state = copy.deepcopy(sharing.state_dict())
    other = LearningToBranch(ENCODERS["vector"], TASKS, temperature=2.0, cooling=0.5).double()
    other.load_state_dict(state)
    for each in (sharing, other):
        each.on_epoch_end()
    assert other.temperature.item() == 0.25
    x = example(ENCODERS["vector"])
    outputs = []
    for each in (sharing, other):
        torch.manual_seed(9)
        outputs.append(torch.stack(list(each(x).values())))
    assert torch.equal(*outputs)


def test_the_tree_is_drawn_and_told():
    sharing = LearningToBranch(ENCODERS["vector"], TASKS, speed=2.0)
    assert sharing.summary({}) == ["tree: stage 1 {a, b, c}; stage 2 {a, b, c}; stage 3 {a, b, c}"]
    choose(sharing, [1, 1, 0], [1, 2, 0], [0, 1, 0])
    figures = sharing.figures({})
    assert list(figures) == ["branches", "last branch"]
    frame = figures["branches"]
    assert frame.to_numpy().dtype.kind == "i"
    assert list(frame.index) == TASKS
    assert list(frame.columns) == ["stage 1", "stage 2", "stage 3"]
    assert frame.to_numpy().tolist() == [[1, 1, 0], [0, 2, 1], [1, 1, 0]]
    assert figures["last branch"].loc["b"].tolist() == pytest.approx(
        torch.tensor([0.0, 2.0, 0.0]).softmax(0).tolist()
    )
    assert sharing.summary({}) == [
        "tree: stage 1 {a, c} {b}; stage 2 {a, c} {b}; stage 3 {a, c} {b}"
    ]
    choose(sharing, [1, 1, 0], [1, 1, 0], [0, 1, 2])
    assert sharing.summary({}) == [
        "tree: stage 1 {a, b, c}; stage 2 {a, b} {c}; stage 3 {a} {b} {c}"
    ]
    assert sharing.observe() == {}
    assert sharing.penalty() is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"branches": 0}, "LearningToBranch: branches 0 must be at least 1"),
        ({"temperature": 0.0}, "LearningToBranch: temperature 0.0 must be at least 0.1"),
        ({"cooling": 0.0}, r"cooling 0.0 in \(0, 1\]"),
        ({"speed": 0.0}, "LearningToBranch: speed 0.0 must be above 0"),
        ({"cooling": 1.1}, r"cooling 1.1 in \(0, 1\]"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        LearningToBranch(ENCODERS["vector"], TASKS, **settings)
