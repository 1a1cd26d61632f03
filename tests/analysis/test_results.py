"""What a report reads of run folders: values, curves, candidates, and what is missing."""

import json

import numpy as np
import pytest

from src.analysis.results import StudyResults
from src.analysis.scores import arrange_scores, measure_overlap
from src.errors import UserError
from tests.analysis.made_study import (
    ROWS,
    SINGLE,
    STAMP,
    TASKS,
    TUNED,
    draw_scores,
    edit,
    make_study,
    name_columns,
    remove_run,
)


@pytest.fixture
def scores():
    return draw_scores(ROWS, TASKS, 3)


@pytest.fixture
def folder(tmp_path, scores):
    return make_study(tmp_path / "logs" / "study", scores)


def test_values_are_those_of_the_run_folders(folder, scores):
    results = StudyResults(folder)
    values = results.list_values()
    found = arrange_scores(values, results.record, 0.0)
    assert found.columns == name_columns(TASKS)
    assert found.signs.tolist() == [1, 1, 1, 1, -1, -1]
    assert found.rows == [row.name for row in ROWS]
    networks = ~found.references
    np.testing.assert_array_equal(found.values[networks], scores[networks])
    # a reference has one run for all seeds
    np.testing.assert_array_equal(found.values[5], np.broadcast_to(scores[5, :1], (3, 6)))
    assert found.repeats[5].sum() == 2 * 6
    assert found.repeats[:5].sum() == 0
    # the run folder of every number holds it
    for value in values[:: len(values) // 20]:
        metrics = json.loads((results.root / value.run / "metrics.json").read_text())
        stage = {"val": "validation", "test": "test"}[value.split]
        assert metrics[stage][f"{value.split}/{value.task}/{value.metric}"] == value.value


def test_the_study_can_be_moved(folder, scores, tmp_path):
    root = folder.parent.rename(tmp_path / "elsewhere")
    assert len(StudyResults(root / "study").list_values()) == 2 * scores.size


def test_values_of_folds_stand_at_their_fold(tmp_path):
    scores = draw_scores(ROWS, TASKS, 6)
    results = StudyResults(make_study(tmp_path / "study", scores, seeds=(3, 7), folds=3))
    found = arrange_scores(results.list_values(), results.record, 0.0)
    assert found.replicates == [(3, 0), (7, 0), (3, 1), (7, 1), (3, 2), (7, 2)]
    np.testing.assert_array_equal(found.values[3], scores[3])


def test_the_overlap_of_folds_is_read_from_the_runs(tmp_path):
    results = StudyResults(make_study(tmp_path / "study", folds=5, seeds=(0,)))
    # 312 rows test what 1,000 and 250 have taught
    assert measure_overlap(results) == pytest.approx(312 / 1250)
    for trial in results.trials.values():
        trial.record["data"] = None
    assert measure_overlap(results) == pytest.approx(1 / 4)
    assert measure_overlap(StudyResults(make_study(tmp_path / "other" / "study"))) == 0


def test_curves_are_those_of_progress(folder):
    curves = StudyResults(folder).list_curves()
    own = curves[(curves["row"] == "PCGrad") & (curves["seed"] == 1) & (curves["task"] == "")]
    assert own["step"].tolist() == [17, 34, 51]
    assert own["score"].is_monotonic_increasing
    # a network of one task has no score of all, and an error counts negative
    single = curves[curves["row"] == SINGLE]
    assert set(single["task"]) == set(TASKS)
    assert (single[single["task"] == "ink"]["score"] < 0).all()
    assert "constant" not in set(curves["row"])


def test_candidates_have_their_monitors_and_choice(folder):
    candidates = StudyResults(folder).list_candidates()
    tuned = candidates[candidates["row"] == TUNED]
    assert len(tuned) == 3 * 3
    assert tuned[tuned["chosen"]]["trial"].unique().tolist() == ["tune-1-all-1"]
    settings = json.loads(tuned["settings"].iloc[0])
    assert settings["model.weights.digit"] == pytest.approx(0.2)
    single = candidates[candidates["row"] == SINGLE]
    assert single.groupby("trial")["task"].nunique().max() == 1


def test_a_failed_trial_has_no_values(tmp_path):
    line = "the memory of this machine has run out"
    results = StudyResults(make_study(tmp_path / "study", failed={("PCGrad", 1): line}))
    seeds = {value.seed for value in results.list_values() if value.row == "PCGrad"}
    assert seeds == {0, 2}


def test_a_metric_that_is_not_defined_is_nan(tmp_path, scores):
    scores[3, 1, 2] = np.nan
    results = StudyResults(make_study(tmp_path / "study", scores))
    found = arrange_scores(results.list_values(), results.record, 0.0)
    assert np.isnan(found.values[3, 1, 2])
    assert np.isfinite(found.values[3, 1, [0, 1, 3, 4, 5]]).all()


# -- what is missing or wrong ----------------------------------------------------------------------
def test_a_deleted_run_folder_is_named_with_a_way_out(folder):
    run = remove_run(folder, "row-3-1")
    with pytest.raises(UserError) as error:
        StudyResults(folder)
    assert str(error.value) == (
        f"run folder {run} (PCGrad, seed 1) is gone: run `python -m src.compare --config "
        "configs/study/made.yaml` again, which trains it anew"
    )


def test_a_run_without_metrics_is_named(folder):
    (folder.parent / "trials" / "row-0-2-odd" / STAMP / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"\(single-task, seed 2, odd\) has lost its metrics.json"):
        StudyResults(folder)


def test_a_deleted_trial_of_tuning_is_no_mistake(folder):
    remove_run(folder, "tune-3-all-0")
    results = StudyResults(folder)
    assert results.lost == ["tune-3-all-0"]
    candidates = results.list_candidates()
    assert candidates[candidates["row"] == "PCGrad"]["trial"].nunique() == 2


def test_a_damaged_file_is_named(folder):
    path = folder.parent / "trials" / "row-3-1" / STAMP / "progress.json"
    path.write_text('{"step": -1, "validations": []}')
    with pytest.raises(UserError, match=r"progress.json is damaged: step is -1"):
        StudyResults(folder)
    edit(folder / "study.json", seeds="three")
    with pytest.raises(UserError, match=r"study.json is damaged: seeds is 'three'"):
        StudyResults(folder)


def test_what_is_no_study_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        StudyResults(tmp_path / "none")
    with pytest.raises(UserError, match=r"is no study folder: it holds no study.json"):
        StudyResults(tmp_path)
