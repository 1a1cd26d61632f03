"""Conformal sets and intervals: equal to mapie's, and as often right as they say."""

from math import inf, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from src.errors import UserError
from src.tasks import (
    BinaryClassification,
    Classification,
    Counts,
    MultilabelClassification,
    Ordinal,
    Quantiles,
    Regression,
    Segmentation,
)
from src.tasks.calibration.conformal import (
    KEPT,
    Scores,
    count_rows_needed,
    explain_refusal,
    score_rows,
)

BINARY = BinaryClassification(classes=("no", "yes"))
CLASSES = Classification(classes=(0, 1, 2, 3))
REGRESSION = Regression(mean=(10.0,), std=(3.0,))
QUANTILES = Quantiles(levels=(0.1, 0.5, 0.9), mean=10.0, std=3.0)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_classes(p: Tensor, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(p, 1, generator=generator).squeeze(-1)


def draw_shares(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


# -- thresholds ------------------------------------------------------------------------------------
@given(st.integers(1, 300), st.floats(0.01, 0.99))
def test_threshold_is_the_score_of_its_rank(n: int, coverage: float) -> None:
    scores = Scores.of(torch.arange(1, n + 1))
    rank = int(np.ceil((n + 1) * coverage - 1e-9))
    assert scores.threshold(coverage) == (rank if rank <= n else inf)
    assert (rank <= n) == (n >= count_rows_needed(coverage))


@pytest.mark.parametrize(("coverage", "rows"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19)])
def test_rows_that_a_coverage_needs(coverage: float, rows: int) -> None:
    assert count_rows_needed(coverage) == rows


def test_a_part_of_very_many_scores_covers_little_more() -> None:
    n = 7 * KEPT + 3
    part = Scores.of(torch.arange(1, n + 1))
    assert len(part.values) == KEPT
    for coverage in (0.1, 0.5, 0.9, 0.999):
        rank = np.ceil((n + 1) * coverage)
        assert rank <= part.threshold(coverage) <= rank + n / KEPT + 1
    assert part.threshold(1 - 1e-9) == inf


# -- mapie -----------------------------------------------------------------------------------------
class Known:
    """A model of scikit-learn's form whose predictions are its inputs."""

    def __init__(self, classes: int = 0) -> None:
        self.classes_ = np.arange(classes)
        self.is_fitted_ = True

    def fit(self, x: np.ndarray, y: np.ndarray) -> "Known":
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        return x.argmax(1) if len(self.classes_) else x[:, 0]

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return x

    def __sklearn_is_fitted__(self) -> bool:
        return True


@pytest.mark.parametrize("method", ["lac", "aps"])
def test_sets_against_mapie(method: str) -> None:
    classification = pytest.importorskip("mapie.classification")
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Model(Known, ClassifierMixin, BaseEstimator):
        pass

    coverage = 0.85
    logits, new = 2 * draw(333, 4), 2 * draw(500, 4, seed=4)
    y = draw_classes((logits / 2).softmax(-1))
    theirs = classification.SplitConformalClassifier(
        Model(4), confidence_level=coverage, conformity_score=method, prefit=True, random_state=3
    )
    theirs.conformalize(logits.softmax(-1).numpy(), y.numpy())
    _, expected = theirs.predict_set(new.softmax(-1).numpy())

    # mapie draws the random part of aps scores so
    shares = torch.tensor(np.random.RandomState(3).uniform(size=333))[:, None]
    conformal = score_rows(CLASSES, logits, y, shares)
    found = conformal.sets(new, coverage, method)  # type: ignore[arg-type]
    assert np.array_equal(found.numpy(), expected[..., 0])


def test_absolute_residuals_against_mapie() -> None:
    regression = pytest.importorskip("mapie.regression")
    from sklearn.base import BaseEstimator, RegressorMixin

    class Model(Known, RegressorMixin, BaseEstimator):
        pass

    outputs, new = draw(211, 1), draw(50, 1, seed=4)
    y = outputs[:, 0] + 0.5 * draw(211, seed=5)
    theirs = regression.SplitConformalRegressor(Model(), confidence_level=0.9, prefit=True)
    theirs.conformalize(REGRESSION.in_units(outputs).numpy(), REGRESSION.in_units(y).numpy())
    _, expected = theirs.predict_interval(REGRESSION.in_units(new).numpy())
    found = score_rows(REGRESSION, outputs, y, draw_shares(211, 1)).interval(new, 0.9)
    np.testing.assert_allclose(found[:, 0].numpy(), expected[:, :, 0], rtol=1e-12)


def test_cqr_against_mapie() -> None:
    regression = pytest.importorskip("mapie.regression")
    from sklearn.base import BaseEstimator, RegressorMixin

    class Column(RegressorMixin, BaseEstimator):
        def __init__(self, place: int = 0) -> None:
            self.place = place
            self.is_fitted = True

        def fit(self, x: np.ndarray, y: np.ndarray) -> "Column":
            return self

        def predict(self, x: np.ndarray) -> np.ndarray:
            return np.asarray(x[:, self.place])

        def __sklearn_is_fitted__(self) -> bool:
            return True

    outputs, new = draw(211, 3), draw(50, 3, seed=4)
    y = outputs[:, 1] + draw(211, seed=5)
    # mapie takes models of the lower, the upper and the middle quantile
    theirs = regression.ConformalizedQuantileRegressor(
        [Column(0), Column(2), Column(1)], confidence_level=0.8, prefit=True
    )

    def quantiles(values: Tensor) -> np.ndarray:
        return QUANTILES.in_units(QUANTILES.predict(values)).numpy()

    theirs.conformalize(quantiles(outputs), QUANTILES.in_units(y).numpy())
    _, expected = theirs.predict_interval(quantiles(new), symmetric_correction=True)
    found = score_rows(QUANTILES, outputs, y, draw_shares(211, 1)).interval(new, 0.8)
    np.testing.assert_allclose(found[:, 0].numpy(), expected[:, :, 0], rtol=1e-12)


# -- coverage --------------------------------------------------------------------------------------
DRAWS = 1000
# the share of 1,000 draws that is held has this standard deviation, and 4 of them are chance
WITHIN = 4 * sqrt(0.9 * 0.1 / DRAWS)


def test_coverage_over_draws_of_validation_rows_and_a_new_row() -> None:
    """In each draw there are fresh validation rows and one new row: the guarantee's own words."""
    n = 39
    logits = 2 * draw(DRAWS, n + 1, 4)
    y = draw_classes((logits / 2).softmax(-1).flatten(0, 1)).view(DRAWS, n + 1)
    shares = draw_shares(DRAWS, n, 1)
    held = {"lac": 0, "aps": 0}
    for k in range(DRAWS):
        conformal = score_rows(CLASSES, logits[k, :n], y[k, :n], shares[k])
        for method in held:
            chosen = conformal.sets(logits[k, n:], 0.9, method)  # type: ignore[arg-type]
            held[method] += int(chosen[0, y[k, n]])
    # exactly ceil(40 x 0.9) / 40 = 0.9 of lac's sets hold the label, and of aps' at least so many
    assert held["lac"] / DRAWS == pytest.approx(0.9, abs=WITHIN)
    assert held["aps"] / DRAWS > 0.9 - WITHIN


@pytest.mark.parametrize("task", [REGRESSION, QUANTILES], ids=["residual", "cqr"])
def test_coverage_of_intervals(task: Regression | Quantiles) -> None:
    n = 39
    outputs = draw(DRAWS, n + 1, task.out_features)
    y = task.predict(outputs)[..., task.out_features // 2] + draw(DRAWS, n + 1, seed=3)
    held = 0
    for k in range(DRAWS):
        conformal = score_rows(task, outputs[k, :n], y[k, :n], draw_shares(n, 1))
        low, high = conformal.interval(outputs[k, n:], 0.9)[0, 0]
        held += int(low <= task.in_units(y[k, n:])[0] <= high)
    assert held / DRAWS == pytest.approx(0.9, abs=WITHIN)


def test_groups_are_covered_each_by_itself() -> None:
    """Noise is four times as wide in one group; all rows together would cover it too little."""
    n = 4000
    groups = ["wide" if k % 4 == 0 else "narrow" for k in range(n)]
    spread = torch.tensor([4.0 if g == "wide" else 1.0 for g in groups])
    outputs, new = draw(n, 1), draw(n, 1, seed=2)
    y = outputs[:, 0] + spread * draw(n, seed=3)
    truth = REGRESSION.in_units(new[:, 0] + spread * draw(n, seed=4))
    conformal = score_rows(REGRESSION, outputs, y, draw_shares(n, 1), groups)
    wide = torch.tensor([g == "wide" for g in groups])

    def cover(by: list[str] | None) -> list[float]:
        low, high = conformal.interval(new, 0.9, by)[:, 0].unbind(-1)
        inside = (low <= truth) & (truth <= high)
        return [float(inside[rows].double().mean()) for rows in (wide, ~wide)]

    by_group = cover(groups)
    assert by_group[0] == pytest.approx(0.9, abs=4 * sqrt(0.09 / 1000 * 2))
    assert by_group[1] == pytest.approx(0.9, abs=4 * sqrt(0.09 / 3000 * 2))
    assert cover(None)[0] < 0.8


# -- forms -----------------------------------------------------------------------------------------
def test_sets_of_each_label_are_binary_sets() -> None:
    task = MultilabelClassification(labels=("x", "y"))
    x = draw(200, 2)
    y = (x + draw(200, 2, seed=3) > 0).double()
    y[:30, 1] = float("nan")
    shares = draw_shares(200, 2)
    both = score_rows(task, x, y, shares)
    for k in range(2):
        alone = score_rows(BINARY, x[:, k : k + 1], y[:, k], shares[:, k : k + 1])
        for method in ("lac", "aps"):
            found = both.sets(x, 0.8, method)[:, k]
            theirs = alone.sets(x[:, k : k + 1], 0.8, method)
            assert torch.equal(found, theirs)
    assert both.count_rows() == 170


def test_ordered_classes_have_sets() -> None:
    task = Ordinal(classes=(1, 2, 3, 4))
    x = draw(300, 3)
    y = draw_classes(task.log_probabilities(x).exp())
    found = score_rows(task, x, y, draw_shares(300, 1)).sets(x, 0.9)
    assert found.shape == (300, 4)
    assert float(found.gather(1, y[:, None]).double().mean()) == pytest.approx(0.9, abs=0.01)


def test_intervals_of_a_vector_have_widths_of_their_own() -> None:
    task = Regression(names=("a", "b"), mean=(0.0, 0.0), std=(1.0, 10.0))
    outputs = draw(300, 2)
    ends = score_rows(task, outputs, outputs + draw(300, 2, seed=1), draw_shares(300, 2))
    low, high = ends.interval(outputs, 0.9).unbind(-1)
    widths = (high - low).mean(0)
    assert float(widths[1] / widths[0]) == pytest.approx(10, rel=0.2)


def test_too_few_rows_give_everything() -> None:
    conformal = score_rows(CLASSES, draw(8, 4), torch.arange(8) % 4, draw_shares(8, 1))
    assert conformal.sets(draw(5, 4), 0.9).all()
    assert not conformal.sets(draw(5, 4), 0.5).all()
    widths = score_rows(REGRESSION, draw(8, 1), draw(8), draw_shares(8, 1))
    assert widths.interval(draw(2, 1), 0.9).tolist() == [[[-inf, inf]]] * 2


def test_a_group_that_validation_lacks_has_everything() -> None:
    groups = ["a"] * 50
    conformal = score_rows(CLASSES, draw(50, 4), torch.arange(50) % 4, draw_shares(50, 1), groups)
    found = conformal.sets(draw(2, 4), 0.5, groups=["a", "b"])
    assert not found[0].all()
    assert found[1].all()
    assert (conformal.count_rows("a"), conformal.count_rows("b")) == (50, 0)


def test_an_interval_that_would_be_less_than_nothing_is_a_point() -> None:
    outputs = torch.stack([torch.full((99,), 3.0), torch.zeros(99), torch.full((99,), 3.0)], -1)
    conformal = score_rows(QUANTILES, outputs, torch.zeros(99), draw_shares(99, 1))
    narrow = torch.tensor([[-9.0, 0.0, -9.0]])
    low, high = conformal.interval(narrow, 0.8)[0, 0]
    assert float(low) == float(high) == pytest.approx(10.0)


def test_export_traces_sets_and_intervals() -> None:
    sets = score_rows(CLASSES, draw(99, 4), torch.arange(99) % 4, draw_shares(99, 1))
    widths = score_rows(QUANTILES, draw(99, 3), draw(99), draw_shares(99, 1))

    class Module(torch.nn.Module):
        def forward(self, logits: Tensor, quantiles: Tensor) -> tuple[Tensor, Tensor]:
            return sets.sets(logits, 0.8), widths.interval(quantiles, 0.8)

    rows = torch.export.Dim("rows", min=2)
    given = draw(5, 4), draw(5, 3)
    program = torch.export.export(Module(), given, dynamic_shapes=({0: rows}, {0: rows}))
    more = draw(9, 4), draw(9, 3)
    found, expected = program.module()(*more), Module()(*more)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])


def test_labels_of_places_are_refused() -> None:
    pixels = Segmentation(classes=(0, 1))
    reason = explain_refusal(pixels, torch.zeros(2, 4, 4, 2))
    assert reason is not None and "places of one sample" in reason
    nodes = explain_refusal(BINARY, torch.zeros(2, 5, 1))
    assert nodes is not None and "places of one sample" in nodes
    assert "of a Counts" in str(explain_refusal(Counts(), torch.zeros(2, 1)))
    assert explain_refusal(BINARY, torch.zeros(2, 1)) is None


def test_rows_without_labels_are_refused() -> None:
    with pytest.raises(UserError, match="no validation row"):
        score_rows(BINARY, draw(5, 1), torch.full((5,), float("nan")), draw_shares(5, 1))
