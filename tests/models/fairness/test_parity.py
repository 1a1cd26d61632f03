from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from src.batch import SENSITIVE, Batch
from src.errors import UserError
from src.models.fairness import DemographicParity, EqualizedOdds
from src.models.fairness.parity import ParityPenalty, compute_penalty, find_gap
from src.tasks import Quantiles, is_labelled
from tests.models.fairness.examples import GROUPS, TASKS, make_batch, make_heads, make_outputs

KINDS = (DemographicParity, EqualizedOdds)


def mean_of(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum()


def write_out(name: str, output: Tensor, batch: Batch, given_label: bool) -> Tensor:
    """The penalty of a task by its definition, with loops over cells and pairs of groups."""
    task = TASKS[name]
    targets = batch.targets[name]
    classes = 2
    if name in ("number", "vector"):
        values, targets, classes = output, targets.reshape(len(output), -1), 1
    elif name == "class":
        values, classes = output.softmax(-1), 3
    elif name == "rank":
        values, classes = task.log_probabilities(output).exp(), 3  # type: ignore[attr-defined]
    else:
        values, targets = output.sigmoid(), targets.reshape(len(output), -1)
    if targets.ndim == 1:
        targets = targets[:, None].expand_as(values)
    weights = batch.weights.get(name, torch.ones(len(output), dtype=torch.float64))

    squares = []
    for label in range(classes) if given_label else [None]:
        for c in range(values.shape[1]):
            means = []
            for g in range(len(GROUPS)):
                mask = is_labelled(targets[:, c]) & (batch.extras[SENSITIVE] == g)
                if label is not None:
                    mask = mask & (targets[:, c] == label)
                if mask.any():
                    means.append(mean_of(values[mask, c], weights[mask]))
            pairs = [(a - b) ** 2 for a, b in combinations(means, 2)]
            if pairs:
                squares.append(torch.stack(pairs).mean())
    return torch.stack(squares).mean()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_loss_and_its_gradient_are_those_of_the_definition(kind: type[ParityPenalty]) -> None:
    heads = make_heads()
    batch = make_batch()
    names = [name for group in heads.groups for name in group.names]
    strengths = {"binary": 3.0, "class": 0.5, "labels": 2.0, "rank": 1.5}
    if kind is DemographicParity:
        strengths |= {"number": 0.7, "vector": 4.0}
    fairness = kind({name: TASKS[name] for name in names}, GROUPS, strength=strengths)

    outputs = make_outputs(heads)
    sums_T, counts_T = fairness.loss_sums(heads, outputs, batch, learns=False)
    losses_T = sums_T / counts_T
    ours = torch.autograd.grad(losses_T.sum(), outputs)

    plain_T, _ = heads.loss_sums(outputs, batch.targets, batch.weights)
    split = heads.split(outputs)
    expected = []
    for name, plain in zip(names, plain_T / counts_T, strict=True):
        if name in strengths:
            penalty = write_out(name, split[name], batch, fairness.given_label)
            plain = plain + strengths[name] * penalty
        expected.append(plain)
    theirs = torch.autograd.grad(torch.stack(expected).sum(), outputs)

    torch.testing.assert_close(losses_T, torch.stack(expected), rtol=1e-12, atol=0)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(2, 5), st.integers(1, 3), st.integers(1, 3))
def test_a_penalty_knows_no_order_of_groups_and_is_0_for_equal_means(
    seed: int, groups: int, conditions: int, numbers: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = conditions, groups, numbers
    counts = torch.randint(0, 6, shape, generator=generator).double()
    values = torch.rand(shape, generator=generator, dtype=torch.float64) * counts
    penalty = compute_penalty(values, counts)
    order = torch.randperm(groups, generator=generator)
    torch.testing.assert_close(compute_penalty(values[:, order], counts[:, order]), penalty)
    assert penalty >= 0
    assert float(compute_penalty(0.3 * counts, counts)) == pytest.approx(0, abs=1e-15)
    # twice the difference is four times the penalty
    torch.testing.assert_close(compute_penalty(2 * values, counts), 4 * penalty)
    gap = find_gap(values, counts)
    assert (gap is None) == (not ((counts > 0).sum(1) > 1).any())
    if gap is not None:
        assert float(penalty) <= gap**2 + 1e-12


def test_of_two_groups_it_is_the_square_of_the_gap() -> None:
    values = torch.tensor([[[3.0], [1.0]]], dtype=torch.float64)
    counts = torch.tensor([[[4.0], [5.0]]], dtype=torch.float64)
    assert float(compute_penalty(values, counts)) == pytest.approx(0.55**2)
    assert find_gap(values, counts) == pytest.approx(0.55)


def test_a_batch_of_one_group_has_no_penalty() -> None:
    heads = make_heads()
    batch = make_batch()
    batch.extras[SENSITIVE].fill_(1)
    names = [name for group in heads.groups for name in group.names]
    fairness = DemographicParity({name: TASKS[name] for name in names}, GROUPS)
    outputs = make_outputs(heads)
    sums_T, _ = fairness.loss_sums(heads, outputs, batch, learns=True)
    plain_T, _ = heads.loss_sums(outputs, batch.targets, batch.weights)
    assert torch.equal(sums_T, plain_T)
    assert fairness.measure() == {}


def test_curves_have_the_gap_of_all_rows_since_the_last_point() -> None:
    heads = make_heads()
    names = [name for group in heads.groups for name in group.names]
    fairness = EqualizedOdds({name: TASKS[name] for name in names}, GROUPS)
    first, second = make_batch(seed=3, weighted=False), make_batch(seed=4, weighted=False)
    outputs = [make_outputs(heads, seed=5), make_outputs(heads, seed=6)]
    for batch, own in zip((first, second), outputs, strict=True):
        fairness.loss_sums(heads, own, batch, learns=True)
        fairness.loss_sums(heads, own, batch, learns=False)
    found = fairness.measure()
    assert set(found) == {f"train/{name}/gap" for name in ("binary", "class", "labels", "rank")}

    p = torch.cat([heads.split(own)["binary"].detach() for own in outputs]).sigmoid().squeeze(-1)
    y = torch.cat([first.targets["binary"], second.targets["binary"]])
    g = torch.cat([first.extras[SENSITIVE], second.extras[SENSITIVE]])
    gaps = []
    for label in (0, 1):
        means = [float(p[(y == label) & (g == k)].mean()) for k in range(3)]
        gaps.append(max(means) - min(means))
    assert found["train/binary/gap"] == pytest.approx(max(gaps), rel=1e-12)
    assert fairness.measure() == {}


@pytest.mark.parametrize(
    ("strength", "message"),
    [
        ({"binery": 1.0}, "names 'binery', which is no task; did you mean 'binary'?"),
        ({"number": 1.0}, "names 'number', but EqualizedOdds compares the probabilities of rows"),
        ({"binary": -1.0}, "strength.binary is -1.0; it must be a number from 0"),
        (float("inf"), "model.fairness.strength is inf"),
    ],
)
def test_strengths_that_cannot_be_are_refused(
    strength: float | dict[str, float], message: str
) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        EqualizedOdds(TASKS, GROUPS, strength=strength)


def test_tasks_of_other_kinds_alone_are_refused() -> None:
    with pytest.raises(UserError, match="compares probabilities or means, which no task has"):
        DemographicParity({"q": Quantiles()}, GROUPS)
    with pytest.raises(UserError, match="name the columns of a table that tell them"):
        DemographicParity(TASKS, ())
