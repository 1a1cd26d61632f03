"""Models of a column: constants, linear models and boosting, against scikit-learn and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression

from src.analysis.references import (
    PENALTIES,
    Boosting,
    Constant,
    Labelled,
    Learner,
    Linear,
    find_median,
    find_method,
    log_probabilities,
)
from src.batch import InputShape
from src.errors import UserError

RNG = np.random.default_rng(0)


def labelled(x, y, weight=None):
    return Labelled(
        np.asarray(x, float), np.asarray(y), np.ones(len(y)) if weight is None else weight
    )


def nothing(features):
    return labelled(np.zeros((0, features)), np.zeros(0))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_constant_shares_are_those_of_the_weights(y):
    weight = np.arange(1.0, len(y) + 1)
    rows = labelled(np.zeros((len(y), 0)), y, weight)
    scores = Constant(InputShape(), 0).classify("a", rows, rows)(np.zeros((3, 0)))
    wanted = [weight[np.array(y) == c].sum() / weight.sum() for c in np.unique(y)]
    np.testing.assert_allclose(np.exp(scores), [wanted] * 3, rtol=1e-12)


def test_constant_is_the_mean_or_the_median():
    rows = labelled(np.zeros((5, 0)), [0.0, 1, 2, 3, 100])
    constant = Constant(InputShape(), 0)
    assert constant.regress("a", rows, rows, False)(np.zeros((2, 0))).tolist() == [21.2, 21.2]
    assert constant.regress("a", rows, rows, True)(np.zeros((2, 0))).tolist() == [2.0, 2.0]


def numbers_and_codes(rows, seed=0):
    """Returns (N, 3 + 1) numbers of uneven scales and codes 1 ... 4, which have an effect."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3)) * [1.0, 50.0, 0.02] + [0, 7, 0]
    codes = rng.integers(1, 5, rows)
    effect = np.array([0.0, 2.0, -2.0, 2.0, -2.0])[codes]
    y = x[:, 0] - x[:, 1] / 50 + effect + rng.normal(size=rows)
    return np.column_stack([x, codes]).astype(np.float32), y


SHAPE = InputShape((3,), (5,))


def encoded(kind: type[Learner], rows=300):
    x, y = numbers_and_codes(rows)
    more, y_val = numbers_and_codes(rows, seed=1)
    reference = kind(SHAPE, 0)
    reference.learn_inputs(x)
    return reference, labelled_as(reference, x, y), labelled_as(reference, more, y_val)


def labelled_as(reference, x, y):
    return Labelled(reference.encode(x), y, np.ones(len(y)))


def dense(matrix):
    return matrix.toarray() if hasattr(matrix, "toarray") else matrix


def test_linear_regression_is_ridge_on_standardised_numbers_and_one_hot_codes():
    reference, train, val = encoded(Linear)
    x = dense(train.x)
    assert x.shape == (300, 3 + 4)
    np.testing.assert_allclose(x[:, :3].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(x[:, :3].std(0), 1, rtol=1e-5)
    assert (x[:, 3:].sum(1) == 1).all()

    # the closed form, for each penalty; the one with the lowest squared error on validation rows
    found = {}
    centre = x - x.mean(0)
    for penalty in PENALTIES:
        gram = centre.T @ centre + penalty * np.eye(7)
        w = np.linalg.solve(gram, centre.T @ (train.y - train.y.mean()))
        found[penalty] = train.y.mean() + (dense(val.x) - x.mean(0)) @ w
    best = min(found, key=lambda penalty: ((found[penalty] - val.y) ** 2).sum())
    predicted = reference.regress("a", train, val, absolute=False)(val.x)
    assert reference.choices == {"a": best}
    np.testing.assert_allclose(predicted, found[best], rtol=1e-5, atol=1e-5)


def test_linear_classes_are_a_logistic_regression_whose_penalty_validation_rows_choose():
    reference, train, val = encoded(Linear)
    train = Labelled(train.x, np.digitize(train.y, [-1, 1]), train.weight)
    val = Labelled(val.x, np.digitize(val.y, [-1, 1]), val.weight)
    losses = {}
    for penalty in PENALTIES:
        model = LogisticRegression(C=1 / penalty, max_iter=5000, tol=1e-8).fit(train.x, train.y)
        scores = model.predict_log_proba(val.x)
        losses[penalty] = -scores[np.arange(300), val.y].sum(), scores
    best = min(losses, key=lambda penalty: losses[penalty][0])
    scores = reference.classify("a", train, val)(val.x)
    assert reference.choices == {"a": best}
    np.testing.assert_allclose(scores, losses[best][1], atol=0.02)
    assert reference.describe_choices() == [
        f"linear: penalty a {best:g}, chosen on validation rows"
    ]


def test_a_solver_that_stops_early_is_named(monkeypatch):
    monkeypatch.setattr("src.analysis.references.MOST_STEPS", 1)
    reference, train, val = encoded(Linear)
    classes = Labelled(train.x, (train.y > 0).astype(int), train.weight)
    val = Labelled(val.x, (val.y > 0).astype(int), val.weight)
    with pytest.warns(UserWarning, match="linear: a has not converged in 1 steps"):
        reference.classify("a", classes, val)


def test_weights_of_rows_count_in_each_model():
    x = np.zeros((40, 1))
    y = np.array([0, 1] * 20)
    weight = np.where(y == 1, 3.0, 1.0)
    for kind in (Constant, Linear, Boosting):
        reference = kind(InputShape((1,)), 0)
        train = labelled(x, y, weight)
        scores = reference.classify("a", train, train)(x)
        np.testing.assert_allclose(np.exp(scores), [[0.25, 0.75]] * 40, rtol=2e-3)


def test_boosting_stops_by_the_validation_rows_that_it_is_given():
    reference, train, val = encoded(Boosting)
    predicted = reference.regress("a", train, val, absolute=False)(val.x)
    trees = int(reference.choices["a"])

    # the squared error after each tree of a model that does not stop early
    model = HistGradientBoostingRegressor(
        max_iter=trees + 10, early_stopping=False, categorical_features=[False] * 3 + [True]
    ).fit(train.x, train.y)
    errors = [((y - val.y) ** 2).sum() for y in model.staged_predict(val.x)]
    assert int(np.argmin(errors)) + 1 == trees
    assert 5 < trees < 200
    np.testing.assert_allclose(((predicted - val.y) ** 2).sum(), min(errors), rtol=1e-9)

    # other rows of validation, another number of trees
    noise = Labelled(val.x, RNG.normal(size=300), val.weight)
    again = Boosting(SHAPE, 0)
    again.regress("a", train, noise, absolute=False)
    assert again.choices["a"] < trees


def test_boosting_takes_codes_for_categories():
    """A tree of two leaves tells codes 1 and 3 from 2 and 4, which no cut of numbers does."""
    reference, train, val = encoded(Boosting)
    assert train.x.shape == (300, 4)
    with_codes = reference.regress("a", train, val, absolute=False)(val.x)
    mean_of = [with_codes[val.x[:, 3] == code].mean() for code in np.unique(val.x[:, 3])]
    assert mean_of[0] > mean_of[1] + 2
    assert mean_of[2] > mean_of[3] + 2


@pytest.mark.parametrize("kind", [Linear, Boosting])
def test_categories_that_training_does_not_know_or_that_are_too_many(kind):
    rng = np.random.default_rng(0)
    codes = np.concatenate([np.arange(1, 400), rng.integers(1, 5, 400)])
    x = np.column_stack([rng.normal(size=len(codes)), codes]).astype(np.float32)
    y = x[:, 0] + (codes == 1)
    reference = kind(InputShape((1,), (401,)), 0)
    reference.learn_inputs(x)
    train = labelled_as(reference, x, y)
    val = labelled_as(reference, x[:50], rng.normal(size=50))
    predict = reference.regress("a", train, val, absolute=False)
    if kind is Linear:
        assert train.x.shape[1] == 1 + 255
    new = reference.encode(np.array([[0.0, 0.0]], np.float32))  # 0 is the code of unknown words
    assert np.isfinite(predict(new)).all()


@pytest.mark.parametrize("kind", [Linear, Boosting])
def test_without_validation_rows_there_is_nothing_to_choose(kind):
    reference, train, _ = encoded(kind)
    none = nothing(train.x.shape[1])
    assert np.isfinite(reference.regress("a", train, none, absolute=False)(train.x)).all()
    classes = Labelled(train.x, (train.y > 0).astype(int), train.weight)
    assert reference.classify("b", classes, none)(train.x).shape == (300, 2)
    assert reference.choices == {}
    assert reference.describe_choices() == []


@pytest.mark.parametrize("kind", [Linear, Boosting])
def test_the_same_numbers_again(kind):
    first, train, val = encoded(kind)
    second, again, _ = encoded(kind)
    one = first.regress("a", train, val, absolute=True)(val.x)
    two = second.regress("a", again, val, absolute=True)(val.x)
    assert (one == two).all()


@pytest.mark.parametrize("kind", [Linear, Boosting])
def test_inputs_must_be_finite(kind):
    x, _ = numbers_and_codes(10)
    x[7, 2] = np.nan
    with pytest.raises(UserError, match="training row 7 holds nan as input 2"):
        kind(SHAPE, 0).learn_inputs(x)


@given(st.lists(st.floats(-800, 800), min_size=1, max_size=5))
def test_log_probabilities_are_finite_and_sum_to_one(scores):
    two = log_probabilities(np.array(scores))
    assert np.isfinite(two).all()
    np.testing.assert_allclose(np.exp(two).sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(two[:, 1] - two[:, 0], scores, rtol=1e-9, atol=1e-9)


def test_a_method_that_is_not_there(monkeypatch):
    assert find_method("linear", "--method") is Linear
    with pytest.raises(UserError, match="--method lineal is unknown: did you mean 'linear'"):
        find_method("lineal", "--method")
    monkeypatch.setattr("src.analysis.references.find_spec", lambda name: None)
    assert find_method("constant", "--method") is Constant
    with pytest.raises(UserError, match="--reference boosting needs scikit-learn: pip install"):
        find_method("boosting", "--reference")


@pytest.mark.parametrize("rows", [5, 6])
def test_the_median_of_weights_is_that_of_repeated_rows(rows):
    rng = np.random.default_rng(rows)
    values = rng.normal(size=rows)
    weights = rng.integers(1, 4, rows)
    assert find_median(values, np.ones(rows)) == np.median(values)
    repeated = np.repeat(values, weights)
    assert find_median(values, weights.astype(float)) == np.median(repeated)
