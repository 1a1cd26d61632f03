"""Marks of a report: other code, data and versions, failures, and numbers that mean little."""

import json

import numpy as np
import pytest

from src.analysis.markdown import write_markdown
from tests.analysis.made_study import (
    ROWS,
    SINGLE,
    STAMP,
    TASKS,
    draw_scores,
    edit,
    make_study,
    remove_run,
    report,
)

DIFF = """diff --git a/{path} b/{path}
--- a/{path}
+++ b/{path}
@@ -1 +1 @@
-one
+two
"""


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


def test_a_study_that_has_only_begun_has_a_report_without_numbers(folder):
    record = json.loads((folder / "study.json").read_text())
    for trial in record["trials"].values():
        trial |= {"status": "planned", "run": None, "seconds": None}
    edit(folder / "study.json", trials=record["trials"], finished=False)
    shown = report(folder)
    assert len(shown.values) == len(shown.curves) == len(shown.candidates) == 0
    assert shown.summary["mean"].isna().all()
    assert set(shown.tests["verdict"]) == {"too few replicates"}
    assert shown.critical is None
    assert shown.costs["seconds"].isna().all()
    assert "PCGrad has 0 of 3 replicates." in shown.marks
    assert "constant has 0 of 1 replicates." in shown.marks
    assert "nan" not in write_markdown(shown)


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
