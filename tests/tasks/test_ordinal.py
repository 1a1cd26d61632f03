"""Ordinal against its definition in float64, and against scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score, mean_absolute_error

from src.data.kinds import task_from_plain
from src.errors import UserError
from src.tasks import Ordinal
from tests.tasks.measuring import check_batched, check_gradient, check_missing, measure

METHODS = ("corn", "cumulative")


def make(method="corn", classes=4, **settings):
    return Ordinal(classes=tuple(range(classes)), method=method, **settings)


def draw(task, rows=40, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    outputs = scale * torch.randn(rows, task.out_features, generator=generator)
    targets = torch.randint(0, len(task.classes), (rows,), generator=generator)
    return outputs, targets


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(method, outputs):
    """Probabilities of the classes of one row, from its outputs."""
    if method == "corn":
        reached = 1.0
        found = []
        for output in outputs:
            found.append(reached * (1 - sigmoid(output)))
            reached *= sigmoid(output)
        return [*found, reached]
    logit = outputs[0]
    above = [1.0, sigmoid(logit)]
    for output in outputs[1:]:
        logit -= np.log1p(np.exp(output))
        above.append(sigmoid(logit))
    return -np.diff([*above, 0.0])


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), method=st.sampled_from(METHODS), classes=st.integers(2, 6))
def test_probabilities_and_losses_against_their_definition(seed, method, classes):
    task = make(method, classes)
    outputs, targets = draw(task, 9, seed)
    wanted = np.array([reference(method, row) for row in outputs.double().numpy()])
    got = task.log_probabilities(outputs.double()).exp()
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(got.sum(-1).numpy(), 1, rtol=1e-12)
    losses = task.losses(outputs.double(), targets)
    np.testing.assert_allclose(
        losses.numpy(), -np.log(wanted[np.arange(9), targets]), rtol=1e-6, atol=1e-12
    )


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), method=st.sampled_from(METHODS))
def test_the_prediction_is_the_median(seed, method):
    task = make(method, 5)
    outputs, _ = draw(task, 9, seed)
    above = 1 - task.log_probabilities(outputs.double()).exp().cumsum(-1)[..., :-1]
    assert (above.diff(dim=-1) <= 1e-12).all()
    assert torch.equal(task.predict(outputs), (above > 0.5).sum(-1))


def test_the_binary_losses_of_the_paper():
    """CORN: a row of rank y is an example of the questions 0 ... y."""
    outputs = torch.tensor([[0.3, -1.2, 2.0]], dtype=torch.float64)
    answers = torch.nn.functional.binary_cross_entropy_with_logits
    for rank, yes in enumerate([[0], [1, 0], [1, 1, 0], [1, 1, 1]]):
        wanted = answers(
            outputs[0, : len(yes)], torch.tensor(yes, dtype=torch.float64), reduction="sum"
        )
        loss = make().losses(outputs, torch.tensor([rank]))
        torch.testing.assert_close(loss, wanted[None])


@pytest.mark.parametrize("method", METHODS)
def test_gradients_missing_labels_and_alike_tasks(method):
    task = make(method)
    outputs, targets = draw(task, 12)
    outputs = outputs.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda o: task.losses(o, targets), (outputs,))
    check_missing(task, *draw(task, 12), torch.arange(12) % 3 == 0)
    words = Ordinal(classes=("a", "b", "c", "d"), method=method, weight=2.0, monitor="mae")
    generator = torch.Generator().manual_seed(1)
    check_batched(task, words, torch.randn(5, 2, 3, generator=generator), targets[:10].view(5, 2))


def test_extreme_outputs_have_finite_losses():
    for method in METHODS:
        outputs = torch.tensor([[200.0, 200, 200], [-200, -200, -200], [200, -200, 200]])
        outputs.requires_grad_()
        for rank in range(4):
            losses = make(method).losses(outputs, torch.full((3,), rank))
            (gradient,) = torch.autograd.grad(losses.sum(), outputs)
            assert losses.isfinite().all()
            assert gradient.isfinite().all()


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), method=st.sampled_from(METHODS), weighted=st.booleans())
def test_metrics_against_sklearn(seed, method, weighted):
    task = make(method)
    outputs, targets = draw(task, 40, seed)
    weights = torch.rand(40, dtype=torch.float64) + 0.1 if weighted else None
    got = measure(task, outputs, targets, weights)
    guess = task.predict(outputs)
    assert got == pytest.approx(
        {
            "mae": mean_absolute_error(targets, guess, sample_weight=weights),
            "quadratic_kappa": cohen_kappa_score(
                targets, guess, weights="quadratic", sample_weight=weights
            ),
            "accuracy": accuracy_score(targets, guess, sample_weight=weights),
        },
        rel=1e-6,
    )


def test_metrics_without_labels_or_with_one_class():
    task = make()
    assert np.isnan(list(measure(task, torch.zeros(3, 3), torch.full((3,), -100)).values())).all()
    same = measure(task, torch.full((3, 3), -9.0), torch.zeros(3, dtype=torch.long))
    assert same["accuracy"] == 1
    assert np.isnan(same["quadratic_kappa"])


def test_class_weights_are_factors_on_the_loss():
    outputs, targets = draw(make(), 8)
    weighted = make(class_weights=(1.0, 2.0, 0.0, 0.5)).losses(outputs, targets)
    factors = torch.tensor([1.0, 2.0, 0.0, 0.5])[targets]
    torch.testing.assert_close(weighted, make().losses(outputs, targets) * factors)


def test_numbers_are_ordered_by_size_and_words_by_hand():
    assert Ordinal().fit(np.array([10, 9, None, 2], dtype=object), ["y"]).classes == (2, 9, 10)
    written = np.array(["10.5", "9,5", "-1"], dtype=object)
    assert Ordinal().fit(written, ["y"]).classes == ("-1", "9,5", "10.5")
    words = np.array(["low", "high", "mid"], dtype=object)
    with pytest.raises(UserError, match=r"words for classes \(high, low, mid\), and the alphabet"):
        Ordinal().fit(words, ["y"])
    task = Ordinal(classes=("low", "mid", "high")).fit(words, ["y"])
    assert task.encode(words).tolist() == [0, 2, 1]
    with pytest.raises(UserError, match="single value"):
        Ordinal().fit(np.array([1, 1]), ["y"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "logits"}, "none of corn, cumulative"),
        ({"label_smoothing": 0.1}, "leave it out"),
        ({"classes": (1,)}, "at least two"),
        ({"classes": (1, 2, 1)}, "different"),
        ({"monitor": "f1"}, "none of mae, quadratic_kappa, accuracy"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(UserError, match=message):
        Ordinal(**settings)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31), method=st.sampled_from(METHODS), scale=st.sampled_from([0.3, 8.0])
)
def test_ensembles_average_probabilities(seed, method, scale):
    task = make(method)
    generator = torch.Generator().manual_seed(seed)
    outputs = scale * torch.randn(3, 6, 3, generator=generator)
    mean = task.log_probabilities(outputs.double()).exp().mean(0)
    averaged = task.average(outputs)
    got = task.log_probabilities(averaged.double()).exp()
    np.testing.assert_allclose(got.numpy(), mean.numpy(), rtol=1e-4, atol=1e-6)
    spread = task.measure_spread(outputs, averaged)["spread"]
    chosen = task.predict(averaged)
    each = task.log_probabilities(outputs.double()).exp().numpy()
    wanted = each[:, np.arange(6), chosen].std(0)
    np.testing.assert_allclose(spread, wanted, rtol=1e-6, atol=1e-12)


def test_people_read_classes_and_probabilities():
    task = Ordinal(classes=("low", "mid", "high"))
    decoded = task.decode(torch.tensor([[9.0, 0.5], [-9.0, 0.0]]))
    assert list(decoded) == ["", "p_low", "p_mid", "p_high"]
    assert decoded[""] == ["high", "low"]
    assert decoded["p_high"] == pytest.approx([sigmoid(9) * sigmoid(0.5), sigmoid(-9) / 2])
    assert task.decode_targets(torch.tensor([2, -100])) == {"": ["high", None]}
    assert task_from_plain(task.describe()) == task
    assert task.score({"quadratic_kappa": 0.3}) == pytest.approx(0.3)
    assert Ordinal(monitor="mae").score({"mae": 0.3}) == pytest.approx(-0.3)
    assert task.likelihood == "categorical"


def test_check_gradient_can_fail():
    """The measure itself can tell a wrong gradient."""

    class Wrong(Ordinal):
        def losses(self, outputs, targets):
            return super().losses(outputs, targets.long()) + outputs.detach().sum(-1)

    with pytest.raises(Exception, match="Jacobian mismatch"):
        check_gradient(Wrong(classes=(0, 1, 2)), torch.randn(2, 2), torch.tensor([0, 1]))
