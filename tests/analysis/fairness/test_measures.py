"""Metrics by group: equal to fairlearn's, and nothing where rows do not tell them."""

import numpy as np
import pytest
import torch

from src.analysis.fairness.coverage import find_covered
from src.analysis.fairness.gaps import find_gaps, tell_better
from src.analysis.fairness.groups import Group, list_groups
from src.analysis.fairness.measures import (
    TaskRows,
    find_interval,
    list_decision_metrics,
    measure_groups,
)
from src.tasks import (
    BinaryClassification,
    CensoredRegression,
    Classification,
    Counts,
    MultilabelClassification,
    Ordinal,
    Quantiles,
    Regression,
)
from src.tasks.calibration.conformal import score_rows

ROWS = 600
SEX = np.array(["f", "m", "m"], dtype=object)[np.arange(ROWS) % 3].tolist()
RACE = np.array(["x", "y", "z", "x"], dtype=object)[np.arange(ROWS) // 7 % 4].tolist()
LABELS = {"sex": SEX, "race": RACE}
GROUPS = list_groups(LABELS, {"sex": ["f", "m"], "race": ["x", "y", "z"]})


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def make_binary(**settings):
    task = BinaryClassification(classes=("no", "yes"), threshold=0.4)
    outputs = draw(ROWS, 1) + torch.tensor([[0.5 * (sex == "m")] for sex in SEX])
    targets = (outputs[:, 0] + draw(2, ROWS)[1] > 0).float()
    targets[5] = float("nan")
    return TaskRows("t", task, outputs, targets, **settings)


def values_of(rows, metric, columns):
    return {
        row.groups[columns] if isinstance(columns, str) else row.groups[columns[0]]: row.value
        for row in rows
        if row.metric == metric and tuple(row.groups) == (columns,)
    }


def test_rates_and_parity_are_those_of_fairlearn():
    from fairlearn import metrics as fair

    own = make_binary()
    rows = measure_groups([own], GROUPS, 0, 0)
    gaps = {(gap.metric, gap.columns): gap for gap in find_gaps(rows, {"t": own.task})}
    known = ~own.targets.isnan()
    truth = own.targets[known].int().numpy()
    yes = own.task.predict(own.outputs)[known].int().numpy()
    of = {
        "accuracy": lambda y_true, y_pred: (y_true == y_pred).mean(),
        "selection_rate": fair.selection_rate,
        "true_positive_rate": fair.true_positive_rate,
        "false_positive_rate": fair.false_positive_rate,
    }
    for column, labels in LABELS.items():
        groups = np.array(labels, dtype=object)[known.numpy()]
        frame = fair.MetricFrame(metrics=of, y_true=truth, y_pred=yes, sensitive_features=groups)
        for metric in of:
            expected = frame.by_group[metric].to_dict()
            assert values_of(rows, metric, column) == pytest.approx(expected)
            assert gaps[metric, (column,)].gap == pytest.approx(frame.difference()[metric])
            assert gaps[metric, (column,)].ratio == pytest.approx(frame.ratio()[metric])
        given = {"sensitive_features": groups}
        parity = gaps["demographic_parity", (column,)]
        odds = gaps["equalized_odds", (column,)]
        assert parity.gap == pytest.approx(fair.demographic_parity_difference(truth, yes, **given))
        assert parity.ratio == pytest.approx(fair.demographic_parity_ratio(truth, yes, **given))
        assert odds.gap == pytest.approx(fair.equalized_odds_difference(truth, yes, **given))
        assert odds.ratio == pytest.approx(fair.equalized_odds_ratio(truth, yes, **given))


def test_weights_of_rows_count_in_rates_as_fairlearn_counts_them():
    from fairlearn import metrics as fair

    weights = draw(ROWS).abs()
    own = make_binary(weights=weights)
    rows = measure_groups([own], GROUPS, 0, 0)
    gaps = {(gap.metric, gap.columns): gap for gap in find_gaps(rows, {"t": own.task})}
    known = ~own.targets.isnan()
    expected = fair.equalized_odds_difference(
        own.targets[known].int().numpy(),
        own.task.predict(own.outputs)[known].int().numpy(),
        sensitive_features=np.array(SEX, dtype=object)[known.numpy()],
        sample_weight=weights[known].double().numpy(),
    )
    assert gaps["equalized_odds", ("sex",)].gap == pytest.approx(expected)


def test_groups_without_enough_labels_have_no_value_and_say_why():
    own = make_binary()
    few = np.arange(12)
    # no positive label among these
    negative = np.flatnonzero(own.targets.numpy() == 0)[:40]
    groups = [Group({"g": "none"}, few[:0]), Group({"g": "few"}, few), Group({"g": "no"}, negative)]
    rows = measure_groups([own], groups, 0, 0)
    by_key = {(row.groups["g"], row.metric): row for row in rows}
    metrics = {row.metric for row in rows}
    for metric in metrics:
        assert by_key["none", metric].value is None
        assert by_key["none", metric].note == "no rows with a label, fewer than 30"
        assert by_key["few", metric].value is None
        assert by_key["few", metric].note == "11 rows with a label, fewer than 30"
        assert by_key["few", metric].n == 11
    assert by_key["no", "true_positive_rate"].value is None
    assert by_key["no", "true_positive_rate"].note == "no positive labels"
    assert by_key["no", "auroc"].value is None
    assert by_key["no", "auroc"].note == "the labels of these rows do not define it"
    assert by_key["no", "false_positive_rate"].value is not None
    gaps = find_gaps(rows, {"t": own.task})
    assert all(gap.gap is None for gap in gaps)


def test_the_worst_group_is_by_what_is_better():
    task = Regression(mean=(10.0,), std=(2.0,))
    outputs = draw(ROWS, 1)
    # predictions are 3 units too high for f, and 5 too low for m
    shift = torch.tensor([1.5 if sex == "f" else -2.5 for sex in SEX])
    own = TaskRows("t", task, outputs, outputs[:, 0] - shift)
    rows = measure_groups([own], GROUPS, 0, 0)
    bias = values_of(rows, "bias", "sex")
    assert bias == pytest.approx({"f": 3.0, "m": -5.0}, abs=1e-5)
    mae = values_of(rows, "mae", "sex")
    assert mae == pytest.approx({"f": 3.0, "m": 5.0}, abs=1e-5)
    gaps = {gap.metric: gap for gap in find_gaps(rows, {"t": task}) if gap.columns == ("sex",)}
    assert gaps["bias"].gap == pytest.approx(8.0, abs=1e-5)
    assert gaps["bias"].ratio is None
    assert gaps["bias"].worst == gaps["mae"].worst == gaps["r2"].worst == "m"
    assert gaps["mae"].ratio == pytest.approx(0.6, abs=1e-5)
    assert tell_better(task, "rmse") == "less"
    assert tell_better(task, "r2") == "more"


def test_decisions_that_others_make_change_the_metrics_of_decisions_alone():
    plain = make_binary()
    turned = make_binary(decided=~plain.task.predict(plain.outputs).squeeze(-1))
    before = plain.measure(torch.arange(ROWS))
    after = turned.measure(torch.arange(ROWS))
    assert after["accuracy"] == pytest.approx(1 - before["accuracy"])
    assert after["selection_rate"] == pytest.approx(1 - before["selection_rate"])
    assert after["auroc"] == before["auroc"]
    same = make_binary(decided=plain.task.predict(plain.outputs).squeeze(-1))
    assert same.measure(torch.arange(ROWS)) == pytest.approx(before)


def test_added_metrics_of_decisions_follow_the_decisions():
    hand = {"class_path": "Accuracy", "init_args": {"threshold": 0.9, "name": "strict"}}
    task = BinaryClassification(classes=("no", "yes"), metrics=("Recall", "AUROC", hand))
    assert list_decision_metrics(task) == ["accuracy", "f1", "Recall"]


def test_intervals_hold_the_middle_of_the_draws_and_repeat():
    own = make_binary()
    once = measure_groups([own], GROUPS[:3], 40, 7)
    again = measure_groups([own], GROUPS[:3], 40, 7)
    assert once == again
    for row in once:
        assert row.low < row.value < row.high
    assert once != measure_groups([own], GROUPS[:3], 40, 8)
    low, high = find_interval(list(np.linspace(0, 1, 201)))
    assert (low, high) == pytest.approx((0.025, 0.975))
    assert find_interval([0.0, 0.0, 0.0]) == (None, None)
    # a mean's interval is 1.96 standard errors on each side
    accuracy = next(row for row in measure_groups([own], GROUPS[:1], 400, 0))
    half = 1.96 * (accuracy.value * (1 - accuracy.value) / accuracy.n) ** 0.5
    assert accuracy.high - accuracy.value == pytest.approx(half, rel=0.2)


KINDS = {
    "classes": (Classification(classes=("a", "b", "c")), draw(ROWS, 3), torch.arange(ROWS) % 3),
    "multilabel": (
        MultilabelClassification(labels=("p", "q")),
        draw(ROWS, 2),
        (draw(ROWS, 2) > 0.3).float(),
    ),
    "vector": (
        Regression(names=("u", "v"), mean=(0.0, 1.0), std=(1.0, 2.0)),
        draw(ROWS, 2),
        draw(ROWS, 2) + 1,
    ),
    "counts": (
        Counts(),
        draw(ROWS, 1),
        torch.stack([torch.arange(ROWS) % 4, torch.ones(ROWS)], -1).float(),
    ),
    "ordinal": (Ordinal(classes=(1, 2, 3)), draw(ROWS, 3), torch.arange(ROWS) % 3),
    "quantiles": (Quantiles(mean=0.0, std=1.0), draw(ROWS, 3), draw(ROWS)),
    "censored": (
        CensoredRegression(mean=0.0, std=1.0),
        draw(ROWS, 1),
        torch.stack([draw(ROWS), torch.arange(ROWS) % 3 - 1.0], -1),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_own_metrics_in_every_group(kind):
    task, outputs, targets = KINDS[kind]
    if isinstance(task, Ordinal):
        outputs = outputs[:, : task.out_features]
    own = TaskRows("t", task, outputs, targets)
    rows = measure_groups([own], GROUPS, 2, 0)
    metrics = {row.metric for row in rows}
    assert set(task.metric_names) <= metrics
    expected = {
        "classes": {"selection_rate.a", "true_positive_rate.c"},
        "multilabel": {"selection_rate.p", "false_positive_rate.q"},
        "vector": {"bias.u", "bias.v"},
        "counts": {"bias"},
        "ordinal": {"selection_rate.2"},
        "quantiles": {"bias", "coverage_0.8"},
        "censored": {"bias"},
    }
    assert expected[kind] <= metrics
    assert len({(tuple(row.groups.items()), row.metric) for row in rows}) == len(rows)
    values = task.assemble_metrics()
    inside = torch.from_numpy(GROUPS[2].rows)
    task.update_metrics(values, outputs[inside], targets[inside])
    computed = task.compute(values)
    for row in rows:
        if row.groups == {"sex": "m"} and row.metric in task.metric_names:
            assert row.value == pytest.approx(float(computed[row.metric]))
    assert find_gaps(rows, {"t": task})


def test_coverage_of_conformal_sets_and_intervals_is_by_group():
    shares = draw(ROWS, 1).sigmoid()
    task = Regression(mean=(0.0,), std=(2.0,))
    outputs = torch.zeros(ROWS, 1)
    # errors of m are twice as large
    scale = torch.tensor([1.0 if sex == "f" else 2.0 for sex in SEX])
    targets = draw(ROWS) * scale
    conformal = score_rows(task, outputs, targets, shares)
    covered = find_covered(conformal, outputs, targets)
    assert covered.mean() == pytest.approx(0.9, abs=0.005)
    own = TaskRows("t", task, outputs, targets, covered=covered)
    found = values_of(measure_groups([own], GROUPS, 0, 0), "conformal_coverage_0.9", "sex")
    assert found["f"] > 0.95
    assert found["m"] < 0.89
    by_sex = score_rows(task, outputs, targets, shares, SEX)
    fair = TaskRows(
        "t", task, outputs, targets, covered=find_covered(by_sex, outputs, targets, SEX)
    )
    found = values_of(measure_groups([fair], GROUPS, 0, 0), "conformal_coverage_0.9", "sex")
    assert found == pytest.approx({"f": 0.9, "m": 0.9}, abs=0.01)

    kinds = Classification(classes=("a", "b", "c"))
    logits, labels = draw(ROWS, 3), torch.arange(ROWS) % 3
    labels[0] = -100
    sets = find_covered(score_rows(kinds, logits, labels, shares), logits, labels)
    assert sets[0].isnan().all()
    assert sets[1:].mean() == pytest.approx(0.9, abs=0.005)
