"""The whole report of a made study, by its function and by its command."""

import json

import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from src.analysis.comparison import compare_rows
from src.analysis.latex import write_latex
from src.analysis.markdown import write_markdown
from src.analysis.report import choose_columns, choose_front, make_report
from src.analysis.results import StudyResults
from src.errors import UserError
from tests.analysis.made_study import ROWS, TASKS, TUNED, draw_scores, make_study, remove_run
from tests.cli.calling import call, refused

FILES = ("report.html", "report.md", "report.tex", "metrics.csv", "metrics.parquet")


@pytest.fixture(scope="module")
def scores():
    return draw_scores(ROWS, TASKS, 3)


@pytest.fixture(scope="module")
def study(tmp_path_factory, scores):
    """A study that lacks two replicates, and how the command ended that has made its report."""
    folder = tmp_path_factory.mktemp("root") / "study"
    make_study(folder, scores, failed={("PCGrad", 1): "no memory"}, finished=False)
    return folder, call("report", "--study", folder, "--metrics", "auroc,r2")


@pytest.fixture(scope="module")
def folder(study):
    return study[0]


# -- files -----------------------------------------------------------------------------------------
def test_all_files_are_there(folder):
    for name in FILES:
        assert (folder / name).stat().st_size > 1000
    assert (folder / "figures" / "delta.svg").is_file()


def test_raw_metrics_are_those_of_the_study_in_both_files(folder, scores):
    csv = pd.read_csv(folder / "metrics.csv")
    parquet = pd.read_parquet(folder / "metrics.parquet")
    assert csv.columns.tolist() == [
        *("row", "role", "seed", "fold", "task", "metric", "split", "value", "sign", "run"),
    ]
    np.testing.assert_array_equal(csv["value"], parquet["value"])
    assert parquet["fold"].isna().all()
    assert len(csv) == 2 * (scores.size - 2 * 6)
    one = csv[(csv["row"] == "PCGrad") & (csv["seed"] == 2) & (csv["split"] == "test")]
    np.testing.assert_array_equal(one["value"], scores[3, 2])
    for run in csv["run"].unique():
        assert (folder.parent / run / "metrics.json").is_file()


def test_the_study_folder_alone_makes_the_report_again(folder):
    results = StudyResults(folder)
    values = results.list_values()
    shown = choose_columns(results.record, values, (), ["auroc", "r2"])
    again = compare_rows(results, values, shown, ("digit", "odd"))
    assert write_markdown(again) == (folder / "report.md").read_text()
    assert write_latex(again) == (folder / "report.tex").read_text()


# -- TensorBoard -----------------------------------------------------------------------------------
def read_line(path):
    """Returns the settings and the metrics of a line of the hparams page."""
    events = EventAccumulator(str(path))
    events.Reload()
    start = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    settings = HParamsPluginData.FromString(start).session_start_info.hparams
    # it would name the columns of all lines
    assert "_hparams_/experiment" not in events.PluginTagToContent("hparams")
    metrics = {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}
    return {
        key: value.string_value or value.number_value for key, value in settings.items()
    }, metrics


def test_tensorboard_has_a_line_for_each_trial(folder, scores):
    lines = {path.name[4:]: path for path in sorted((folder / "hparams").iterdir())}
    settings, metrics = read_line(lines["PCGrad, seed 2"])
    assert settings["row"] == "PCGrad"
    assert settings["seed"] == 2
    assert settings["model.balancer"] == "PCGrad"
    assert settings["model.optimizer.lr"] == "0.003"  # the chosen one
    assert metrics["test/digit/accuracy"] == pytest.approx(scores[3, 2, 0])
    assert metrics["test/ink/rmse"] == pytest.approx(scores[3, 2, 4])
    settings, metrics = read_line(lines["single-task, seed 0, odd"])
    assert list(metrics) == ["val/odd/auroc", "test/odd/auroc"]
    settings, metrics = read_line(lines[f"{TUNED}, tuning 0"])
    assert settings["model.weights.digit"] == "0.2"
    assert list(metrics) == ["val/digit/accuracy", "val/odd/auroc", "val/ink/rmse"]
    record = json.loads((folder / "study.json").read_text())
    # the reference is one trial that the study names for two seeds; one trial has failed
    assert len(lines) == len(record["trials"]) + 1 - 1


# -- what is shown ---------------------------------------------------------------------------------
def test_columns_are_the_monitors_or_what_was_asked_for(folder):
    results = StudyResults(folder)
    values = results.list_values()

    def choose(tasks=(), metrics=()):
        return choose_columns(results.record, values, tasks, metrics)

    assert choose() == [("digit", "accuracy"), ("odd", "auroc"), ("ink", "rmse")]
    assert choose(tasks=["ink"]) == [("ink", "rmse")]
    assert choose(metrics=["r2", "f1"]) == [("digit", "f1"), ("ink", "r2")]
    assert choose(["ink", "odd"], ["auroc", "r2", "mae"]) == [
        *(("ink", "r2"), ("ink", "mae"), ("odd", "auroc")),
    ]
    assert choose_front(results.record, []) == ("digit", "odd")
    assert choose_front(results.record, ["ink", "digit"]) == ("ink", "digit")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--metrics", "foo"], ["--metrics names 'foo', which no run has", "auroc"]),
        (["--metrics", "acuracy"], ["did you mean 'accuracy'?"]),
        (["--tasks", "inc"], ["--tasks names the task 'inc'", "did you mean 'ink'?"]),
        (["--tasks", "ink", "--metrics", "auroc"], ["task ink has none of them", "r2, rmse, mae"]),
        (["--pareto", "ink"], ["--pareto ink: name two tasks"]),
        (["--pareto", "ink,odd,digit"], ["name two tasks"]),
        (["--pareto", "ink,ods"], ["--pareto names the task 'ods'"]),
        (["--mtrics", "f1"], ["--mtrics is no flag of report: did you mean 'metrics'?"]),
        (["--metrics"], ["--metrics needs a value"]),
        (["--tasks", "ink", "--tasks", "odd"], ["--tasks is there twice"]),
        (["more"], ["'more' belongs to no flag"]),
    ],
)
def test_mistakes_are_one_line(folder, words, says):
    refused(call("report", folder, *words), says)


def test_what_is_no_study_is_one_line(tmp_path):
    refused(call("report"), ["--study is missing"])
    refused(call("report", tmp_path / "none"), [f"study folder {tmp_path / 'none'} does not exist"])
    refused(call("report", "--study", tmp_path), ["is no study folder: it holds no study.json"])
    (tmp_path / "study.json").write_text("{}")
    refused(call("report", tmp_path), ["study.json is damaged"])


def test_a_deleted_run_is_one_line_with_a_way_out(tmp_path):
    folder = make_study(tmp_path / "study")
    run = remove_run(folder, "row-4-0")
    says = [str(run), "ensemble, seed 0", "is gone: run `python -m src.compare", "trains it anew"]
    refused(call("report", folder), says)


def test_help_is_short():
    ended = call("report", "--help")
    assert ended.code == 0
    assert "--pareto A,B" in ended.out


def test_a_name_unknown_to_python_raises_a_user_error(folder):
    with pytest.raises(UserError, match="--pareto names the task 'x'"):
        make_report(folder, pareto=["x", "odd"])


# -- the command -----------------------------------------------------------------------------------
def test_the_command_prints_the_tables_and_what_must_be_known(study):
    folder, ended = study
    assert ended.code == 0
    assert "Test metrics of study" in ended.out
    assert "Against tuned fixed weights" in ended.out
    assert "no significant difference" in ended.out
    assert "Cost of a replicate" in ended.out
    assert f"{folder}/report.html" in ended.out
    assert max(map(len, ended.out.splitlines()[:-1])) <= 80
    notes = [line for line in ended.err.splitlines() if line.startswith("note: ")]
    assert any("The study is unfinished" in note for note in notes)
    assert "note: PCGrad, seed 1 failed: no memory." in notes
    assert "accuracy" not in (folder / "report.md").read_text().split("## Against")[0]
