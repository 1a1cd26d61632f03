"""Sentences of a report on how its numbers were made."""

import pytest

from src.analysis.notes import format_choices
from tests.analysis.made_study import ROWS, SINGLE, TUNED, edit, make_study, report


@pytest.fixture
def folder(tmp_path):
    return make_study(tmp_path / "study")


def test_notes_say_how_it_was_made(folder):
    tuning, intervals, delta, tests, _, costs = report(folder).notes
    assert "model.optimizer.lr in {0.001, 0.003, 0.01}; grid, 3 candidates for each row" in tuning
    assert "chosen by val/score on validation rows" in tuning
    assert "Test rows were read once, from the chosen checkpoints" in tuning
    assert "over three seeds (Student's t)" in intervals
    assert "one split of the data" in intervals
    assert f"improvement over {SINGLE} in percent" in delta
    assert "higher is better" in delta
    assert f"against {TUNED} on Δ tasks (paired t test" in tests
    assert "Holm" in tests
    assert "relative to StaticWeights" in costs


def test_notes_of_folds_name_the_variance(tmp_path):
    notes = report(make_study(tmp_path / "study", folds=5, seeds=(0, 1))).notes
    assert "5 folds, each the mean of two seeds" in notes[1]
    assert "(1/n + n_test/n_train) s², n_test/n_train = 0.25" in notes[1]
    assert "Nadeau and Bengio" in notes[1]
    assert "corrected resampled t test" in notes[3]


def test_notes_say_what_a_study_lacks(tmp_path):
    rows = [row for row in ROWS if row.kind == "method"]
    comparison = report(make_study(tmp_path / "study", rows=rows, seeds=(0,), candidates=0))
    tuning, intervals, delta, tests, *_ = comparison.notes
    assert tuning.startswith("Nothing was tuned.")
    assert intervals == "One seed gives no intervals and no tests: state more, such as seeds: 5."
    assert delta == "There is no delta: the study has no single-task row."
    assert tests == "Nothing was tested: the study has no baseline row."
    assert comparison.summary[["low", "high"]].isna().all(axis=None)
    assert len(comparison.tests) == len(comparison.deltas) == 0


def test_weights_alone_may_be_tuned(tmp_path):
    folder = make_study(tmp_path / "study")
    edit(folder / "study.json", tuning=None)
    assert (
        report(folder)
        .notes[0]
        .startswith(
            "Nothing was tuned but weights: single-task tried 3, tuned fixed weights tried 3, "
        )
    )


def test_ranges_and_choices_in_words():
    assert format_choices({"low": 0.0001, "high": 0.01, "log": True}) == (
        "from 0.0001 to 0.01, on a log scale"
    )
    assert format_choices({"low": 16, "high": 256, "integer": True}) == "from 16 to 256"
    assert format_choices(["a", "b"]) == "in {a, b}"
