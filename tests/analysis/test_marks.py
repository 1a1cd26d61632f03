"""Marks and notes of a report: other code, data and versions, failures, and how it was made."""

import json

import numpy as np
import pytest

from src.analysis.comparison import compare_rows
from src.analysis.results import StudyResults
from tests.analysis.made_study import (
    ROWS,
    SINGLE,
    STAMP,
    TASKS,
    TUNED,
    draw_scores,
    edit,
    make_study,
    remove_run,
)

DIFF = """diff --git a/{path} b/{path}
--- a/{path}
+++ b/{path}
@@ -1 +1 @@
-one
+two
"""


def report(folder):
    results = StudyResults(folder)
    return compare_rows(results, results.list_values(), [("digit", "accuracy")], None)


def change_git(folder, key, diff=None, commit=None):
    """Notes other code in the run folder of a trial."""
    run = folder.parent / "trials" / key / STAMP
    record = json.loads((run / "run.json").read_text())
    git = record["sessions"][-1]["git"]
    if commit:
        git["commit"] = commit
    if diff:
        git |= {"dirty": True, "diff": "code.diff"}
        (run / "code.diff").write_text(DIFF.format(path=diff))
    (run / "run.json").write_text(json.dumps(record))


@pytest.fixture
def folder(tmp_path):
    return make_study(tmp_path / "study")


def test_a_study_as_it_should_be_has_no_marks(folder):
    assert report(folder).marks == []


def test_runs_of_another_commit_are_named(folder):
    change_git(folder, "row-3-0", commit="f" * 40)
    assert report(folder).marks == [
        "Trials were made with 2 states of the code: commit 0123456 (39); commit fffffff (1: "
        "PCGrad, seed 0)."
    ]


def test_many_states_are_counted(folder):
    for place, key in enumerate(("row-1-0", "row-2-0", "row-2-1", "row-3-0", "row-3-1")):
        change_git(folder, key, commit=f"{place}" * 40)
    (mark,) = report(folder).marks
    assert "6 states of the code: commit 0123456 (35); commit 0000000 (1: " in mark
    assert mark.endswith("; 2 more.")


def test_changes_count_where_they_are_of_code_that_runs(folder):
    change_git(folder, "row-3-0", diff="README.md")
    change_git(folder, "row-3-1", diff="tests/test_house.py")
    assert report(folder).marks == []
    change_git(folder, "row-3-2", diff="src/models/step.py")
    (mark,) = report(folder).marks
    assert "commit 0123456 with changes " in mark
    assert "PCGrad, seed 2" in mark
    # equal changes are equal code
    change_git(folder, "row-2-2", diff="src/models/step.py")
    (mark,) = report(folder).marks
    assert "2 states of the code" in mark
    assert "(2: StaticWeights, seed 2; PCGrad, seed 2)" in mark


def test_other_data_and_versions_are_named(folder):
    run = folder.parent / "trials" / "row-3-1" / STAMP / "run.json"
    record = json.loads(run.read_text())
    # the same content elsewhere is the same data
    record["data"]["files"]["train"]["path"] = "/elsewhere/t.csv"
    record["data"]["rows"]["train"] = 900
    run.write_text(json.dumps(record))
    assert report(folder).marks == []

    record["data"]["files"]["train"]["sha256"] = "beef"
    record["versions"]["torch"] = "2.12.0"
    record["python"] = "3.12.1"
    run.write_text(json.dumps(record))
    data, torch, python = report(folder).marks
    assert "2 contents of the data files" in data
    assert "2 versions of torch: 2.13.0+cpu (39); 2.12.0 (1: PCGrad, seed 1)." in torch
    assert "2 versions of Python: 3.11.7 (39); 3.12.1 (1" in python


def test_a_failed_trial_is_named_with_its_line(tmp_path):
    line = "the memory of this machine has run out:\n lower --batch_size"
    comparison = report(make_study(tmp_path / "study", failed={("PCGrad", 1): line}))
    assert comparison.marks == [
        "PCGrad has 2 of 3 replicates.",
        "PCGrad, seed 1 failed: the memory of this machine has run out: lower --batch_size.",
    ]
    verdicts = comparison.tests.set_index("row")["verdict"]
    assert verdicts["PCGrad"] == "too few replicates"
    assert verdicts["StaticWeights"] == "no significant difference"


def test_an_unfinished_study_says_so(tmp_path):
    folder = make_study(tmp_path / "study", rows=ROWS[:4], finished=False)
    record = json.loads((folder / "study.json").read_text())
    for key in ("row-2-2", "row-2-1"):
        record["trials"][key] |= {"status": "running", "run": None}
    edit(folder / "study.json", trials=record["trials"])
    marks = report(folder).marks
    assert marks[0] == (
        "The study is unfinished (2 running): this report is partial; run `python -m src.compare "
        "--config configs/study/made.yaml` again to go on."
    )
    assert marks[1:] == [
        "StaticWeights has 1 of 3 replicates.",
        "PCGrad has 2 of 3 replicates.",
    ]


def test_lost_trials_of_tuning_are_named(folder):
    remove_run(folder, "tune-3-all-0")
    (mark,) = report(folder).marks
    assert mark.startswith("The run folders of 1 trials of tuning are gone")
    assert "PCGrad, tuning" in mark


def test_metrics_that_are_undefined_or_near_zero_are_named(tmp_path):
    scores = draw_scores(ROWS, TASKS, 3)
    scores[3, 1, 2] = np.nan  # odd auroc
    scores[0, :, 0] = 0  # digit accuracy
    scores[0, :, 3] = [-0.1, 0.1, 0.02]  # ink r2
    marks = report(make_study(tmp_path / "study", scores)).marks
    assert marks == [
        f"digit accuracy is not in delta: it is zero or not defined in {SINGLE}.",
        "PCGrad has no odd auroc in 1 of 3 replicates, which leaves them out of delta.",
        f"Percentages of ink r2 mean little: {SINGLE} has 0.00667, which its interval does not "
        "tell from zero.",
    ]


# -- how it was made -------------------------------------------------------------------------------
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


# -- costs -----------------------------------------------------------------------------------------
def test_costs_are_of_all_trials_of_a_replicate(folder):
    costs = report(folder).costs.set_index("row")
    # three networks of 10 s, one of 20, and a fourth part of a minute
    assert costs.loc[SINGLE, "seconds"] == 30
    assert costs.loc[SINGLE, "steps"] == 3 * 51
    assert costs.loc["StaticWeights", "seconds"] == 20
    assert costs.loc["PCGrad", "relative"] == pytest.approx(1.5)
    assert costs.loc["ensemble", "seconds"] == 3 * 20 + 20
    assert costs.loc["PCGrad", "memory"] == 530_000_000
    assert costs.loc[SINGLE, "tuning_seconds"] == 9 * 10
    assert np.isnan(costs.loc["constant", "tuning_seconds"])


def test_a_trial_that_counts_for_some_tasks_costs_their_share(folder):
    """Networks that share nothing train together; one that is tuned otherwise is not used."""
    record = json.loads((folder / "study.json").read_text())
    row = next(row for row in record["rows"] if row["name"] == "PCGrad")
    row["replicates"][0]["trials"] = {"digit": "row-3-0", "odd": "row-3-0", "ink": "row-3-1"}
    row["replicates"] = row["replicates"][:1]
    edit(folder / "study.json", rows=record["rows"])
    costs = report(folder).costs.set_index("row")
    assert costs.loc["PCGrad", "seconds"] == pytest.approx(30 * 2 / 3 + 30 / 3)
    assert costs.loc["PCGrad", "steps"] == pytest.approx(51)


def test_what_was_chosen_and_among_how_many(folder):
    tuning = report(folder).tuning
    assert tuning["tried"].tolist() == [3] * 6
    single = tuning[tuning["row"] == SINGLE]
    assert single["tasks"].tolist() == ["digit", "odd", "ink"]
    chosen = json.loads(tuning.set_index("row").loc[TUNED, "chosen"])
    assert chosen["model.weights.digit"] == 0.5
