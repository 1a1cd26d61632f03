"""Thresholds by group: the decisions of fairlearn, kept as plain numbers."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from src.analysis.fairness.thresholds import fit_optimizer, fit_rules
from src.errors import UserError
from src.files.typed import Damaged
from src.tasks.group_thresholds import (
    GroupThresholds,
    draw_for_rows,
    read_group_thresholds,
    write_group_thresholds,
)

ROWS = 2000


def make_rows():
    rng = np.random.default_rng(0)
    groups = rng.choice(["f", "m", "d"], ROWS, p=[0.4, 0.5, 0.1]).tolist()
    shift = np.array([{"f": -0.6, "m": 0.4, "d": 0.0}[group] for group in groups])
    logits = rng.normal(size=ROWS) + shift
    positive = rng.random(ROWS) < 1 / (1 + np.exp(-2 * logits + 0.3))
    return 1 / (1 + np.exp(-logits)), positive, groups


def make_thresholds(rules, **changed):
    plain = GroupThresholds(
        "EqualizedOdds", "accuracy", ("sex",), {}, rules, 3, ROWS, 10, "abc", None
    )
    return replace(plain, **changed)


class GivenDraws(np.random.RandomState):
    """Draws that were drawn already, in place of fairlearn's own."""

    def __init__(self, draws):
        super().__init__(0)
        self.draws = draws

    def rand(self, count):
        assert count == len(self.draws)
        return self.draws


@pytest.mark.parametrize("constraint", ["EqualizedOdds", "DemographicParity"])
@pytest.mark.parametrize("objective", ["accuracy", "balanced_accuracy"])
def test_decisions_are_those_of_fairlearn(constraint, objective, tmp_path):
    scores, positive, groups = make_rows()
    rules = fit_rules(constraint, objective, scores, positive, groups)
    path = tmp_path / "thresholds.json"
    write_group_thresholds(path, {"t": make_thresholds(rules)})
    own = read_group_thresholds(path)["t"]
    assert own == make_thresholds(rules)

    # new rows, and the same ones
    rng = np.random.default_rng(1)
    new = rng.random(700)
    names = [f"row {k}" for k in range(700)]
    of_new = rng.choice(["f", "m", "d"], 700).tolist()
    optimizer = fit_optimizer(constraint, objective, scores, positive, groups)
    for given, by, rows in ((new, of_new, names), (scores, groups, list(range(ROWS)))):
        draws = draw_for_rows(own.seed, "t", rows).numpy()
        expected = optimizer.predict(
            given[:, None],
            sensitive_features=np.array(by, dtype=object),
            random_state=GivenDraws(draws),
        )
        decided = own.decide("t", torch.from_numpy(given), by, rows)
        np.testing.assert_array_equal(decided.int().numpy(), expected)


def test_equalized_odds_hold_between_groups():
    from fairlearn.metrics import equalized_odds_difference

    scores, positive, groups = make_rows()
    rules = fit_rules("EqualizedOdds", "balanced_accuracy", scores, positive, groups)
    plain = equalized_odds_difference(positive, scores > 0.5, sensitive_features=groups)
    chances = np.empty(ROWS)
    for group, rule in rules.items():
        inside = np.array(groups) == group
        chances[inside] = rule.compute_chances(torch.from_numpy(scores[inside])).numpy()
    rates = []
    for group in rules:
        inside = np.array(groups) == group
        rates.append([chances[inside & positive].mean(), chances[inside & ~positive].mean()])
    gap = np.ptp(np.array(rates), axis=0).max()
    assert plain > 0.2
    # fairlearn looks at a thousand rates
    assert gap < 2e-3


def test_a_row_has_the_same_draw_whatever_stands_beside_it():
    draws = draw_for_rows(0, "t", ["a", "b", 3])
    assert draw_for_rows(0, "t", [3, "a"]).tolist() == [draws[2], draws[0]]
    assert draw_for_rows(1, "t", ["a"]) != draws[0]
    assert draw_for_rows(0, "u", ["a"]) != draws[0]
    many = draw_for_rows(0, "t", range(20000)).numpy()
    assert abs(many.mean() - 0.5) < 0.01
    assert abs(np.histogram(many, 10, (0, 1))[0] - 2000).max() < 200


def test_an_unknown_group_is_named_with_its_row():
    scores, positive, groups = make_rows()
    own = make_thresholds(fit_rules("DemographicParity", "accuracy", scores, positive, groups))
    with pytest.raises(UserError, match="row 8: sex is 'x', a group that t has no threshold for"):
        own.decide("t", torch.tensor([0.5, 0.5]), ["f", "x"], [7, 8])


def test_groups_that_tell_no_threshold_are_refused():
    scores, positive, groups = make_rows()
    with pytest.raises(UserError, match="all validation rows are of one group, 'f'"):
        fit_rules("EqualizedOdds", "accuracy", scores, positive, ["f"] * ROWS)
    positive[np.array(groups) == "d"] = True
    with pytest.raises(UserError, match=r"the group 'd' has \d+ validation rows, \d+ of them pos"):
        fit_rules("EqualizedOdds", "accuracy", scores, positive, groups)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"constraint": "Magic"}, "tasks.t.constraint"),
        ({"rows": -1}, "tasks.t.rows"),
        ({"groups": {"f": {"p0": 1}}}, "tasks.t.groups.f"),
        ({"code": "import os"}, "tasks.t"),
    ],
    ids=["constraint", "rows", "rule", "key"],
)
def test_a_damaged_file_is_refused(change, says, tmp_path):
    scores, positive, groups = make_rows()
    path = tmp_path / "thresholds.json"
    rules = fit_rules("DemographicParity", "accuracy", scores, positive, groups)
    write_group_thresholds(path, {"t": make_thresholds(rules)})
    content = json.loads(path.read_text())
    content["tasks"]["t"] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(Damaged, match=says):
        read_group_thresholds(path)
    path.write_text("{")
    with pytest.raises(Damaged, match="it is no JSON"):
        read_group_thresholds(path)


def test_a_run_without_the_file_has_no_thresholds(tmp_path):
    assert read_group_thresholds(tmp_path / "thresholds.json") == {}
